#!/usr/bin/env python3
"""Whole models on a GPU by the `ophidian` program, beside the same on the CPU; one JSON line per finding.

usage: benches/gpu/models.py forward|train|inference|reference [--device cuda] [--program target/gpu/ophidian]
                             [--shared target/gpu/shared] [--reference target/gpu/reference] [--seconds 120] [--quick]

forward    published models on their authors' goldens: outputs and gradients beside the authors' and the CPU's.
train      a small model and Vim-T at 224x224 on drawn figures: the losses in bf16 and f32 beside those of the CPU in f32,
           labels and probabilities of `predict`, then Vim-T's seconds per step, and how much of them the GPU is busy.
inference  Vim-T beside DeiT-T (deit.py) at 224x224 and 1248x1248: time and memory of one forward.
reference  the CPU's half of `train`, kept in --reference: `run.py build` makes it, so that no GPU waits for it.

With --device cpu all of it runs on a machine without a GPU, beside itself, but DeiT's memory is then not told. A line with
"pass": false is a failure, and makes the exit status 1. --quick: small sizes and few steps.
"""
import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GPU = ROOT / "target/gpu"
# Families and folders of golden/models; largest differences from the authors' code relative to a tensor's largest value, as
# the CPU's own tests allow for outputs and gradients, five times: a GPU sums in another order.
MODELS = ["vim/a_midcls_div2", "vim/d_nocls_rope_meanpool", "vmamba/a_v05_noz", "vmamba/c_v0_vanilla",
          "plainmamba/a_L1like", "videomamba/a", "videomamba/c_image", "pointmamba/a"]
OUTPUTS, GRADIENTS = 1e-4, 1e-3
# Largest differences of a step's loss from the CPU's in f32, relative to it, over the steps below: what follows from a
# rounding grows with every step. bf16 on the CPU itself is off by 1e-3 at most.
LOSSES = {"f32": 5e-4, "bf16": 5e-3}


class Failed(Exception):
    pass


def say(**line):
    print(json.dumps(line), flush=True)


def rel(value, of):
    return abs(value - of) / max(abs(of), 1e-12)


class Program:
    def __init__(self, args):
        self.args, self.device, self.end = args, args.device, time.monotonic() + args.seconds
        self.failed = False
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ophidian-models-"))

    def call(self, *words):
        """What it prints."""
        left = self.end - time.monotonic()
        if left < 1:
            raise Failed("out of time")
        command = [str(self.args.program), *map(str, words)]
        try:
            ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=left)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed("out of time" if isinstance(error, subprocess.TimeoutExpired) else str(error)) from error
        if ran.returncode:
            said = [line for line in ran.stderr.splitlines() if line.strip()] or [f"exit status {ran.returncode}"]
            # The sentence comes first; libtorch may have put a stack behind it.
            told = next((line for line in said if line.startswith("error:")), said[-1])
            raise Failed(f"{told[:400]} ({' '.join(command)})")
        return ran.stdout

    def judge(self, passes, **line):
        self.failed |= not passes
        say(**line, **{"pass": bool(passes)})

    def failure(self, what, error):
        late = str(error) == "out of time"
        self.failed |= not late
        say(**what, **({"skipped": "all", "why": str(error)} if late else {"pass": False, "error": str(error)}))

    def tried(self, what, work):
        """Runs `work`; a failure is a line, and the next may do."""
        try:
            return work()
        except Failed as error:
            return self.failure(what, error)


