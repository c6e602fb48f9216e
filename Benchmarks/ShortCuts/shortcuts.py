#!/usr/bin/env python3
"""What short cuts of `ldm` bring and cost, with the embedded model: seconds, and how far pictures are from the full ones.

    shortcuts.py --tool ../../Examples/.build/release/ldm [--plot shortcuts.svg] [--steps 20] [--rounds 3]

A difference is that of a picture from the same seed's full picture, in dB (PSNR), in the mean and at worst of eight pictures. Seconds are those of
`ldm bench --pass picture`: the least of all rounds, which take turns, as a part of those without short cuts. NumPy and safetensors are needed.
"""

import argparse
import json
import subprocess
import tempfile
from html import escape
from pathlib import Path

import numpy
from safetensors.numpy import load_file

PROMPTS = ["a red apple", "a green apple", "grinning face", "a smiling cat", "sunflower", "a blue car", "house with garden", "a yellow star"]
VARIANTS = [
    [],
    *(["--step-cache", str(n)] for n in (2, 3, 5)),
    *(["--step-cache", str(n), "--step-cache-order", "1"] for n in (2, 3)),
    *(["--forecast", str(n)] for n in (2, 3, 4)),
    *(["--forecast", str(n), "--step-cache", str(m)] for n in (2, 3) for m in (2, 3)),
    *(["--guidance-interval", f"0,{part}"] for part in (0.5, 0.8)),
    ["--merge-tokens", "0.25"],
]
# `ldm bench` times the model's own guidance.
UNTIMED = ("--guidance-interval",)
WIDTH, HEIGHT, LEFT, TOP, GREY, BLUE = 560, 300, 50, 20, "#777", "#2f7ed8"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True, help="the built ldm")
    parser.add_argument("--plot", type=Path, help="an SVG to write")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def pictures(given, options):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.safetensors"
        for seed, prompt in enumerate(PROMPTS):
            run(given.tool, "txt2img", "--prompt", prompt, "--seed", seed, "--steps", given.steps, "--output", Path(folder) / "picture.png",
                "--save-image-tensor", file, *options)
            yield load_file(file)["image"]


def decibels(picture, whole):
    error = float(numpy.mean((picture.astype(numpy.float64) - whole) ** 2))
    return float("inf") if error == 0 else -10 * numpy.log10(error)


def seconds(given, options):
    told = run(given.tool, "bench", "--pass", "picture", "--steps", given.steps, "--repeats", 3, "--json", *options)
    return min(json.loads(told.splitlines()[-1])["seconds"])


def measured(given):
    whole = list(pictures(given, []))
    timed = [options for options in VARIANTS if not set(options) & set(UNTIMED)]
    times = {tuple(options): [] for options in timed}
    for _ in range(given.rounds):
        for options in timed:
            times[tuple(options)].append(seconds(given, options))
    full = min(times[()])
    for options in VARIANTS[1:]:
        found = [decibels(picture, own) for picture, own in zip(pictures(given, options), whole)]
        time = min(times[tuple(options)]) / full if tuple(options) in times else None
        yield " ".join(options), time, float(numpy.mean(found)), min(found)


def front(rows):
    """Those that no other one beats in both."""
    timed = [row for row in rows if row[1] is not None]
    return {row[0] for row in timed if not any(other[1] <= row[1] and other[2] > row[2] for other in timed)}


def svg(rows):
    rows = [row for row in rows if row[1] is not None]
    low, high = min(row[2] for row in rows) - 2, max(row[2] for row in rows) + 2
    best = front(rows)
    drawn = [f'<path d="M{LEFT} {TOP}V{TOP + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="{GREY}"/>',
             f'<text x="{LEFT + WIDTH}" y="{TOP + HEIGHT + 34}" text-anchor="end">part of the full picture\'s seconds</text>',
             f'<text x="{LEFT + 6}" y="{TOP + 10}">dB from the full picture</text>']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        drawn.append(f'<text x="{LEFT + WIDTH * tick:.0f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in range(int(low // 10 + 1) * 10, int(high) + 1, 10):
        y = TOP + HEIGHT * (high - tick) / (high - low)
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="{GREY}" stroke-opacity="0.3"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for name, time, mean, _ in rows:
        x, y = LEFT + WIDTH * min(time, 1), TOP + HEIGHT * (high - mean) / (high - low)
        weight, colour = ("bold", BLUE) if name in best else ("normal", GREY)
        side, anchor = (-8, "end") if x > LEFT + WIDTH * 0.7 else (8, "start")
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
                     f'<text x="{x + side:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(name.replace("--", ""))}</text>')
    width, height = LEFT + WIDTH + 30, TOP + HEIGHT + 44
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' font-family="sans-serif" font-size="12" fill="{GREY}">\n' + "\n".join(drawn) + "\n</svg>\n")


def main():
    given = arguments()
    rows = list(measured(given))
    best = front(rows)
    print("| | part of the seconds | PSNR in dB, mean (worst) |\n| --- | --- | --- |")
    for name, time, mean, worst in rows:
        shown = f"**`{name}`**" if name in best else f"`{name}`"
        print(f"| {shown} | {'' if time is None else f'{time:.2f}'} | {mean:.1f} ({worst:.1f}) |")
    if given.plot:
        given.plot.write_text(svg(rows))


if __name__ == "__main__":
    main()
