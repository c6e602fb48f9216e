"""Makes training-data.json: what PyTorch, Pillow and diffusers make of the order of pictures and of the parts that are trained with.

Pinned: PyTorch 2.13, Pillow 13.0.0, diffusers 0.42. Run it in this folder: python make_training_data.py
"""

import base64
import json

import diffusers
import numpy as np
import PIL
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

rng = np.random.default_rng(3)
versions = {"torch": torch.__version__, "pillow": PIL.__version__, "diffusers": diffusers.__version__}
result = {"versions": versions, "permutations": [], "frames": []}

for seed, count in [(0, 1), (0, 2), (5, 10), (1234, 100), (2**40 + 7, 1000)]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    result["permutations"].append({"seed": seed, "order": order})


def frame(pixels, target, flipped):
    """Covers the target by Pillow's filter, takes the middle, and mirrors it, with the rounding of torchvision's Resize and CenterCrop."""
    image = Image.fromarray(pixels)
    w, h = image.size
    tw, th = target
    # The side whose factor is the larger one decides; the other is int(target * long / short).
    size = (int(th * w / h), th) if w * th >= tw * h else (tw, int(tw * h / w))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = int(round((size[0] - tw) / 2)), int(round((size[1] - th) / 2))
    image = image.crop((left, top, left + tw, top + th))
    if flipped:
        image = ImageOps.mirror(image)
    tensor = VaeImageProcessor(do_resize=False).preprocess(image)
    values = np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy(), dtype="<f4")
    return {
        "width": w, "height": h, "pixels": base64.b64encode(pixels.tobytes()).decode(), "target": list(target), "resized": list(size),
        "left": left, "top": top, "isFlipped": flipped, "values": base64.b64encode(values.tobytes()).decode(),
    }


for (w, h), target in [((20, 20), (16, 16)), ((37, 24), (16, 16)), ((24, 39), (16, 16)), ((7, 5), (16, 8)), ((50, 13), (24, 8)), ((8, 30), (8, 24))]:
    pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    for flipped in (False, True):
        result["frames"].append(frame(pixels, target, flipped))

with open("training-data.json", "w") as out:
    json.dump(result, out, indent=0)
