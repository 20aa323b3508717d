"""What `run.py build` does: everything that a machine with a GPU but without cargo, network and goldens needs, in target/gpu."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import models

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GPU = ROOT / "target/gpu"
TARGET = "x86_64-unknown-linux-gnu"
GLIBC = "2.17"
EXAMPLE = ["--release", "--package", "ophidian-kernels", "--example", "gpu"]
# Binaries that need libtorch: the name here, and what cargo builds. They are linked against the glibc of this machine.
TORCH = {"ophidian": ["--package", "ophidian", "--bin", "ophidian"], "goldens": ["--package", "ophidian-core", "--test", "goldens"]}
# What should travel at most beside the sources, in MB.
MOST = 50


def zigbuild():
    """The program of the kernels, linked by zig."""
    venv = ROOT / "target/zig"
    zig = venv / "bin/cargo-zigbuild"
    if not zig.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "cargo-zigbuild"], check=True)
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["rustup", "target", "add", TARGET], check=False)
    command = [zig, "zigbuild", *EXAMPLE, "--target", f"{TARGET}.{GLIBC}"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PATH": path, "CARGO_PROFILE_RELEASE_STRIP": "symbols"})
    return ROOT / "target" / TARGET / "release/examples/gpu"


def cargo(what):
    """The stripped binary of a target of cargo's."""
    command = ["cargo", "rustc", "--message-format", "json-render-diagnostics", *what, "--", "-C", "strip=symbols"]
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    made = [line["executable"] for line in map(json.loads, told.splitlines()) if line.get("executable")]
    return pathlib.Path(made[-1])


def glibc_of(binary):
    """The newest glibc whose symbols it names."""
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary.read_bytes())
    return "{}.{}".format(*max(((int(a), int(b)) for a, b in found), default=(0, 0)))


def kept(made, name):
    file = GPU / name
    # Not over a file that may be running.
    file.unlink(missing_ok=True)
    shutil.copy2(made, file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, needs glibc {glibc_of(file)} or newer", flush=True)


def carried(name, checkout, paths):
    """Files of a clone, as its last commit has them."""
    folder = GPU / "peers" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", checkout, "archive", "HEAD", *paths], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


def peers(args):
    if args.mamba:
        carried("mamba", args.mamba, ["mamba_ssm", "csrc/selective_scan", "LICENSE"])
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", GPU / "peers/mamba", "einops", "packaging"]
        subprocess.run(pip, check=True)
    if args.conv:
        carried("conv", args.conv, ["causal_conv1d", "csrc", "LICENSE"])
    if args.vmamba:
        carried("vmamba", args.vmamba, ["kernels/selective_scan/csrc", "classification/models/csm_triton.py", "LICENSE"])


def shared(source):
    """The authors' vectors that the parts compare with."""
    if not (source / "golden").is_dir():
        print(f"no goldens at {source}: what compares with them will say that it was skipped", flush=True)
        return
    shutil.rmtree(GPU / "shared", ignore_errors=True)
    for part in ["ops", *(f"models/{name}" for name in models.MODELS)]:
        if (source / "golden" / part).is_dir():
            shutil.copytree(source / "golden" / part, GPU / "shared/golden" / part)
    # As the source may be read-only, and its copy is to be replaced one day.
    for path in (GPU / "shared").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def size(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def build(args):
    GPU.mkdir(parents=True, exist_ok=True)
    made = None
    if not args.plain:
        try:
            made = zigbuild()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no build against an old glibc ({error}); taking the one that is here", flush=True)
    kept(made or cargo(EXAMPLE), "gpu")
    if not args.kernels:
        for name, what in TORCH.items():
            kept(cargo(["--release", *what]), name)
        command = [sys.executable, HERE / "models.py", "reference", "--device", "cpu", "--seconds", "1800"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    peers(args)
    shared(pathlib.Path(os.environ.get("OPHIDIAN_SHARED") or ROOT.parent / "shared"))
    paths = [GPU / name for name in ["gpu", *TORCH, "peers", "shared", "reference"]]
    sizes = {path.relative_to(ROOT): size(path) for path in paths if path.exists()}
    print("to carry: " + ", ".join(f"{path} ({mb:.1f} MB)" for path, mb in sizes.items()))
    if sum(sizes.values()) > MOST:
        print(f"together {sum(sizes.values()):.0f} MB, more than the {MOST} that fit; leave something out")
    return 0
