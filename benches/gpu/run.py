#!/usr/bin/env python3
"""Proves and times Ophidian on a GPU, in two steps, so that the machine with the GPU needs no Rust and no network.

usage: benches/gpu/run.py build [--plain] [--kernels] [--mamba CHECKOUT] [--vmamba CHECKOUT] [--conv CHECKOUT]
                                                   where cargo is: all that is to be carried, in target/gpu
       benches/gpu/run.py run [--out FOLDER] [--seconds 560] [--only PART,...] [--skip PART,...] [--quick] [--device cuda]
                                                   where the GPU is, with benches/gpu, configs and target/gpu

`build` links the kernels' own program against glibc 2.17 by `cargo zigbuild` (pip: cargo-zigbuild, brought into
target/zig); --plain, or a machine where that fails, links against the glibc that is there. The others need a libtorch there
of the version that they were built with: that of `python3`'s torch is taken. --kernels leaves them out. Beside them it
brings the authors' vectors (of $OPHIDIAN_SHARED, or shared/ beside the clone) and the CPU's half of the training runs. The
checkouts are clones of github.com/state-spaces/mamba, MzeroMiko/VMamba and Dao-AILab/causal-conv1d, whose kernels are then
carried for peers.py.

`run` takes --seconds at most, parts in the order of what matters most, each with its share of the time:

  parity     kernels against the equations in f64 and the authors' vectors, each also as a CUDA graph; the same bits each time
  goldens    the ops on tensors, with autograd, against the authors' vectors
  bench      the kernels at the shapes of models, beside their floors
  forward    published models beside their authors' outputs and gradients, and the CPU's
  train      training in bf16 and f32 beside the CPU; predict; Vim-T's steps, and the share of them that the GPU is busy
  inference  Vim-T beside DeiT-T at 1248x1248: time and memory
  peers      what others have; their extensions are compiled, if there is an nvcc, while the parts before run
  memcheck, racecheck   compute-sanitizer on a few problems of parity, if it is installed

--only and --skip choose among them, so that a short lease can be used in pieces: `--skip memcheck,racecheck` first, as those
load dozens of instrumented kernels, then `--only memcheck,racecheck --seconds 280`. FOLDER is $OUT if that is set, else
target/gpu. FOLDER/gpu.json is written anew after every line that a part prints, so what was found before a stop is kept;
a part that fails, is missing or is out of time says so in it. The exit status is 1 if a part that proves something found
anything wrong, said nothing or could not be started. The last line also names what was left out and so is not proved.
"""
import argparse
import importlib.util
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
GPU = ROOT / "target/gpu"
# Shares of the time, in the order of what matters most.
PARTS = {"parity": 0.20, "goldens": 0.10, "bench": 0.16, "forward": 0.13, "train": 0.17, "inference": 0.09, "peers": 0.09,
         "memcheck": 0.03, "racecheck": 0.03}
# Those whose failure is one of Ophidian's.
PROVE = {"parity", "goldens", "forward", "train", "memcheck", "racecheck"}


class Report:
    """What was found so far, on disk after every change."""

    def __init__(self, file):
        self.file = file
        self.parts = {}
        self.value = {"machine": machine(), "parts": self.parts}
        self.write()

    def write(self):
        whole = self.file.with_suffix(".part")
        whole.write_text(json.dumps(self.value))
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
                found = read(line)
                if found is None:
                    part["said"] = (part["said"] + [line.rstrip("\n")])[-40:]
                else:
                    part["lines"].append(found)
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


def read(line):
    """What a line tells: an object of JSON, or a test of Rust's."""
    try:
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    except ValueError:
        test = re.match(r"test (\S+) \.\.\. (ok|FAILED)$", line)
        return {"test": test[1], "pass": test[2] == "ok"} if test else None


def torch_folder():
    """Where this python has torch, which is not imported: that takes a while."""
    spec = importlib.util.find_spec("torch")
    return pathlib.Path(spec.origin).parent if spec and spec.origin else None


