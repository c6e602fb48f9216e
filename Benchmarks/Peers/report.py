"""Turns results into the tables of Docs/Performance.md: sections between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

import re
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version

import plot
from engines import TITLES
from rows import GROUPS, MEMORY, SPEED, START_SECONDS


def sections(results, plotted="Images/growth.svg"):
    """Those sections of which there are results, by name."""
    made = {"rows": speed(results), "memory": memory(results), "growth": growth(results.get("growth"), plotted)}
    return {name: text for name, text in made.items() if text}


def write(results, page):
    text = page.read_text()
    # Beside Performance.md growth.svg, beside PerformanceAMX.md growthAMX.svg.
    plotted = f"Images/growth{page.stem.removeprefix('Performance')}.svg"
    for name, section in sections(results, plotted).items():
        if name == "growth" and "cells" in results["growth"]:
            picture = page.parent / plotted
            picture.parent.mkdir(exist_ok=True)
            picture.write_text(plot.svg(results["growth"]["cells"]))
        marked = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"{page} has no section between <!-- begin {name} --> and <!-- end {name} -->: add the two lines.")
        text = marked.sub(lambda found: f"{found[1]}{section}\n{found[2]}", text)
    page.write_text(text)


def speed(results):
    """Two tables, of seconds and of the processes' peak memory."""
    found = {name: results[name] for name in SPEED if name in results}
    if not found:
        return ""
    lines = ["| work | ours, s | fastest peer, s | ours ÷ peer | figure to reach | | other peers, s |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    peaks = ["| peak memory of the process, GB | ours | at most | | peers |", "| --- | --- | --- | --- | --- |"]
    for name, result in found.items():
        title = titled(name, result)
        if "failed" in result:
            lines.append(f"| {title} | | | | | no figure: {result['failed']} | |")
            continue
        engines = result["engines"]
        for target, peer, ratio in checks(name, result):
            others = [f"{called(engines, other)} {spread(engines[other])}" for other in target.peers if other in engines and other != peer]
            others += result["notes"]
            figure = "– | " if target.most is None else f"≤ {target.most:.2f} | {verdict(ratio, target.most)}"
            lines.append(f"| {title} | {spread(engines['ours'])} | {called(engines, peer)} {spread(engines[peer])} | {ratio:.3f}"
                         f" | {figure} | {'; '.join(others)} |")
        peers = "; ".join(f"{called(engines, peer)} {gigabytes(engines[peer])}" for peer in engines if peer != "ours")
        most = SPEED[name].gigabytes
        figure = " | " if most is None else f"{most} | {verdict(engines['ours']['peak_bytes'] <= most * 1e9)}"
        peaks.append(f"| {title} | {gigabytes(engines['ours'])} | {figure} | {peers} |")
    about = ("Seconds are medians of all counted passes, with the least and the most and the number of processes (rounds)."
             " A peer with fewer rounds was too far from the fastest in the first one to be run again.")
    return "\n".join([*lines, "", about, "", *(peaks if len(peaks) > 2 else []), "", *circumstances(found)]).replace("\n\n\n", "\n\n")


def titled(name, result):
    row = SPEED[name]
    title = row.title.replace("512×512", f"{result['side']}×{result['side']}") if result.get("side") else row.title
    return f"{title}, against stable-diffusion.cpp" if name.startswith("sdcpp") else title


def checks(name, result):
    """For each target that a peer was found for: it, the fastest of its peers, and the ratio."""
    engines = result["engines"]
    for target in SPEED[name].targets:
        peers = [peer for peer in target.peers if peer in engines]
        if peers:
            peer = min(peers, key=lambda peer: engines[peer]["median"])
            yield target, peer, engines["ours"]["median"] / engines[peer]["median"]


def missed(results, names):
    """The rows that are over their figure or have none."""
    return [name for name in names if name != "growth" and not (name in results and met(name, results[name]))]


def met(name, result):
    if "failed" in result:
        return False
    if name in SPEED:
        found, most = list(checks(name, result)), SPEED[name].gigabytes
        reached = all(target.most is None or ratio <= target.most for target, _, ratio in found)
        return (len(found) == len(SPEED[name].targets) and reached
                and (most is None or result["engines"]["ours"]["peak_bytes"] <= most * 1e9))
    if name == "start":
        return statistics.median(result["seconds"]) <= START_SECONDS
    row = MEMORY[name]
    return result["peak_bytes"] <= row.gigabytes * 1e9 and result.get("slowdown", 0) <= (row.slowdown or 0)


def memory(results):
    found = {name: results[name] for name in GROUPS["memory"] if name in results}
    if not found:
        return ""
    lines = ["| whole `ldm txt2img` | peak resident, GB | at most | | seconds, with loading | steps |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name, result in found.items():
        row = MEMORY.get(name)
        if "failed" in result:
            lines.append(f"| {row.title if row else 'start'} | | | no figure: {result['failed']} | | |")
        elif row:
            peak = result["peak_bytes"] / 1e9
            title = row.title.replace(f"{row.side}×{row.side}", f"{result['side']}×{result['side']}")
            slower = f", {result['slowdown']:.2f} × the default's (at most {row.slowdown})" if row.slowdown else ""
            lines.append(f"| {title} | {peak:.2f} | {row.gigabytes} | {verdict(met(name, result))}"
                         f" | {statistics.median(result['seconds']):.1f}{slower} | {result['steps']} |")
    if "seconds" in found.get("start", {}):
        seconds = statistics.median(found["start"]["seconds"])
        lines += ["", f"From the start of the process to the end of loading: {seconds:.2f} s, at most {START_SECONDS:.0f} s:"
                  f" {verdict(seconds, START_SECONDS)}."]
    return "\n".join([*lines, "", *circumstances(found)])


def growth(result, plotted):
    if not result:
        return ""
    if "failed" in result:
        return f"No figures: {result['failed']}."
    cells = result["cells"]
    names = [name for name in TITLES if any(name in cell for cell in cells)]
    heads = " | ".join(f"{TITLES[name]}, s | GB" for name in names)
    lines = [f"| picture | batch | 10⁹ operations | {heads} | ours, 10⁹ operations/s |", "| --- " * (4 + 2 * len(names)) + "|"]
    for cell in cells:
        figures = [f"{cell[name]['seconds']:.2f} | {gigabytes(cell[name])}" if "seconds" in cell[name] else "– | –" for name in names]
        rate = f"{cell['gflop'] / cell['ours']['seconds']:.0f}" if "seconds" in cell["ours"] else "–"
        lines.append(f"| {cell['side']}² | {cell['batch']} | {cell['gflop']:.0f} | {' | '.join(figures)} | {rate} |")
    about = ("Operations are those of the direct methods, as PyTorch counts them; fewer are done where Winograd's are."
             " Each figure is one pass after one that is not counted; a dash is a pass that was left out because it would take too long.")
    engines = {name: cell[name] for cell in cells for name in names if "seconds" in cell[name]}
    return "\n".join([*lines, "", about, "", f"![Seconds and peak memory by side and batch]({plotted})", "",
                      *circumstances({"growth": {**result, "engines": engines}})])


def circumstances(found):
    """Where, when and with what; once for all rows that share it."""
    kinds = {}
    for name, result in found.items():
        kinds.setdefault((result["machine"], result["threads"], result["model"], result["commit"], result["date"]), []).append(name)
    engines = [engine for result in found.values() for engine in result.get("engines", {}).values()]
    versions = dict.fromkeys(engine["engine"] for engine in engines if engine["engine"])
    lines = []
    for (machine, threads, model, commit, date), names in kinds.items():
        which = "" if len(kinds) == 1 else f"{', '.join(names)}: "
        lines.append(f"{which}{machine}; {threads} threads; {model}; {date}, commit {commit}.")
    if versions:
        lines[-1] += f" Peers: {', '.join([*versions, *libraries()])}."
    return ["  \n".join(lines)]


def libraries():
    for name in ("diffusers", "transformers", "peft"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            pass


def verdict(ratio, most=None):
    return "met" if (ratio if most is None else ratio <= most) else "**misses**"


def called(engines, name):
    how = engines[name].get("how")
    return f"{TITLES[name]} {how}" if how else TITLES[name]


def spread(engine):
    """The median, how far the passes were apart, and the number of rounds."""
    seconds = engine["seconds"]
    places = 3 if engine["median"] < 1 else 2
    return f"{engine['median']:.{places}f} ({min(seconds):.{places}f}–{max(seconds):.{places}f}; {engine['rounds']})"


def gigabytes(engine):
    return f"{engine['peak_bytes'] / 1e9:.2f}"