def tensors(path):
    """The f32 tensors of a safetensors file: name to (shape, values)."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, about in json.loads(data[8:8 + size]).items():
        if name != "__metadata__" and about["dtype"] in ("F32", "F64"):
            begin, end = (8 + size + offset for offset in about["data_offsets"])
            letter, width = ("f", 4) if about["dtype"] == "F32" else ("d", 8)
            found[name] = about["shape"], struct.unpack(f"<{(end - begin) // width}{letter}", data[begin:end])
    return found


def apart(found, wanted, prefix):
    """The largest difference among tensors of a prefix, relative to the largest value of its tensor, and its name."""
    worst, where, count = 0.0, None, 0
    for name, (shape, values) in wanted.items():
        if not name.startswith(prefix) or name not in found or not values:
            continue
        if found[name][0] != shape:
            return float("inf"), f"{name} is {found[name][0]}, expected {shape}", 1
        scale = max(max(map(abs, values)), 1e-6)
        error = max(abs(a - b) for a, b in zip(found[name][1], values)) / scale
        # NaN is never small.
        if not error <= worst:
            worst, where = error, name
        count += 1
    return worst, where, count


def forward(program):
    folder = program.args.shared / "golden/models"
    if not folder.is_dir():
        return say(skipped="forward", why=f"no goldens at {folder}")
    for name in MODELS[:2] if program.args.quick else MODELS:
        model, family = folder / name, name.split("/")[0]

        def one():
            given, out = model / "golden.safetensors", program.folder / "out.safetensors"
            found = {}
            for device in dict.fromkeys([program.device, "cpu"]):
                words = ["--family", family, "--model", model, "--input", given, "--output", out, "--device", device]
                program.call("forward", *words)
                found[device] = tensors(out)
            here = found[program.device]
            # Theirs in f64 where they are, else in f32.
            file = sorted(tensors(given).items(), key=lambda item: "64." in item[0])
            authors = {name.replace("64.", ".", 1): value for name, value in file}
            errors = {of: [apart(here, wanted, prefix) for prefix in ("out.", "grad.")]
                      for of, wanted in (("authors", authors), ("cpu", found["cpu"]))}
            passes = all(outputs[2] and outputs[0] <= OUTPUTS and grads[0] <= GRADIENTS for outputs, grads in errors.values())
            told = {f"{what}_from_{of}": {"error": found[0], "of": found[1], "tensors": found[2]}
                    for of, pair in errors.items() for what, found in zip(("outputs", "gradients"), pair)}
            program.judge(passes, forward=name, device=program.device, allowed=[OUTPUTS, GRADIENTS], **told)

        program.tried({"forward": name}, one)
    return None


def runs(quick):
    """Configs of the training runs: a name, the config and what is set; random numbers differ between devices, so none drops."""
    steps = 6 if quick else 40
    demo = (ROOT / "configs/demo.toml", {"train.max_steps": steps, "data.train": 2048, "data.eval": 64, "model.drop_path": 0.0})
    vim = {"adapter": "vision", "data": {"format": "shapes", "image_size": 224, "channels": 3, "train": 2048, "eval": 8},
           "model": {"base": "vim_tiny_patch16_224", "drop_path": 0.0}}
    few = {"train.max_steps": 2 if quick else 8, "train.batch_size": 2 if quick else 8, "train.warmup_epochs": 0.02,
           **({"model.depth": 2} if quick else {})}
    return {"demo": demo, "vim_tiny_224": (vim, few)}


def written(program, config):
    """The file of a config."""
    if isinstance(config, pathlib.Path):
        return config
    file = program.folder / "config.toml"
    lines = [f"adapter = {json.dumps(config['adapter'])}"]
    for table in ("data", "model"):
        lines += [f"[{table}]"] + [f"{key} = {json.dumps(value)}" for key, value in config[table].items()]
    file.write_text("\n".join(lines) + "\n")
    return file


def trained(program, name, config, changes, device, precision):
    """A run folder, and its lines of metrics.jsonl."""
    folder = program.folder / f"{name}-{device}-{precision}"
    changes = {"train.log_every_steps": 1, "train.precision": precision, **changes}
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    program.call("train", written(program, config), "--output", folder, "--force", "--device", device, *words)
    return folder, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(lines):
    return [line["loss"] for line in lines if line["kind"] == "step"]


def kept(program, name):
    """The CPU's losses in f32, kept or computed now."""
    config, changes = runs(program.args.quick)[name]
    file = program.args.reference / f"{name}{'-quick' if program.args.quick else ''}.json"
    told = json.loads(json.dumps([config if isinstance(config, dict) else config.read_text(), changes]))
    if file.is_file():
        known = json.loads(file.read_text())
        if known["of"] == told:
            return known["losses"]
    losses = curve(trained(program, name, config, changes, "cpu", "f32")[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"of": told, "losses": losses}))
    return losses


def reference(program):
    for name in runs(program.args.quick):
        program.tried({"reference": name}, lambda: say(reference=name, losses=kept(program, name)))


def train(program):
    for name, (config, changes) in runs(program.args.quick).items():
        for precision, allowed in LOSSES.items():
            what = {"train": name, "device": program.device, "precision": precision}

            def one():
                wanted = kept(program, name)
                folder, lines = trained(program, name, config, changes, program.device, precision)
                losses = curve(lines)
                worst = max(map(rel, losses, wanted), default=float("nan"))
                passes = len(losses) == len(wanted) > 0 and worst <= allowed
                program.judge(passes, **what, steps=len(losses), worst=worst, allowed=allowed, losses=losses, cpu_f32=wanted)
                return folder

            folder = program.tried(what, one)
            if folder and name == "demo" and precision == "f32":
                program.tried({"predict": name}, lambda: predicted(program, folder))
    program.tried({"speed": "vim_tiny_224"}, lambda: speed(program))


