#!/usr/bin/env python3
"""DeiT-T (arXiv 2012.12877) in PyTorch, with drawn weights: time and memory of a forward, one JSON line per attention.

usage: benches/gpu/deit.py [--side 1248] [--batch 1] [--dtype f32|bf16] [--device cuda] [--runs 7]

12 blocks of 192 channels and 3 heads on patches of 16 pixels and a class token. `plain` attention makes the matrix of all
pairs of tokens, as DeiT's own code and the Vim paper do; `sdpa` is PyTorch's scaled_dot_product_attention.
"""
import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, DEPTH, HEADS, PATCH = 192, 12, 3, 16


class Block(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attend(self, x):
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.plain:
            y = (q * (WIDTH // HEADS) ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, WIDTH))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Deit(nn.Module):
    def __init__(self, side, plain):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, (side // PATCH) ** 2 + 1, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*[Block(plain) for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, 1000)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1248)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    gpu = args.device.startswith("cuda")
    failed = False
    for attention in ("plain", "sdpa"):
        try:
            torch.manual_seed(0)
            model = Deit(args.side, attention == "plain").to(args.device).eval()
            images = torch.rand(args.batch, 3, args.side, args.side, device=args.device)

            def forward():
                with torch.no_grad(), torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.dtype == "bf16"):
                    assert model(images).shape == (args.batch, 1000)
                if gpu:
                    torch.cuda.synchronize()

            for _ in range(2):
                forward()
            peak = None
            if gpu:
                torch.cuda.reset_peak_memory_stats()
                forward()
                peak = torch.cuda.max_memory_allocated()
            times = []
            for _ in range(args.runs):
                begin = time.perf_counter()
                forward()
                times.append(time.perf_counter() - begin)
            times.sort()
            line = {"median_s": times[len(times) // 2], "min_s": times[0], "peak_bytes": peak}
        except torch.OutOfMemoryError as error:
            failed, line = True, {"skipped": "all", "why": str(error).splitlines()[0][:200]}
            print(f"out of memory: {line['why']}", file=sys.stderr)
        model = images = None
        if gpu:
            torch.cuda.empty_cache()
        told = {"inference": "deit_tiny", "attention": attention, "side": args.side, "batch": args.batch, "dtype": args.dtype}
        print(json.dumps({**told, **line}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
