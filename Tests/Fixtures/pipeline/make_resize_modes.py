"""What diffusers' VaeImageProcessor makes of pictures of other proportions, by its three ways of resizing. Writes resize-modes.safetensors, whose tensors
are pictures [1, H, W, 3], 0…1, named `mode WIDTHxHEIGHT`.

    pip install diffusers==0.42.1 torch==2.13.0 && python make_resize_modes.py
"""
import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors.torch import save_file

rng = np.random.default_rng(7)
picture = Image.fromarray(rng.integers(0, 256, (14, 22, 3), dtype=np.uint8)).resize((30, 20), Image.Resampling.BILINEAR)
processor = VaeImageProcessor(resample="lanczos")


def tensor(image):
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)[None]


tensors = {"picture": tensor(picture)}
for width, height in ((16, 16), (40, 16), (12, 24), (15, 10), (24, 8)):
    for mode in ("default", "crop", "fill"):
        tensors[f"{mode} {width}x{height}"] = tensor(processor.resize(picture, height, width, resize_mode=mode))
save_file(tensors, "resize-modes.safetensors")