def image(path, side, number):
    """A grey PNG of a bar and a disc, another one for every number."""
    rows = b""
    for y in range(side):
        bar = lambda x: (x * (number + 1) + y * 2) % side < 6
        disc = lambda x: (x - side // 2 - number) ** 2 + (y - side // 2) ** 2 < (4 + number) ** 2
        rows += b"\0" + bytes(230 if disc(x) else 120 if bar(x) else 10 for x in range(side))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def predicted(program, run):
    """`predict` of a trained run: probabilities beside the CPU's."""
    images = program.folder / "images"
    images.mkdir(exist_ok=True)
    for number in range(8):
        image(images / f"{number}.png", 28, number)
    found = {}
    for device in dict.fromkeys([program.device, "cpu"]):
        table = program.folder / "predictions.json"
        program.call("predict", run, images, "--output", table, "--device", device)
        found[device] = {row["input"]: row["probabilities"] for row in json.loads(table.read_text())}
    here, wanted = found[program.device], found["cpu"]
    worst = max(abs(here[file][label] - value) for file, row in wanted.items() for label, value in row.items())
    program.judge(worst <= 1e-4, predict=run.name, images=len(wanted), worst=worst, allowed=1e-4)


class Busy(threading.Thread):
    """The share of time in which the GPU ran kernels, as nvidia-smi samples it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.samples, self.child = [], None

    def run(self):
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        try:
            self.child = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            return
        for line in self.child.stdout:
            try:
                self.samples.append((time.monotonic(), float(line.splitlines()[0])))
            except (ValueError, IndexError):
                pass

    def stop(self):
        if self.child:
            self.child.terminate()
        self.join(2)

    def of(self, begin, end):
        """The mean between two moments, if there is any."""
        within = [share / 100 for moment, share in self.samples if begin <= moment <= end]
        return sum(within) / len(within) if within else None


def speed(program):
    """Vim-T in bf16 as one trains it: seconds per step behind the first ones, the loader's share of them."""
    config, _ = runs(False)["vim_tiny_224"]
    small = program.args.quick or program.device == "cpu"
    batch, steps, warm = (4, 6, 2) if small else (128, 160, 40)
    cores = os.cpu_count() or 1
    changes = {"train.max_steps": steps, "train.batch_size": batch, "train.workers": max(1, cores - 2),
               # One epoch: nothing is measured or saved between the steps.
               "data.train": batch * steps,
               **({"model.depth": 2} if small else {})}
    busy = Busy()
    busy.start()
    _, lines = trained(program, "speed", config, changes, program.device, "bf16")
    ended = time.monotonic()
    busy.stop()
    taken = [line for line in lines if line["kind"] == "step"]
    behind = taken[warm:]
    seconds = (behind[-1]["training_seconds"] - taken[warm - 1]["training_seconds"]) / len(behind)
    waits = [line["data_wait"] * batch / line["samples_per_second"] for line in behind]
    # What lies behind the last step is measuring and drawing: how long is known, of what came before the first is not.
    after = lines[-1]["seconds"] - behind[-1]["seconds"]
    share = busy.of(ended - after - seconds * len(behind), ended - after)
    say(speed="vim_tiny_224", device=program.device, precision="bf16", batch=batch, steps=len(behind), seconds_per_step=seconds,
        images_per_second=batch / seconds, loader_share=sum(waits) / len(waits) / seconds, gpu_busy=share,
        workers=changes["train.workers"], goal="busy above 0.90")


def inference(program):
    """Both models in turns, each as its own program has it."""
    deit, sides = HERE / "deit.py", [(64, [1])] if program.args.quick else [(1248, [32, 8, 1]), (224, [64])]
    runs = 1 if program.args.quick else 7
    for side, batches in sides:
        for dtype in ("bf16", "f32"):
            # The largest batch that both have memory for.
            for batch in batches:
                try:
                    beside(program, deit, side, batch, dtype, runs)
                    break
                except Failed as error:
                    if "memory" not in str(error):
                        program.failure({"inference": side, "dtype": dtype}, error)
                        break
                    say(inference=side, batch=batch, dtype=dtype, skipped="batch", why=str(error))


def beside(program, deit, side, batch, dtype, runs):
    sizes = ["--side", side, "--batch", batch, "--dtype", dtype, "--device", program.device, "--runs", runs]
    ours = json.loads(program.call("bench", "model", "vim_tiny_patch16_224", *sizes))
    say(inference="vim_tiny", side=side, batch=batch, **{key: ours[key] for key in ("dtype", "median_s", "min_s", "peak_bytes")})
    left = program.end - time.monotonic()
    command = [sys.executable, deit, *map(str, sizes)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=max(1, left))
    except subprocess.TimeoutExpired as error:
        raise Failed("out of time") from error
    for line in map(json.loads, ran.stdout.splitlines()):
        say(**line)
        if "median_s" not in line:
            continue
        ours_peak, peak = ours["peak_bytes"], line["peak_bytes"]
        say(compared=f"vim_tiny over {line['inference']}, {line['attention']} attention", side=side, batch=batch, dtype=dtype,
            speedup=line["median_s"] / ours["median_s"], memory_saving=1 - ours_peak / peak if peak and ours_peak else None,
            goal="at 1248 over plain attention 2.8 and 0.868")
    if ran.returncode:
        raise Failed(f"deit.py: {(ran.stderr.strip().splitlines() or [ran.returncode])[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["forward", "train", "inference", "reference"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--program", type=pathlib.Path, default=GPU / "ophidian")
    parser.add_argument("--shared", type=pathlib.Path, default=os.environ.get("OPHIDIAN_SHARED") or GPU / "shared")
    parser.add_argument("--reference", type=pathlib.Path, default=GPU / "reference")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    program = Program(args)
    try:
        {"forward": forward, "train": train, "inference": inference, "reference": reference}[args.what](program)
    finally:
        shutil.rmtree(program.folder, ignore_errors=True)
    return int(program.failed)


if __name__ == "__main__":
    sys.exit(main())
