#!/usr/bin/env python3
"""Makes the edges that OpenCV finds in the pictures of ../models/inputs and in a smooth random one.

    pip install opencv-python-headless==5.0.0 pillow numpy
    python make_edges.py
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
INPUTS = HERE.parent / "models" / "inputs"
THRESHOLDS = [(100, 200), (30.7, 60.2), (150, 50)]


def main():
    smooth = cv2.GaussianBlur(np.random.RandomState(0).rand(60, 70, 3), (0, 0), 2)
    smooth = ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)
    Image.fromarray(smooth).save(HERE / "smooth.png")
    for path in [INPUTS / "picture.png", INPUTS / "picture-37x50.png", HERE / "smooth.png"]:
        picture = np.array(Image.open(path).convert("RGB"))
        for low, high in THRESHOLDS:
            Image.fromarray(cv2.Canny(picture, low, high)).save(HERE / f"edges-{path.stem}-{low}-{high}.png")


if __name__ == "__main__":
    main()
