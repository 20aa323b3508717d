#!/usr/bin/env python3
"""Runs `ophidian bench op` and PyTorch's selective scans and SSD in one go and prints ratios.

usage: benches/beside_torch.py PEERS [--ophidian target/release/ophidian] [--threads 2] [--runs 11] [--only NAME]

PEERS is a folder with `scan_torch.py` and `ssd_torch.py`, which print a JSON line with `name` and `median_s` per
measurement and take B D L N and a form (pscan, chunked), and B L H P N and a chunk size; PyTorch and mambapy must be
importable by the python that runs this. `ssd_torch.py` also times a loop over the steps, which is left out of account.

PyTorch has no scan of K directions: it is given B K sequences instead, which is the same number of state updates
without the flipped or transposed copies and the sum that a real K-direction model needs. Ours pays for everything.
"""
import argparse
import json
import os
import subprocess
import sys

# name, our op, shape and pattern, PyTorch's script and sizes, its forms
SCAN, SSD = ("selective-scan", "scan_torch.py"), ("ssd", "ssd_torch.py")
CASES = [
    ("mamba-130m", SCAN, "B1,D1536,L512,N16", "row", [1, 1536, 512, 16], ["pscan", "chunked"]),
    ("mamba-130m, long", SCAN, "B1,D1536,L4096,N16", "row", [1, 1536, 4096, 16], ["chunked"]),
    ("vim", SCAN, "B64,D384,L197,N16", "bidirectional", [128, 384, 197, 16], ["chunked"]),
    ("vmamba", SCAN, "B8,D192,L56x56,N16", "cross", [32, 192, 3136, 16], ["chunked"]),
    ("mamba2-130m", SSD, "B1,D1536,P64,L512,N128", "row", [1, 512, 24, 64, 128], ["64", "128", "256"]),
    ("mamba2-130m, long", SSD, "B1,D1536,P64,L8192,N128", "row", [1, 8192, 24, 64, 128], ["64", "128", "256"]),
]


def rows(command, **environment):
    out = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers")
    parser.add_argument("--ophidian", default="target/release/ophidian")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--runs", default="11")
    parser.add_argument("--only")
    args = parser.parse_args()
    threads = dict(OMP_NUM_THREADS=args.threads, BENCH_THREADS=args.threads, PYTHONDONTWRITEBYTECODE="1")
    print("| case | pass | PyTorch form | PyTorch s | Ophidian s | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for name, (op, script), shape, pattern, sizes, forms in CASES:
        if args.only and args.only != name:
            continue
        ours = rows(
            [args.ophidian, "bench", "op", op, "--shape", shape, "--pattern", pattern]
            + ["--threads", args.threads, "--runs", args.runs],
            OMP_NUM_THREADS=args.threads,
        )
        script = os.path.join(args.peers, script)
        theirs = [
            row
            for form in forms
            for row in rows([sys.executable, script, *map(str, sizes), form], BENCH_REPS="5", BENCH_WARMUP="1", **threads)
        ]
        for mine in ours:
            step = mine["name"].split("/")[0]
            alike = (row for row in theirs if row["name"].startswith(step + "/"))
            best = min(alike, key=lambda row: row["median_s"])
            form, ratio = best["name"].split("torch_")[1], best["median_s"] / mine["median_s"]
            label = f"{name}: {mine['shape']} {pattern}"
            print(f"| {label} | {step} | {form} | {best['median_s']:.4f} | {mine['median_s']:.4f} | {ratio:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
