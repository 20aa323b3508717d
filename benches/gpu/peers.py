#!/usr/bin/env python3
"""Times what others have at the shapes of `gpu bench`, on the same card, with CUDA events; one JSON line per case.

usage: benches/gpu/peers.py [--seconds 120] [--sources target/gpu/peers] [--list] [--build]

The first lines say of each peer how it was found: installed, taken from sources that were carried here (`run.py build
--mamba CHECKOUT --vmamba CHECKOUT --conv CHECKOUT`), or not at all, and why: its cases are skipped. --list stops there.
Triton's kernels are compiled when they are first called (with the machine's gcc or clang and Python.h). CUDA extensions are
compiled by --build, with nvcc, into the folder `built` of the sources; minutes on many cores, no GPU needed.

mamba_ssm (selective_scan_fn, mamba_chunk_scan_combined), causal_conv1d, VMamba's cross scan and selective scan, and PyTorch's
scaled_dot_product_attention. VMamba's scan is its own extension (selective_scan_cuda_oflex), or where that is not at hand
mamba_ssm's, which it comes from; its orders are its Triton kernels, or PyTorch's operations: the peer's name says which.
`ms` is the median of five batches; a backward is timed as forward and backward less the forward. Triton tries its
configurations at a kernel's first call: that is not timed, but takes a minute.
"""
import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "target/gpu/peers"
# As in layers.rs beside this, the most wanted first: name, batch, tokens, directions, channels, states.
LAYERS = [
    ("mamba-2.8b", 8, 2048, 1, 5120, 16),
    *[(f"vmamba-t/{i + 1}", 64, (56 >> i) ** 2, 4, 96 << i, 1) for i in range(4)],
    *[(name, batch, tokens, 2, width, 16)
      for name, width in [("vim-t", 384), ("vim-s", 768)]
      for batch, tokens in [(64, 197), (4, 6085)]],
    *[("mamba-2.8b", 1, tokens, 1, 5120, 16) for tokens in (2048, 16384, 65536)],
    *[(name, batch, tokens, 1, width, 16)
      for name, width in [("mamba-130m", 1536), ("mamba-1.4b", 4096)]
      for batch, tokens in [(8, 2048), (1, 2048), (1, 16384), (1, 65536)]],
]
# name, batch, tokens, heads, headdim, states
SSD = [("mamba2-2.7b", batch, tokens, 80, 64, 128) for batch, tokens in [(8, 2048), (1, 2048), (1, 16384), (1, 65536)]]
# name, module, function, whether its sources in Python alone serve
PEERS = [
    ("mamba_ssm.mamba_chunk_scan_combined", "mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", True),
    ("mamba_ssm.selective_scan_fn", "mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", False),
    ("causal_conv1d_fn", "causal_conv1d", "causal_conv1d_fn", False),
    ("vmamba.selective_scan", "selective_scan_cuda_oflex", None, False),
    ("vmamba.cross_scan (Triton)", "csm_triton", None, True),
]
# Folders of the sources that are imported from.
FOLDERS = ["mamba", "conv", "vmamba/classification/models"]
# CUDA extensions: the folder of their sources, what is compiled, and what is included from.
OFLEX = "vmamba/kernels/selective_scan/csrc/selective_scan"
EXTENSIONS = {
    "selective_scan_cuda": ("mamba/csrc/selective_scan", ["*.cpp", "*.cu"], "mamba/csrc/selective_scan"),
    "causal_conv1d_cuda": ("conv/csrc", ["*.cpp", "*.cu"], "conv/csrc"),
    "selective_scan_cuda_oflex": (
        f"{OFLEX}/cusoflex", ["selective_scan_oflex.cpp", "selective_scan_core_*.cu"], OFLEX),
}
# What CUB had under these names until CUDA 13, and VMamba's kernels ask for.
COMPATIBLE = """#pragma once
#include <cub/version.cuh>
#if CUB_VERSION >= 300000
namespace cub {
__device__ __forceinline__ void CTA_SYNC() { __syncthreads(); }
__device__ __forceinline__ unsigned LaneId() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}
}
#endif
"""
# As their own setup.py files have it.
FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "--expt-extended-lambda", "--use_fast_math",
         *(f"-U__CUDA_NO_{name}__" for name in ("HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_OPERATORS",
                                                "BFLOAT16_CONVERSIONS", "BFLOAT162_OPERATORS"))]


