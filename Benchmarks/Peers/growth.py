"""How seconds and memory of a U-Net pass grow with the picture's side and the batch."""

import json
import subprocess
import sys

from engines import HERE, Failed, summary, why
from rows import FLOAT, Row

SIDES = [256, 512, 768, 1024]
BATCHES = [1, 2, 4, 8]


def add_arguments(parser):
    parser.add_argument("--sides", default=",".join(map(str, SIDES)), help="of the growth table")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="of the growth table")
    parser.add_argument("--most-seconds", type=float, default=60,
                        help="of a pass of the growth table; longer ones are left out, as the smaller ones let expect")
    parser.add_argument("--growth-peers", default=",".join(FLOAT), help="of the growth table")


def measured(given, engines, known):
    """A cell for each side and batch: {"side", "batch", "gflop", engine: {"seconds", "peak_bytes"} or why not}: one counted pass of each.

    Figures of `known` cells, an earlier run's, stay where this run has none.
    """
    cells = []
    kept = {(cell["side"], cell["batch"]): cell for cell in known}
    names = ["ours", *filter(None, given.growth_peers.split(","))]
    arithmetic = counted(given)
    for side in map(int, given.sides.split(",")):
        for batch in map(int, given.batches.split(",")):
            cell = {"side": side, "batch": batch, "gflop": arithmetic(side) * batch}
            for name in names:
                cell[name] = figure(name, cell, cells, given, engines)
            said = ", ".join(f"{name} {cell[name]['seconds']:.2f} s" for name in names if "seconds" in cell[name])
            print(f"growth {side}², batch {batch}: {said or 'left out'}", file=sys.stderr, flush=True)
            cells.append(cell)
            before = kept.get((side, batch), {})
            kept[side, batch] = {**before, **{name: value for name, value in cell.items() if name not in before or told(value)}}
    return {"cells": [kept[place] for place in sorted(kept)]}


def told(value):
    return not isinstance(value, dict) or "seconds" in value


def figure(name, cell, cells, given, engines):
    last = [other for other in cells if "seconds" in other.get(name, {})][-1:]
    # Seconds follow the arithmetic, near enough to know what would take too long.
    if last and last[0][name]["seconds"] * cell["gflop"] / last[0]["gflop"] > given.most_seconds:
        return {"left_out": "would take too long"}
    # One title for all, so that the faster of PyTorch's layouts is looked for once.
    row = Row("growth", "predictor", cell["batch"], cell["side"], ())
    try:
        told = summary([engines.run(name, row)])
    except Failed as failure:
        print(f"growth, {name}: {failure}", file=sys.stderr, flush=True)
        return {"left_out": str(failure)}
    return {"seconds": told["median"], "peak_bytes": told["peak_bytes"], "engine": told["engine"], "how": told["how"]}


def counted(given):
    """Multiplications and additions of a pass for one picture of a side, in 10⁹."""
    command = [sys.executable, "-B", HERE / "operations.py", given.model, *given.sides.split(",")]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"the arithmetic could not be counted: {why(done.returncode, done.stderr)}")
    counts = json.loads(done.stdout.splitlines()[-1])
    return lambda side: counts[str(side)] / 1e9
