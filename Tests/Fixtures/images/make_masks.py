"""Makes masks.json: what OpenCV and Pillow make of masks, by the steps that stable-diffusion-webui takes with them.

    pip install pillow==13.0.0 numpy
    python make_masks.py

OpenCV's blur is by the formula of its sources (8 bits, fixed point). Where opencv-python-headless is installed, it is compared with OpenCV itself.
"""

import base64
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

try:
    import cv2
except ImportError:
    cv2 = None

HERE = Path(__file__).resolve().parent


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).decode()


def gaussian(mask, size, deviation):
    """OpenCV's GaussianBlur of 8 bits along one axis: weights of 256ths, each with what rounding took from the one before; mirrored ends."""
    count = max(size)
    reach, axis = count // 2, 1 if size[0] > 1 else 0
    bell = np.exp(-0.5 * np.arange(reach, 0, -1) ** 2 / deviation**2)
    left, carried = [], 0.0
    for exact in bell / (2 * bell.sum() + 1) * 256:
        left.append(int(np.rint(exact + carried)))
        carried += exact - left[-1]
    weights = left + [256 - 2 * sum(left)] + left[::-1]
    ends = [(0, 0), (0, 0)]
    ends[axis] = (reach, reach)
    longer, length = np.pad(mask.astype(np.int64), ends, mode="reflect"), mask.shape[axis]
    parts = [weight * np.take(longer, np.arange(index, index + length), axis) for index, weight in enumerate(weights)]
    result = ((sum(parts) + 128) >> 8).astype(np.uint8)
    assert cv2 is None or np.array_equal(result, cv2.GaussianBlur(mask, size, deviation)), (size, deviation)
    return result


def blurred(mask, x, y):
    """Along rows, then along columns, each with a window of 2 ⌊2.5 σ + ½⌋ + 1 pixels."""
    for deviation, window in [(x, lambda size: (size, 1)), (y, lambda size: (1, size))]:
        if deviation > 0:
            mask = gaussian(mask, window(2 * int(2.5 * deviation + 0.5) + 1), deviation)
    return mask


def hidden(picture, mask):
    """The picture where a mask is dark, with colours times opacity."""
    result = Image.new("RGBa", picture.size)
    result.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    return result


def filled(picture, mask):
    result, visible = Image.new("RGBA", picture.size), hidden(picture, mask)
    for radius, count in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        layer = visible.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(count):
            result.alpha_composite(layer)
    return result.convert("RGB")


def laid(picture, other, mask):
    result = other.convert("RGBA")
    result.alpha_composite(hidden(picture, mask).convert("RGBA"))
    return result.convert("RGB")


def main():
    random = np.random.default_rng(11)
    width, height = 37, 22
    mask = np.zeros((height, width), np.uint8)
    mask[4:15, 9:30], mask[18:, :3], mask[7, 20] = 255, 255, 0
    smooth = random.integers(0, 256, (height, width), dtype=np.uint8)
    blurs = [
        {"mask": b64(source), "x": x, "y": y, "values": b64(blurred(source, x, y))}
        for source in (mask, smooth)
        for x, y in [(4, 4), (1, 0), (0, 9), (0.1, 2.5), (20, 64)]
    ]
    picture, other = [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(2)]
    painted = []
    for values in (mask, blurred(mask, 2, 2), smooth, np.full_like(mask, 255)):
        grey = Image.fromarray(values)
        squares = np.around(np.array(grey.convert("RGB").resize((width // 8, height // 8)), np.float32)[..., 0] / 255) * 255
        painted.append({"mask": b64(values), "filled": b64(filled(picture, grey)), "laid": b64(laid(picture, other, grey)), "squares": b64(squares)})
    content = {"width": width, "height": height, "blurs": blurs, "picture": b64(picture), "other": b64(other), "painted": painted}
    (HERE / "masks.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
