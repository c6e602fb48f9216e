#!/usr/bin/env python3
"""Makes step-cache.safetensors: passes of the tiny U-Nets of ../models that reuse the deep features of another one (DeepCache).

Versions: those of ../models/requirements.txt.
"""

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from walk import walk

HERE = Path(__file__).resolve().parent
# Model, latents' sides, branches. A branch may end in the middle of a block, before or behind a change of size.
CASES = [("sd1", (8, 8), [0, 1, 2, 3, 4, 8]), ("odd", (9, 7), [0, 1, 3, 5]), ("edit8", (4, 6), [0, 2])]
TIMESTEPS = (501.0, 481.0)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    tensors, cases = {}, []
    for number, (name, sides, branches) in enumerate(CASES):
        unet = UNet2DConditionModel.from_pretrained(HERE.parent / "models" / name / "unet", torch_dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(50 + number)
        text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator)
        samples = [torch.randn(2, unet.config.in_channels, *sides, generator=generator) for _ in TIMESTEPS]
        for branch in branches:
            _, deep = walk(unet, samples[0], TIMESTEPS[0], text, branch)
            whole, _ = walk(unet, samples[1], TIMESTEPS[1], text, branch)
            expected = unet(samples[1], TIMESTEPS[1], text).sample
            assert (whole - expected).abs().max() < 1e-5, f"{name}: a whole pass is not diffusers' own"
            output, _ = walk(unet, samples[1], TIMESTEPS[1], text, branch, deep)
            assert (output - expected).abs().max() > 1e-3, f"{name} {branch}: nothing was reused"
            case = f"{name}-{branch}"
            tensors |= {f"{case}.deep": deep, f"{case}.output": output}
            cases.append(dict(name=case, model=name, branch=branch, timesteps=TIMESTEPS))
        for case in (f"{name}-{branch}" for branch in branches):
            tensors |= {f"{case}.text": text, f"{case}.first": samples[0], f"{case}.second": samples[1]}
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, HERE / "step-cache.safetensors", metadata={"cases": json.dumps(cases)})


if __name__ == "__main__":
    main()
