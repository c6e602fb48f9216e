"""Draws how seconds and memory grow, as an SVG that is readable on light and on dark pages."""

import math
from html import escape

from engines import TITLES

WIDTH, HEIGHT, LEFT, TOP, GAP_X, GAP_Y = 330, 200, 60, 50, 80, 80
COLOURS = {"ours": "#2f7ed8", "pytorch": "#e0662f", "openvino": "#8a56c2"}
# In the middle between a light and a dark page.
GREY = "#777"


def svg(cells):
    """Four panels: seconds and gigabytes, by side and by batch. Both axes are logarithmic."""
    batch = best(cells, "batch", "side", 2)
    side = best(cells, "side", "batch", 512)
    panels = []
    for row, (measure, unit, scale) in enumerate([("seconds", "seconds", 1), ("peak_bytes", "peak GB", 1e-9)]):
        for column, (along, fixed, value, title) in enumerate([("side", "batch", batch, f"{unit} by side, batch {batch}"),
                                                               ("batch", "side", side, f"{unit} by batch, {side}²")]):
            lines = {name: [(cell[along], cell[name][measure] * scale) for cell in cells
                            if cell[fixed] == value and measure in cell.get(name, {})] for name in COLOURS}
            panels.append(panel({name: line for name, line in lines.items() if line}, title, LEFT + column * (WIDTH + GAP_X),
                                TOP + row * (HEIGHT + GAP_Y)))
    names = [name for name in COLOURS if any("seconds" in cell.get(name, {}) for cell in cells)]
    legend = "".join(f'<circle cx="{LEFT + 6 + 130 * index}" cy="14" r="4" fill="{COLOURS[name]}"/>'
                     f'<text x="{LEFT + 16 + 130 * index}" y="18">{escape(TITLES[name])}</text>' for index, name in enumerate(names))
    width, height = LEFT + 2 * WIDTH + GAP_X + 20, TOP + 2 * HEIGHT + GAP_Y + 30
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' font-family="sans-serif" font-size="12" fill="{GREY}">\n{legend}\n' + "\n".join(panels) + "\n</svg>\n")


def best(cells, fixed, along, wanted):
    """The wanted value where it was measured, else the one with most points."""
    values = {cell[fixed] for cell in cells}
    return wanted if wanted in values else max(values, key=lambda value: len({cell[along] for cell in cells if cell[fixed] == value}))


def panel(lines, title, left, top):
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    xs = sorted({x for x, _ in points})
    ticks = nice(min(y for _, y in points), max(y for _, y in points))

    def at(value, low, high, start, length):
        return start + (length * math.log(value / low) / math.log(high / low) if high > low else length / 2)

    def place(x, y):
        return at(x, xs[0], xs[-1], left, WIDTH), at(y, ticks[0], ticks[-1], top + HEIGHT, -HEIGHT)

    drawn = [f'<text font-weight="bold" x="{left}" y="{top - 10}">{title}</text>',
             f'<path d="M{left} {top}V{top + HEIGHT}H{left + WIDTH}" fill="none" stroke="{GREY}"/>']
    for tick in ticks:
        _, y = place(xs[0], tick)
        drawn.append(f'<path d="M{left} {y:.1f}H{left + WIDTH}" stroke="{GREY}" stroke-opacity="0.3"/>'
                     f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for x in xs:
        drawn.append(f'<text x="{place(x, ticks[0])[0]:.1f}" y="{top + HEIGHT + 18}" text-anchor="middle">{x}</text>')
    for name, line in lines.items():
        placed = [place(x, y) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[name]}"/>' for x, y in placed]
    return "\n".join(drawn)


def nice(low, high):
    """Ticks 1, 2, 5, 10 … around all values."""
    steps = [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    return steps[first:max(last, first + 1) + 1]
