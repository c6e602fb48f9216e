"""Input pictures and masks, drawn by formula."""

import numpy as np
from PIL import Image


def picture(width, height, seed):
    """A colour gradient, a disc and grain."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    colours = np.stack([x / width, y / height, 0.5 + 0.5 * np.sin(x / 3 + y / 5)], -1)
    disc = (x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.25 * min(width, height)) ** 2
    colours[disc] = [0.9, 0.75, 0.1]
    colours += np.random.RandomState(seed).normal(0, 0.04, colours.shape)
    return Image.fromarray((colours.clip(0, 1) * 255).round().astype(np.uint8))


def mask(width, height):
    """White where to repaint: a rectangle that fits no latent grid, a soft edge on either side of one half, lone pixels."""
    values = np.zeros((height, width), np.uint8)
    values[height // 4 + 1 : height - 3, width // 3 : width - 6] = 255
    values[height // 4 : height // 4 + 1, :] = np.linspace(0, 255, width).astype(np.uint8)
    values[0:8, 0:4] = 127  # just below one half: kept
    values[0:8, 4:8] = 128  # just above it: repainted
    values[height - 4, 0::8] = 255
    return Image.fromarray(values, "L")
