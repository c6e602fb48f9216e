#!/usr/bin/env python3
"""Runs this library and PyTorch on the same work in turn, and prints both figures, their ratio, and both peak memories.

    compare.py --tool ../../Examples/.build/release/ldm --model FOLDER [--rows unet-2,vae-decode] [--rounds 5] [--threads 2]

A round is one process of each, with a warm-up before what counts; the order changes from round to round. Of PyTorch's
two memory layouts the first round finds the faster, which is then used. The figure is the median over the rounds.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PYTORCH = HERE / "pytorch_pass.py"


class Row(NamedTuple):
    part: str
    batch: int
    side: int
    # Counted passes of a process: more for those that are over at once.
    repeats: int = 1
    # The embedded model, for PyTorch; ldm has its own.
    model: Path | None = None


# Guidance makes a batch of two of every picture in the U-Net.
ROWS = {
    "unet-2": Row("unet", 2, 512),
    "unet-1": Row("unet", 1, 512),
    "unet-2-768": Row("unet", 2, 768),
    "vae-decode": Row("vae-decode", 1, 512),
    "vae-encode": Row("vae-encode", 1, 512),
    "text": Row("text", 1, 512, repeats=5),
    "picture": Row("picture", 1, 512),
    "emoji": Row("picture", 1, 64, repeats=3, model=HERE.parents[1] / "Sources/EmojiModel/Resources/emoji"),
}
USUAL = "unet-2,unet-1,vae-decode,vae-encode,text,emoji"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True, help="the built ldm")
    parser.add_argument("--model", type=Path, required=True, help="a folder as diffusers saves it")
    parser.add_argument("--rows", default=USUAL, help=f"of {', '.join(ROWS)}; {USUAL} if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", type=int, help="pictures of this side instead of the row's own")
    parser.add_argument("--at-most", type=float, help="exit with 1 where the ratio of seconds is larger, or memory larger than PyTorch's")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    given = parser.parse_args()
    unknown = [row for row in given.rows.split(",") if row not in ROWS]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if given.rounds < 1:
        parser.error("at least one round is needed")
    if not os.access(given.tool, os.X_OK):
        parser.error(f"{given.tool} cannot be run: build it with `swift build -c release --package-path Examples`")
    return given


def answer(command):
    """The JSON line that a command ends with."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr.strip()}")
    try:
        line = json.loads(done.stdout.strip().splitlines()[-1])
        return {**line, "seconds": [float(s) for s in line["seconds"]], "peak_bytes": int(line["peak_bytes"])}
    except (IndexError, ValueError, KeyError, TypeError):
        sys.exit(f"{' '.join(map(str, command))} did not end with a line of seconds and peak_bytes, but said:\n{done.stdout[-500:]}")


def compared(name, given):
    """All rounds of one row."""
    row = ROWS[name]
    side = row.side if row.model else given.side or row.side
    work = ["--pass", row.part, "--batch", row.batch, "--width", side, "--height", side, "--repeats", row.repeats,
            "--threads", given.threads, "--json"]
    layout = ["--layout", "better"]

    def ours():
        model = [] if row.model else ["--model", given.model]
        return answer([given.tool, "bench", *model, *work])

    def peers():
        return answer([sys.executable, PYTORCH, row.model or given.model, *work, *layout])

    runs = {ours: [], peers: []}
    for number in range(given.rounds):
        for engine in (ours, peers) if number % 2 == 0 else (peers, ours):
            runs[engine].append(engine())
        layout = ["--layout", runs[peers][0]["layout"]]
        a, b = (statistics.median(runs[engine][-1]["seconds"]) for engine in (ours, peers))
        print(f"{name} {number + 1}/{given.rounds}: {a:.3f} s, PyTorch {b:.3f} s", file=sys.stderr, flush=True)
    return {"row": name, "pass": row.part, "batch": row.batch, "side": side, "layout": runs[peers][0]["layout"],
            "ours": summary(runs[ours]), "pytorch": summary(runs[peers])}


def summary(runs):
    return {"seconds": [s for run in runs for s in run["seconds"]], "peak_bytes": max(run["peak_bytes"] for run in runs)}


def table(results):
    lines = ["| work | ours, s | PyTorch, s | ours ÷ PyTorch | ours, peak GB | PyTorch, peak GB | PyTorch's layout |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for result in results:
        a, b = result["ours"], result["pytorch"]
        seconds = [statistics.median(engine["seconds"]) for engine in (a, b)]
        result["ratio"] = seconds[0] / seconds[1]
        work = result["pass"] if result["pass"] == "text" else f"{result['pass']} {result['side']}×{result['side']}"
        work = f"emoji {work}" if result["row"] == "emoji" else work
        lines.append(f"| {work}, batch {result['batch']} | {spread(a)} | {spread(b)} | {result['ratio']:.2f}"
                     f" | {a['peak_bytes'] / 1e9:.2f} | {b['peak_bytes'] / 1e9:.2f} | {result['layout']} |")
    return "\n".join(lines)


def spread(engine):
    """The median, and how far the rounds were apart."""
    seconds = engine["seconds"]
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


def machine(given):
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return (f"{cpu}, {given.threads} threads, PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}),"
            f" {given.rounds} rounds in turn, {given.model.name}, {datetime.date.today()}")


def main():
    given = arguments()
    results = [compared(row, given) for row in given.rows.split(",")]
    text = f"{table(results)}\n\n{machine(given)}\n"
    print(text, end="")
    if given.markdown:
        given.markdown.write_text(text)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(given), "rows": results}, indent=1) + "\n")
    if given.at_most is not None:
        missed = [r["row"] for r in results if r["ratio"] > given.at_most or r["ours"]["peak_bytes"] > r["pytorch"]["peak_bytes"]]
        if missed:
            sys.exit(f"Over the limit of {given.at_most} × PyTorch's time, or over PyTorch's memory: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
