"""Makes the animations beside this file and clips.json, which says what Pillow shows of them.

Of PNGs with soft edges it says what the specification's formulas give: Pillow 13 lays them over transparent pixels as if those were black, and forgets what was
there before a frame that is laid over it.

Pinned: Pillow 13.0.0 (libwebp 1.6), NumPy 2. Run it in this folder: python make_clips.py
"""

import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image, ImageSequence

rng = np.random.default_rng(11)
W, H = 16, 12
cases = []


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def idat(samples):
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples), 9)


def shown(name, tolerance=0):
    """Adds a case: what Pillow shows, frame after frame, as RGBA, and for how many milliseconds."""
    with Image.open(name) as file:
        frames, delays = [], []
        for frame in ImageSequence.Iterator(file):
            frames.append(np.asarray(frame.convert("RGBA")))
            delays.append(frame.info.get("duration", 0))
    cases.append({
        "file": name, "width": frames[0].shape[1], "height": frames[0].shape[0], "milliseconds": delays, "tolerance": tolerance,
        "frames": base64.b64encode(np.stack(frames).astype(np.uint8).tobytes()).decode(),
    })


def specified(name, frames):
    """Adds a case: frames of RGBA drawn by the third edition of W3C's Portable Network Graphics, "over" by its section 13.16."""
    canvas, results = np.zeros((H, W, 4)), []
    for index, (samples, x, y, _, _, disposal, blend) in enumerate(frames):
        height, width = samples.shape[:2]
        area = (slice(y, y + height), slice(x, x + width))
        before, new, old = canvas.copy(), samples.astype(np.float64), canvas[area]
        front, back = new[..., 3:] / 255, old[..., 3:] / 255
        alpha = front + (1 - front) * back
        over = (new[..., :3] * front + old[..., :3] * (1 - front) * back) / np.maximum(alpha, 1e-9)
        canvas[area] = np.concatenate([over, alpha * 255], -1).round() if blend else new
        results.append(canvas.copy())
        if disposal == 2 and index > 0:
            canvas = before
        elif disposal > 0:
            canvas[area] = 0
    cases.append({
        "file": name, "width": W, "height": H, "milliseconds": [1000 * f[3] / f[4] for f in frames], "tolerance": 1,
        "frames": base64.b64encode(np.stack(results).astype(np.uint8).tobytes()).decode(),
    })


def picture(seed, width=W, height=H, alpha=True):
    """Colours on a ramp with noise, and an ellipse of alpha with soft edges."""
    own = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40 * seed % 256)], -1) + own.integers(-9, 10, (height, width, 3))
    distance = ((x - width / 2) / width) ** 2 + ((y - height / 2) / height) ** 2
    opacity = np.clip((0.22 - distance) * 2400, 0, 255)
    return np.concatenate([colours.clip(0, 255), opacity[..., None]], -1).astype(np.uint8)[..., : 4 if alpha else 3]


def animated_png(name, frames, colour=6, extra=b"", hidden=None):
    """Frames are (samples, x, y, numerator, denominator, disposal, blend)."""
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, colour, 0, 0, 0))
    data += chunk(b"acTL", struct.pack(">II", len(frames), 0)) + extra
    sequence = 0
    if hidden is not None:
        data += chunk(b"IDAT", idat(hidden))
    for index, (samples, x, y, numerator, denominator, disposal, blend) in enumerate(frames):
        height, width = samples.shape[:2]
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, width, height, x, y, numerator, denominator, disposal, blend))
        sequence += 1
        pixels = idat(samples)
        if index == 0 and hidden is None:
            data += chunk(b"IDAT", pixels[:20]) + chunk(b"IDAT", pixels[20:])
            continue
        # Two parts, as encoders with small buffers write them.
        for part in (pixels[:30], pixels[30:]):
            data += chunk(b"fdAT", struct.pack(">I", sequence) + part)
            sequence += 1
    with open(name, "wb") as file:
        file.write(data + chunk(b"IEND", b""))
    return data