def say(**line):
    print(json.dumps(line), flush=True)


def reason(error):
    text = f"{type(error).__name__}: {error}".strip()
    return text.splitlines()[0][:300]


def build(sources, name=None):
    """Compiles the extensions side by side, or the one of that name."""
    folders = {name: sources / about[0] for name, about in EXTENSIONS.items()}
    if name is None:
        children = {}
        for name in [name for name, folder in folders.items() if folder.is_dir()]:
            made = sources / "built" / name
            made.mkdir(parents=True, exist_ok=True)
            with (made / "log").open("w") as log:
                command = [sys.executable, __file__, "--sources", sources, "--build", name]
                children[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        for name, child in children.items():
            say(built=name, status=child.wait())
        return
    import torch
    from torch.utils import cpp_extension
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        os.environ["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability())
    _, patterns, include = EXTENSIONS[name]
    files = sorted(str(file) for pattern in patterns for file in folders[name].glob(pattern))
    compatible = sources / "built" / name / "compatible.h"
    compatible.write_text(COMPATIBLE)
    cpp_extension.load(name, files, extra_cflags=["-O3", "-std=c++17"], extra_cuda_cflags=[*FLAGS, "-include", str(compatible)],
                       extra_include_paths=[str(sources / include)], build_directory=str(sources / "built" / name), verbose=True)


def carried(sources):
    """Makes packages of carried sources importable without what their own __init__ asks for."""
    sys.path += [str(folder) for folder in [*(sources / name for name in FOLDERS), *(sources / "built").glob("*")] if folder.is_dir()]
    for name in ("mamba_ssm",):
        folder = sources / "mamba" / name
        # Its __init__ imports all of it; an installed one goes first.
        if folder.is_dir() and importlib.util.find_spec(name).origin == str(folder / "__init__.py"):
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package


def find(sources):
    """The function of each peer that there is, or its module."""
    carried(sources)
    found = {}
    for name, module, function, python in PEERS:
        try:
            there = importlib.import_module(module)
            found[name] = getattr(there, function) if function else there
            say(peer=name, found=getattr(there, "__file__", None) or "built in")
        except Exception as error:  # whatever an import of somebody else's code may raise
            why, logs = reason(error), [file.read_text(errors="replace") for file in (sources / "built").glob("*/log")]
            compiler = shutil.which("nvcc")
            if not python:
                why += f"; its extension is built by {compiler}" if compiler else "; its extension needs nvcc, which is not here"
                why += "".join(f"; the build ended: {log.strip().splitlines()[-1][:200]}" for log in logs if "rror" in log)[:600]
            elif not sources.is_dir():
                why += f"; no sources at {sources}"
            say(peer=name, skipped="all", why=why)
    return found


def median_ms(torch, work):
    def timed(count):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count

    timed(2)
    count = int(min(max(10 / max(timed(1), 1e-3), 1), 200))
    return sorted(timed(count) for _ in range(5))[2]


class Clock:
    def __init__(self, torch, seconds):
        self.torch = torch
        self.end = time.monotonic() + seconds

    def measure(self, peer, layer, dtype, forward, inputs):
        """`forward` takes inputs that require gradients and gives one tensor. `inputs` makes them."""
        torch = self.torch
        if time.monotonic() > self.end:
            return say(peer=peer, skipped=layer, dtype=dtype, why="out of time")
        try:
            inputs = inputs()
            with torch.no_grad():
                ms = median_ms(torch, lambda: forward(*inputs))
            say(peer=peer, layer=layer, dtype=dtype, work="forward", ms=ms)
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            gradient = torch.randn_like(forward(*leaves))

            def both():
                torch.autograd.grad(forward(*leaves), leaves, gradient)

            whole = median_ms(torch, both)
            say(peer=peer, layer=layer, dtype=dtype, work="backward", ms=whole - ms, with_forward_ms=whole)
        except Exception as error:  # out of memory, a shape that the peer refuses: the next one may do
            say(peer=peer, skipped=layer, dtype=dtype, why=reason(error))
        finally:
            inputs = leaves = gradient = None
            torch.cuda.empty_cache()
        return None


def ssd(clock, chunked, layer):
    name, batch, tokens, heads, head, states = layer
    torch = clock.torch
    a, bias = -torch.rand(heads, device="cuda") * 15 - 1, torch.randn(heads, device="cuda") - 3
    d = torch.randn(heads, device="cuda")

    def forward(x, dt, b, c, z):
        return chunked(x, dt, a, b, c, 256, D=d, z=z, dt_bias=bias, dt_softplus=True)

    def inputs():
        rows = (batch, tokens, heads, head)
        shapes = [rows, (batch, tokens, heads)] + [(batch, tokens, 1, states)] * 2 + [rows]
        return [torch.randn(*shape, device="cuda", dtype=torch.bfloat16) for shape in shapes]

    clock.measure("mamba_ssm.mamba_chunk_scan_combined", f"{name} B{batch} L{tokens}", "bf16", forward, inputs)


def scans(clock, found, layer, dtype_name):
    """The peers of a layer of Mamba or Vim; others have no directions, and get a batch of them."""
    name, batch, tokens, directions, width, states = layer
    torch = clock.torch
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype_name]
    label, rows = f"{name} B{batch} L{tokens}", batch * directions

    def rand(*shape, of=dtype):
        return torch.randn(*shape, device="cuda", dtype=of)

    selective, conv = found.get("mamba_ssm.selective_scan_fn"), found.get("causal_conv1d_fn")
    if selective:
        a, d = -torch.rand(width, states, device="cuda") * 15 - 1, rand(width, of=torch.float32)
        bias = rand(width, of=torch.float32) - 3
        # (B, D, L) and (B, 1, N, L), as it has them.
        shapes = [(rows, width, tokens)] * 2 + [(rows, 1, states, tokens)] * 2 + [(rows, width, tokens)]
        clock.measure(
            "mamba_ssm.selective_scan_fn", label, dtype_name,
            lambda u, delta, b, c, z: selective(u, delta, a, b, c, d, z, bias, delta_softplus=True),
            lambda: [rand(*shape) for shape in shapes])
    if conv:
        weight, bias = rand(width, 4), rand(width)
        clock.measure(
            "causal_conv1d_fn", label, dtype_name, lambda x: conv(x.transpose(1, 2), weight, bias, activation="silu"),
            lambda: [rand(rows, tokens, width)])
    if dtype_name == "bf16":
        # Of equal width: that of the residual stream, heads of 64; Mamba is causal, Vim is not.
        attention, heads, causal = torch.nn.functional.scaled_dot_product_attention, width // 2 // 64, directions == 1
        clock.measure(
            "torch.scaled_dot_product_attention", label, dtype_name, lambda q, k, v: attention(q, k, v, is_causal=causal),
            lambda: [rand(batch, heads, tokens, 64) for _ in range(3)])


def vmamba(torch, found):
    """VMamba's scan of what lies in four orders, and the name of what it is made of; None if there is none."""
    extension, selective = found.get("vmamba.selective_scan"), found.get("mamba_ssm.selective_scan_fn")
    if extension:

        class Scan(torch.autograd.Function):
            """Its extension gives f32, and takes that back."""

            @staticmethod
            def forward(ctx, u, delta, a, b, c, d, bias):
                out, states, *_ = extension.fwd(u, delta, a, b, c, d, bias, True, 1, True)
                ctx.save_for_backward(u, delta, a, b, c, d, bias, states)
                return out

            @staticmethod
            def backward(ctx, gradient):
                *inputs, states = ctx.saved_tensors
                return tuple(extension.bwd(*inputs, gradient.contiguous(), states, True, 1)[:7])

        return Scan.apply, "selective_scan_cuda_oflex"
    if selective:
        return lambda u, delta, a, b, c, d, bias: selective(u, delta, a, b, c, d, None, bias, True), "mamba_ssm's scan"
    return None, None


def orders(torch, found):
    """An image (B, C, H, W) in four orders (B, 4, C, L), the sum of four (B, 4, C, H, W) by pixel, and their name."""
    kernels = found.get("vmamba.cross_scan (Triton)")
    if hasattr(kernels, "cross_scan_fn"):
        return kernels.cross_scan_fn, kernels.cross_merge_fn, "its Triton orders"
    if hasattr(kernels, "CrossScanTriton"):
        return kernels.CrossScanTriton.apply, kernels.CrossMergeTriton.apply, "its Triton orders"

    def scan(image):
        rows, columns = image.flatten(2), image.transpose(2, 3).flatten(2)
        return torch.stack([rows, columns, rows.flip(2), columns.flip(2)], 1)

    def merge(four):
        batch, _, channels, height, width = four.shape
        two = four.flatten(3)
        two = two[:, :2] + two[:, 2:].flip(3)
        columns = two[:, 1].view(batch, channels, width, height).transpose(2, 3)
        return two[:, 0] + columns.flatten(2)

    return scan, merge, "PyTorch's orders"


def cross(clock, found, layer, dtype_name):
    name, batch, tokens, directions, width, states = layer
    torch = clock.torch
    selective, extension = vmamba(torch, found)
    scan, merge, kind = orders(torch, found)
    label = f"{name} B{batch} L{tokens}"
    if selective is None:
        return say(peer="vmamba.cross_scan", skipped=label, dtype=dtype_name, why="neither its extension nor mamba_ssm's is here")
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype_name]
    wide, side = directions * width, int(tokens**0.5)

    def rand(*shape, of=dtype):
        return torch.randn(*shape, device="cuda", dtype=of)

    a, d = -torch.rand(wide, states, device="cuda") * 15 - 1, rand(wide, of=torch.float32)
    bias = rand(wide, of=torch.float32) - 3

    def forward(image, delta, b, c):
        out = selective(scan(image).reshape(batch, wide, tokens), delta, a, b, c, d, bias)
        return merge(out.view(batch, directions, width, side, side))

    def inputs():
        coefficients = [(batch, directions, states, tokens)] * 2
        return [rand(*shape) for shape in [(batch, width, side, side), (batch, wide, tokens), *coefficients]]

    return clock.measure(f"vmamba.cross_scan ({extension}, {kind})", label, dtype_name, forward, inputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--sources", type=pathlib.Path, default=SOURCES)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--build", nargs="?", const="", choices=["", *EXTENSIONS], help="the extensions, or one of them")
    args = parser.parse_args()
    if args.build is not None:
        return build(args.sources.resolve(), args.build or None)
    began = time.monotonic()
    try:
        import torch
    except Exception as error:
        return say(peer="all", skipped="all", why=reason(error))
    found = find(args.sources)
    if not torch.cuda.is_available():
        return say(peer="all", skipped="all", why=f"torch {torch.__version__} finds no GPU")
    say(torch=torch.__version__, device=torch.cuda.get_device_name(), peers=sorted(found))
    if args.list:
        return None
    clock = Clock(torch, args.seconds - (time.monotonic() - began))
    for dtype in ("bf16", "f32"):
        for layer in LAYERS:
            # Triton's first call, which tries configurations, comes behind the first peers that need none.
            if layer[0].startswith("vmamba"):
                cross(clock, found, layer, dtype)
            elif dtype == "bf16" or layer[1] * layer[2] <= 64 * 197:
                scans(clock, found, layer, dtype)
        if dtype == "bf16" and "mamba_ssm.mamba_chunk_scan_combined" in found:
            for layer in SSD:
                ssd(clock, found["mamba_ssm.mamba_chunk_scan_combined"], layer)
    return None


if __name__ == "__main__":
    sys.exit(main())
