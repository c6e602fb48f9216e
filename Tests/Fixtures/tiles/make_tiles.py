"""Makes tiles.safetensors beside it: what diffusers' tiled encoding and decoding make of a tiny autoencoder.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0
    python make_tiles.py
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

HERE = Path(__file__).parent

torch.manual_seed(7)
model = AutoencoderKL.from_pretrained(HERE.parent / "models/sd1/vae").eval()
model.enable_tiling()
# 32 pixels a tile, 8 latents: the sides are no multiples of the step of 6, and the last tiles are narrower than a seam.
latents = torch.randn(1, 4, 19, 22)
wide = torch.randn(1, 4, 6, 13)
image = torch.rand(1, 3, 52, 84) * 2 - 1
with torch.no_grad():
    moments = model.encode(image).latent_dist
    tensors = dict(
        latents=latents, decoded=model.decode(latents).sample, wide=wide, decoded_wide=model.decode(wide).sample, image=image,
        mean=moments.mean, logvar=moments.logvar)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "tiles.safetensors")