def machine():
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        told = str(error)
    torch, version = torch_folder(), None
    if torch and (torch / "version.py").is_file():
        version = re.search(r"__version__ = ['\"](.*?)['\"]", (torch / "version.py").read_text())
    return {"gpu": told, "cores": os.cpu_count(), "glibc": " ".join(platform.libc_ver()), "python": platform.python_version(),
            "torch": version and version[1]}


def environment(args):
    """What programs find here: NVRTC and libtorch beside this python's torch, vectors, and a cache of this run's own."""
    found = {"OPHIDIAN_TEST_DEVICE": args.device}
    folder, torch = pathlib.Path(sys.executable).parent, torch_folder()
    # What is looked for beside `python3` is looked for beside this one.
    found["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    if torch and "LIBTORCH" not in os.environ:
        found["LIBTORCH"] = str(torch)
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(torch / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    # Kernels are compiled once and kept where this run's files are, not in a home that may not be writable.
    found["OPHIDIAN_CACHE"] = os.environ.get("OPHIDIAN_CACHE") or tempfile.mkdtemp(prefix="ophidian-")
    if "OPHIDIAN_SHARED" not in os.environ:
        there = [folder for folder in (GPU / "shared", ROOT / "shared", ROOT.parent / "shared") if (folder / "golden").is_dir()]
        found.update({"OPHIDIAN_SHARED": str(there[0])} if there else {})
    return found


def commands(args):
    """How a part is run, given the seconds that it has; or why it is not."""
    gpu, goldens, program = args.binary.resolve(), GPU / "goldens", GPU / "ophidian"
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    quick, python = ["--quick"] if args.quick else [], sys.executable
    cases = [] if args.cases is None else ["--cases", str(args.cases)]

    def of(binary, *words):
        if not binary.is_file():
            return f"no {binary}; `benches/gpu/run.py build` makes it"
        binary.chmod(0o755)
        return lambda soft: [*words, *(["--seconds", soft] if binary != goldens else [])]

    def checked(tool):
        if not os.access(sanitizer, os.X_OK):
            return "compute-sanitizer is not in PATH"
        return of(gpu, sanitizer, "--tool", tool, "--error-exitcode", "9", gpu, "parity", "--cases", "1", "--seed", "1")

    def models(what):
        return of(program, python, HERE / "models.py", what, "--device", args.device, *quick)

    return {
        "parity": of(gpu, gpu, "parity", *cases),
        "goldens": of(goldens, goldens, "--test-threads", "1"),
        "bench": of(gpu, gpu, "bench", *quick),
        **{what: models(what) for what in ("forward", "train", "inference")},
        "peers": lambda soft: [python, HERE / "peers.py", "--seconds", soft],
        **{tool: checked(tool) for tool in ("memcheck", "racecheck")},
    }


class Extensions:
    """The compilation of what peers.py times, if it can be; nobody waits for it before that part."""

    def __init__(self, parts):
        able = "peers" in parts and shutil.which("nvcc") and (GPU / "peers").is_dir()
        command = [sys.executable, HERE / "peers.py", "--build"]
        nothing = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
        self.child = subprocess.Popen(command, start_new_session=True, **nothing) if able else None

    def wait(self, seconds):
        """Until they are there, or the time is spent: what is not by then will not be."""
        if self.child is None:
            return
        try:
            self.child.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        self.child = None


def run(args):
    named = [set(filter(None, names.split(","))) for names in (args.only, args.skip)]
    unknown = (named[0] | named[1]) - set(PARTS)
    if unknown:
        print(f"error: there is no part {', '.join(sorted(unknown))}, only {', '.join(PARTS)}", file=sys.stderr)
        return 2
    parts = {name: share for name, share in PARTS.items() if name not in named[1] and name in (named[0] or PARTS)}
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report, found, how = Report(folder / "gpu.json"), environment(args), commands(args)
    report.value["environment"] = {name: value for name, value in found.items() if name != "PATH"}
    wrong, unproved = [], [name for name in PARTS if name not in parts]
    compiling = Extensions(parts)

    def left():
        return args.seconds - (time.monotonic() - began)

    for position, (name, share) in enumerate(parts.items()):
        # What a part left over is the later ones'.
        later = sum(list(parts.values())[position + 1:])
        seconds = max(5.0, min(left() - 2, left() * share / (share + later)))
        if name == "peers":
            compiling.wait(seconds / 2)
            seconds = max(5.0, min(seconds, left() - 2))
        if isinstance(how[name], str):
            part = report.skip(name, how[name])
        elif left() < 8:
            part = report.skip(name, "no time left")
        else:
            part = report.run(name, how[name](str(max(1, int(seconds - 8)))), seconds, found)
        print(f"{name}: {part['status']}, {part['seconds']} s, {len(part['lines'])} lines", flush=True)
        if part["status"] != 0 and part["said"]:
            print("\n".join(part["said"][-8:]), flush=True)
        tried = not str(part["status"]).startswith("SKIPPED")
        if name in PROVE and tried and part["status"] != 0:
            wrong.append(name)
        if not tried:
            unproved.append(name)
        if name in PROVE:
            unproved += sorted({f"{name}'s {line['skipped']}" for line in part["lines"] if "skipped" in line})
            unproved += sorted({f"{name}: {said}" for said in part["said"] if said.startswith("SKIPPED")})
        for line in [line for line in part["lines"] if line.get("pass") is False][:8]:
            print(json.dumps(line)[:600], flush=True)
    compiling.wait(0)
    table(report.parts)
    print(f"{folder / 'gpu.json'}: {time.monotonic() - began:.0f} s in all; "
          f"wrong: {', '.join(wrong) or 'nothing'}; left out: {', '.join(unproved) or 'nothing'}", flush=True)
    return 1 if wrong else 0


def table(parts):
    """A short one, last: our times beside the floors and the identity order, then what others need, then whole models."""
    lines = {name: part["lines"] for name, part in parts.items()}
    print("| kernel | layer | dtype | order | ms | of the bytes | of the floor | of identity |\n|" + " --- |" * 8)
    for line in lines.get("bench", []):
        if "layer" in line:
            layer = f"{line['layer']} {line['shape']}"
            identity = f"{line['of_identity']:.2f}" if "of_identity" in line else ""
            shares = f"{line['share_of_bytes']:.2f} | {line['share_of_floor']:.2f} | {identity}"
            print(f"| {line['bench']} | {layer} | {line['dtype']} | {line.get('order', '')} | {line['ms']:.4f} | {shares} |")
    for line in lines.get("peers", []):
        if "ms" in line:
            print(f"| {line['peer']} {line['work']} | {line['layer']} | {line['dtype']} | | {line['ms']:.4f} | | | |")
        elif "skipped" in line:
            print(f"| {line['peer']} | {line['skipped']} | SKIPPED: {str(line['why'])[:120]} | | | | | |")
    for line in lines.get("train", []) + lines.get("inference", []):
        if "median_s" not in line:
            print(json.dumps({key: value for key, value in line.items() if key not in ("losses", "cpu_f32")}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["build", "run"])
    parser.add_argument("--plain", action="store_true", help="build: against the glibc that is here")
    parser.add_argument("--kernels", action="store_true", help="build: nothing that needs libtorch")
    for name in ("mamba", "vmamba", "conv"):
        parser.add_argument(f"--{name}", type=pathlib.Path, help="build: a clone whose kernels are carried")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT") or GPU)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--binary", type=pathlib.Path, default=GPU / "gpu")
    parser.add_argument("--only", default="", help="parts to run, by commas")
    parser.add_argument("--skip", default="", help="parts to leave out, by commas")
    parser.add_argument("--quick", action="store_true", help="small shapes and few steps")
    parser.add_argument("--cases", type=int, help="parity: of each kernel")
    parser.add_argument("--device", default="cuda", help="of goldens and models; cpu tries the script out")
    args = parser.parse_args()
    if args.step == "run":
        return run(args)
    import build  # not where the GPU is
    return build.build(args)


if __name__ == "__main__":
    sys.exit(main())
