#!/usr/bin/env python3
"""Proves and times the CUDA kernels on a GPU, in two steps, so that the machine with the GPU needs no Rust.

usage: benches/gpu/run.py build [--plain] [--mamba CHECKOUT]
                                                   where cargo is: target/gpu/gpu, stripped
       benches/gpu/run.py run [--out FOLDER] [--seconds 400] [--binary FILE] [--skip PART,...]
                                                   where the GPU is, with this folder and target/gpu

`build` links against glibc 2.17 by `cargo zigbuild` (pip: cargo-zigbuild, brought into target/gpu/venv), so that the binary
starts on any Linux of the last ten years; --plain, or a machine where that fails, links against the glibc that is there,
and says which one the binary asks for.

--mamba names a clone of github.com/state-spaces/mamba, whose Triton kernels are then carried in target/gpu/peers, with what
they import, for peers.py.

`run` takes --seconds at most: parity with the emulator's problems and the authors' vectors (those of $OPHIDIAN_SHARED or
shared/, if there), compute-sanitizer on a few of them if it is installed, the benchmarks, what others have (peers.py).
FOLDER is $OUT if that is set, else target/gpu. FOLDER/gpu.json is written anew after every line that a part prints, so
what was found before a stop is kept; a part that fails, is missing or is out of time says so in it. The exit status is 1 if
parity or the sanitizer found anything, said nothing or could not be started. The last line also names what was left out and
so is not proved: parts without time or without the sanitizer, the authors' vectors where they are not at hand.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARY = ROOT / "target/gpu/gpu"
TARGET = "x86_64-unknown-linux-gnu"
GLIBC = "2.17"
EXAMPLE = ["--release", "--package", "ophidian-kernels", "--example", "gpu"]


def zigbuild():
    """The binary, linked by zig; None if that cannot be had."""
    venv = BINARY.parent / "venv"
    zig = venv / "bin/cargo-zigbuild"
    if not zig.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "cargo-zigbuild"], check=True)
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["rustup", "target", "add", TARGET], check=False)
    command = [zig, "zigbuild", *EXAMPLE, "--target", f"{TARGET}.{GLIBC}"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PATH": path, "CARGO_PROFILE_RELEASE_STRIP": "symbols"})
    return ROOT / "target" / TARGET / "release/examples/gpu"


def plain():
    subprocess.run(["cargo", "rustc", *EXAMPLE, "--", "-C", "strip=symbols"], cwd=ROOT, check=True)
    return ROOT / "target/release/examples/gpu"


def glibc_of(binary):
    """The newest glibc whose symbols it names."""
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())
    return "{}.{}".format(*max(((int(a), int(b)) for a, b in found), default=(0, 0)))


def build(args):
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    made = None
    if not args.plain:
        try:
            made = zigbuild()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no build against an old glibc ({error}); taking the one that is here", flush=True)
    made = made or plain()
    # Not over a file that may be running.
    BINARY.unlink(missing_ok=True)
    shutil.copy2(made, BINARY)
    if args.mamba:
        carry(args.mamba)
    print(f"{BINARY}: {BINARY.stat().st_size / 1e6:.1f} MB, needs glibc {glibc_of(BINARY)} or newer")


def carry(mamba):
    """The Triton kernels of a clone, as its last commit has them, and what they import that torch does not bring."""
    folder = BINARY.parent / "peers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", mamba, "archive", "HEAD", "mamba_ssm", "LICENSE"], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "einops", "packaging"]
    subprocess.run(pip, check=True)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB")


class Report:
    """What was found so far, on disk after every change."""

    def __init__(self, file):
        self.file = file
        self.parts = {}
        self.value = {"machine": machine(), "parts": self.parts}
        self.write()

    def write(self):
        whole = self.file.with_suffix(".part")
        whole.write_text(json.dumps(self.value, indent=1))
        os.replace(whole, self.file)

    def run(self, name, command, seconds, environment=None):
        """Runs a part; its JSON lines are kept as they come, of the rest the end."""
        part = self.parts[name] = {"status": "running", "seconds": 0.0, "lines": [], "said": []}
        began = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as error:
            try:
                child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=error,
                                         text=True, errors="replace", env={**os.environ, **(environment or {})},
                                         start_new_session=True)
            except OSError as reason:
                part["status"] = str(reason)
                self.write()
                return part
            late = threading.Event()

            def stop():
                late.set()
                # What it started may hold the pipe open.
                os.killpg(child.pid, signal.SIGKILL)

            timer = threading.Timer(seconds, stop)
            timer.start()
            for line in child.stdout:
                try:
                    part["lines"].append(json.loads(line))
                except ValueError:
                    part["said"] = (part["said"] + [line.rstrip("\n")])[-40:]
                part["seconds"] = round(time.monotonic() - began, 1)
                self.write()
            status = child.wait()
            timer.cancel()
            error.seek(0)
            part["said"] = (part["said"] + error.read().splitlines())[-60:]
        silent = status == 0 and not part["lines"]
        part["status"] = f"out of time after {seconds:.0f} s" if late.is_set() else "said nothing" if silent else status
        part["seconds"] = round(time.monotonic() - began, 1)
        self.write()
        return part

    def skip(self, name, why):
        self.parts[name] = {"status": f"SKIPPED: {why}", "seconds": 0.0, "lines": [], "said": []}
        self.write()
        return self.parts[name]


def machine():
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        told = str(error)
    return {"gpu": told, "glibc": " ".join(platform.libc_ver()), "python": platform.python_version()}


def nvrtc():
    """Where this python has an NVRTC; {} leaves the search to the binary."""
    if "OPHIDIAN_NVRTC" in os.environ:
        return {}
    for folder in map(pathlib.Path, sys.path):
        for inner in ("nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"):
            for name in ("libnvrtc.so.13", "libnvrtc.so.12"):
                if (folder / inner / name).is_file():
                    return {"OPHIDIAN_NVRTC": str(folder / inner / name)}
    return {}


def run(args):
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    binary, began = args.binary.resolve(), time.monotonic()
    report = Report(folder / "gpu.json")
    environment = nvrtc()
    # Kernels are compiled once and kept where this run's files are, not in a home that may not be writable.
    environment.setdefault("OPHIDIAN_CACHE", os.environ.get("OPHIDIAN_CACHE") or tempfile.mkdtemp(prefix="ophidian-"))
    if "OPHIDIAN_SHARED" not in os.environ and (ROOT / "shared/golden").is_dir():
        environment["OPHIDIAN_SHARED"] = str(ROOT / "shared")
    report.value["environment"] = environment
    sanitizer = shutil.which("compute-sanitizer") or next(
        (path for path in ["/usr/local/cuda/bin/compute-sanitizer"] if os.access(path, os.X_OK)), None)
    # Shares of the time, in the order of what matters most.
    parts = [("parity", 0.28), ("bench", 0.34), ("memcheck", 0.06), ("racecheck", 0.06), ("peers", 0.24)]
    skipped, wrong, unproved = set(filter(None, args.skip.split(","))), [], []
    if not binary.is_file():
        print(f"error: no {binary}; make it by `benches/gpu/run.py build` where cargo is", file=sys.stderr)
        return 1
    os.chmod(binary, 0o755)
    for name, share in parts:
        # What a part left over is the later ones'.
        left = args.seconds - (time.monotonic() - began)
        later = sum(other for _, other in parts[[n for n, _ in parts].index(name) + 1:])
        seconds = max(5.0, min(left - 2, left * share / (share + later) if later else left))
        soft = str(max(1, int(seconds - 8)))
        if name in skipped:
            part = report.skip(name, "by --skip")
        elif left < 8:
            part = report.skip(name, "no time left")
        elif name == "parity":
            part = report.run(name, [binary, "parity", "--seconds", soft, *args.cases], seconds, environment)
        elif name == "bench":
            quick = ["--quick"] if args.quick else []
            part = report.run(name, [binary, "bench", "--seconds", soft, *quick], seconds, environment)
        elif name == "peers":
            part = report.run(name, [sys.executable, HERE / "peers.py", "--seconds", soft], seconds, environment)
        elif not sanitizer:
            part = report.skip(name, "compute-sanitizer is not in PATH")
        else:
            checked = [sanitizer, "--tool", name, "--error-exitcode", "9", binary, "parity", "--cases", "1", "--seed", "1"]
            part = report.run(name, [*checked, "--seconds", soft], seconds, environment)
        print(f"{name}: {part['status']}, {part['seconds']} s, {len(part['lines'])} lines", flush=True)
        if part["status"] != 0 and part["said"]:
            print("\n".join(part["said"][-8:]), flush=True)
        tried = not str(part["status"]).startswith("SKIPPED")
        if name in ("parity", "memcheck", "racecheck") and tried and part["status"] != 0:
            wrong.append(name)
        if not tried:
            unproved.append(name)
        unproved += sorted({f"{name}'s {line['skipped']}" for line in part["lines"] if name == "parity" and "skipped" in line})
        for line in [line for line in part["lines"] if line.get("pass") is False][:8]:
            print(json.dumps(line)[:600], flush=True)
    table(report.parts)
    print(f"{folder / 'gpu.json'}: {time.monotonic() - began:.0f} s in all; "
          f"wrong: {', '.join(wrong) or 'nothing'}; left out: {', '.join(unproved) or 'nothing'}", flush=True)
    return 1 if wrong else 0


def table(parts):
    """A short one, last: our times beside the floors and the identity order, then what others need."""
    print("| kernel | layer | dtype | order | ms | of the bytes | of the floor | of identity |\n|" + " --- |" * 8)
    for line in parts["bench"]["lines"]:
        if "layer" in line:
            layer = f"{line['layer']} {line['shape']}"
            identity = f"{line['of_identity']:.2f}" if "of_identity" in line else ""
            shares = f"{line['share_of_bytes']:.2f} | {line['share_of_floor']:.2f} | {identity}"
            print(f"| {line['bench']} | {layer} | {line['dtype']} | {line.get('order', '')} | {line['ms']:.4f} | {shares} |")
    for line in parts["peers"]["lines"]:
        if "ms" in line:
            print(f"| {line['peer']} {line['work']} | {line['layer']} | {line['dtype']} | | {line['ms']:.4f} | | | |")
        elif "skipped" in line:
            print(f"| {line['peer']} | {line['skipped']} | SKIPPED: {str(line['why'])[:120]} | | | | | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["build", "run"])
    parser.add_argument("--plain", action="store_true", help="build: against the glibc that is here")
    parser.add_argument("--mamba", type=pathlib.Path, help="build: a clone whose Triton kernels are carried")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT") or ROOT / "target/gpu")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    parser.add_argument("--skip", default="", help="parts to leave out, by commas")
    parser.add_argument("--quick", action="store_true", help="bench: small shapes")
    parser.add_argument("--cases", type=int, help="parity: of each kernel")
    args = parser.parse_args()
    args.cases = [] if args.cases is None else ["--cases", str(args.cases)]
    return build(args) if args.step == "build" else run(args)


if __name__ == "__main__":
    sys.exit(main())
