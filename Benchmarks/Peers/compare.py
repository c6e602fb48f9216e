#!/usr/bin/env python3
"""Runs this library and other engines on the same work in turn, and writes down the figures.

    compare.py --tool ../../Examples/.build/release/ldm [--model FOLDER] [--rows unet-2,memory] [--rounds 5] [--threads 2]
               [--results FILE.json] [--page FILE.md]

A round is one process of each engine, with a warm-up before what counts; the order turns from round to round. Rows whose peers do the
same work are measured together. The first round finds the faster of PyTorch's memory layouts and which peers are near the fastest: those
go on, so that the fastest is the one of the medians. The results of each row are kept in a file as soon as they are there, in place of
older ones of the same row; the page shows the whole file.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import growth
import memory
import report
from engines import HERE, TITLES, Engines, Failed, made, summary
from rows import GROUPS, MEMORY, NAMES, SPEED

USUAL = ",".join(GROUPS)
# A peer that took this much longer than the fastest one in the first round is not run again.
NEAR = 1.25


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True, help="the built ldm")
    parser.add_argument("--model", type=Path,
                        help="a folder as diffusers saves it, in place of the random one of Stable Diffusion 1.5's size, which is made where it is missing")
    parser.add_argument("--rows", default=USUAL, help=f"of {', '.join([*GROUPS, *NAMES])}; {USUAL} if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", type=int, help="pictures of this side instead of the row's own, to try things")
    parser.add_argument("--results", type=Path, default=HERE / "results.json", help="where the figures are kept")
    parser.add_argument("--page", type=Path, help="a Markdown file whose marked sections show the results")
    parser.add_argument("--render", action="store_true", help="measure nothing, only write the page")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a row misses its figure or has none")
    growth.add_arguments(parser)
    memory.add_arguments(parser)
    given = parser.parse_args()
    given.rows = [name for word in given.rows.split(",") for name in GROUPS.get(word, [word])]
    unknown = [name for name in given.rows if name not in NAMES]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join([*GROUPS, *NAMES])}")
    if given.rounds < 1:
        parser.error("at least one round is needed")
    if not os.access(given.tool, os.X_OK):
        parser.error(f"{given.tool} cannot be run: build it with `swift build -c release --package-path Examples`")
    return given


def compared(names, given, engines):
    """All rounds of rows whose peers do the same work: a peer's process answers for each of these rows."""
    rows = {name: SPEED[name] for name in names}
    targets = [target for row in rows.values() for target in row.targets]
    peers = list(dict.fromkeys(peer for target in targets for peer in target.peers))
    # Ours come last at first: without a peer there is nothing to compare.
    runs = {**{peer: [] for peer in peers}, **{name: [] for name in names}}
    notes = {}
    for number in range(given.rounds):
        near = set(names).union(*(nearest(runs, target.peers) for target in targets)) if number else set(runs)
        order = [engine for engine in runs if engine in near]
        for engine in order if number % 2 == 0 else reversed(order):
            if engine in rows and not any(runs.values()):
                raise Failed("; ".join(notes.values()))
            try:
                runs[engine].append(engines.run("ours" if engine in rows else engine, rows.get(engine, rows[names[0]]), number))
            except Failed as failure:
                if number or engine in rows:
                    raise
                notes[engine] = f"no {TITLES[engine]} ({failure})"
        said = ", ".join(f"{TITLES.get(engine, engine)} {summary(runs[engine][-1:])['median']:.3f} s" for engine in order if runs[engine])
        print(f"{number + 1}/{given.rounds}: {said}", file=sys.stderr, flush=True)
        runs = {engine: answers for engine, answers in runs.items() if answers}
    return {name: told(name, row, {engine: summary(answers) for engine, answers in runs.items()}, notes, engines) for name, row in rows.items()}


def told(name, row, results, notes, engines):
    """One row's part of what was measured together."""
    own_notes = [notes[peer] for peer in row.peers if peer in notes]
    own = {peer: results[peer] for peer in row.peers if peer in results}
    if not own:
        return {"failed": "; ".join(own_notes)}
    return {"side": engines.side(row), "model": engines.model(row).name, "engines": {**own, "ours": results[name]}, "notes": own_notes}


def nearest(runs, peers):
    """Those of the peers that may be the fastest."""
    medians = {peer: summary(runs[peer])["median"] for peer in peers if runs.get(peer)}
    return {peer for peer, median in medians.items() if median <= NEAR * min(medians.values())}


def measured(names, given, engines, results):
    """What rows that are measured together bring, by name; `results` are those of earlier runs."""
    try:
        if names[0] in SPEED:
            return compared(names, given, engines)
        known = results.get("growth", {}).get("cells", [])
        special = {"growth": lambda: growth.measured(given, engines, known), "start": lambda: memory.start(given)}
        return {name: special[name]() if name in special else memory.measured(MEMORY[name], given) for name in names}
    except Failed as failure:
        print(f"{', '.join(names)}: {failure}", file=sys.stderr, flush=True)
        return {name: {"failed": str(failure)} for name in names}


def together(names):
    """The names in groups that are measured together: those whose peers do the same work."""
    groups = {}
    for name in names:
        groups.setdefault(SPEED[name].peers_work if name in SPEED else name, []).append(name)
    return groups.values()


def circumstances(given):
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"machine": f"{cpu}, {os.cpu_count()} processors, {gigabytes:.0f} GB, {platform.system()} {platform.release()}",
            "threads": given.threads, "model": given.model.name, "commit": commit(), "date": str(datetime.date.today())}


def commit():
    """What was measured: the commit, and whether the sources are others. The page and the figures are no source."""

    def git(*words):
        command = ["git", "-C", HERE.parents[1], *words]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "Package.swift", "Sources", "Examples", "Benchmarks", ":!Benchmarks/Peers/results*.json")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def main():
    given = arguments()
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    if not given.render:
        given.model = given.model or made("sd15")
    engines = Engines(given)
    for names in [] if given.render else together(given.rows):
        results.update({name: {**circumstances(given), **result} for name, result in measured(names, given, engines, results).items()})
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n")
        if given.page:
            report.write(results, given.page)
    if given.render and given.page:
        report.write(results, given.page)
    print("\n\n".join(report.sections({name: results[name] for name in given.rows if name in results}).values()))
    if given.strict and (missed := report.missed(results, given.rows)):
        sys.exit(f"Without their figure: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