# All disposals with both ways of blending, on parts of the canvas.
parts = [(picture(1), 0, 0, 1, 12, 0, 0)]
for disposal in (0, 1, 2):
    for blend in (0, 1):
        x, y = 2 * disposal + 1, 3 * blend + 1
        parts.append((picture(2 + disposal * 2 + blend, 9, 7), x, y, 40 + disposal, 1000, disposal, blend))
parts.append((picture(9, 5, 5), 3, 3, 1, 10, 0, 1))
animated_png("disposals.png", parts)
specified("disposals.png", parts)
opaque = [(picture(20 + i, alpha=False), 0, 0, 1, 25, 0, 0) for i in range(3)]
animated_png("hidden.png", opaque, colour=2, hidden=picture(30, alpha=False))
cases.append({
    "file": "hidden.png", "width": W, "height": H, "milliseconds": [40] * 3, "tolerance": 0,
    "frames": base64.b64encode(np.stack([np.dstack([f[0], np.full((H, W), 255, np.uint8)]) for f in opaque]).tobytes()).decode(),
})
palette = rng.integers(0, 256, (8, 3), dtype=np.uint8)
indexed = [(rng.integers(0, 8, (H, W), dtype=np.uint8), 0, 0, 1, 5, 0, 0) for _ in range(2)]
indexed.append((rng.integers(0, 8, (4, 6), dtype=np.uint8), 5, 4, 1, 5, 0, 1))
animated_png("palette.png", indexed, colour=3, extra=chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", b"\xff\0\xff\xff"))
shown("palette.png")
previous = [(picture(40), 0, 0, 1, 10, 2, 0), (picture(41, 8, 8), 4, 2, 1, 10, 0, 1)]
animated_png("previous-first.png", previous)
specified("previous-first.png", previous)

# WebP by Pillow: libwebp's encoder cuts frames to what changes, and blends. Lossless and lossy, opaque and not.
for alpha in (False, True):
    still = picture(50, 40, 30, alpha)
    moving = []
    for index in range(5):
        samples = still.copy()
        samples[4 + 3 * index : 12 + 3 * index, 5 + 4 * index : 14 + 4 * index] = picture(60 + index, 9, 8, alpha)
        if alpha:
            samples[:, : 3 * index, 3] = 0
        moving.append(Image.fromarray(samples, "RGBA" if alpha else "RGB"))
    for lossless in (True, False):
        name = f"{'alpha' if alpha else 'opaque'}-{'lossless' if lossless else 'lossy'}.webp"
        moving[0].save(name, save_all=True, append_images=moving[1:], duration=[80, 90, 100, 110, 500], loop=0, lossless=lossless, exact=True)
        shown(name)

# GIF by Pillow, with palettes of their own, transparency, every disposal, and interlaced rows (which Pillow writes by itself).
for disposal in (0, 1, 2, 3):
    frames = []
    for index in range(4):
        samples = picture(70 + 4 * disposal + index)
        samples[..., 3] = np.where(samples[..., 3] > 100, 255, 0)
        frames.append(Image.fromarray(samples, "RGBA"))
    name = f"disposal{disposal}.gif"
    frames[0].save(name, save_all=True, append_images=frames[1:], duration=[50, 60, 70, 0], loop=0, disposal=disposal, interlace=disposal % 2)
    shown(name)
walk = [Image.fromarray(picture(90 + i, alpha=False), "RGB").quantize(40) for i in range(3)]
walk[0].save("local.gif", save_all=True, append_images=walk[1:], duration=120, loop=0, comment="how it was made")
shown("local.gif")

# Generation parameters as stable-diffusion-webui keeps them in WebP: EXIF's UserComment, here with its lowest bytes first.
comment = b"UNICODE\0" + "ein Baum 🌳\nSteps: 3".encode("utf-16-le")
directory = lambda tag, kind, count, value: struct.pack("<HHHIII", 1, tag, kind, count, value, 0)
exif = b"II*\0" + struct.pack("<I", 8) + directory(0x8769, 4, 1, 26) + directory(0x9286, 7, len(comment), 44) + comment
moving[0].save("comment.webp", save_all=True, append_images=moving[1:3], duration=40, lossless=True, exact=True, exif=exif)
shown("comment.webp")

with open("clips.json", "w") as file:
    json.dump(cases, file, indent=1)
