#!/usr/bin/env python3
"""Makes step-cache.safetensors: passes of the tiny U-Nets of ../models that reuse the deep features of another one (DeepCache), and
step-cache-controls.safetensors: the same with a ControlNet of ../controls.

Versions: those of ../models/requirements.txt.
"""

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file

from walk import walk

HERE = Path(__file__).resolve().parent
# Model, latents' sides, branches. A branch may end in the middle of a block, before or behind a change of size.
CASES = [("sd1", (8, 8), [0, 1, 2, 3, 4, 8]), ("odd", (9, 7), [0, 1, 3, 5]), ("edit8", (4, 6), [0, 2])]
TIMESTEPS = (501.0, 481.0)


def write(name, tensors, cases):
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, HERE / name, metadata={"cases": json.dumps(cases)})


@torch.no_grad()
def controlled():
    """Both passes are steered: the second by what the ControlNet says of it, as far as there are layers for it."""
    unet = UNet2DConditionModel.from_pretrained(HERE.parent / "models/sd1/unet", torch_dtype=torch.float32).eval()
    net = ControlNetModel.from_pretrained(HERE.parent / "controls/sd1", torch_dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(60)
    text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator)
    picture = torch.rand(2, 3, 32, 32, generator=generator)
    samples = [torch.randn(2, 4, 8, 8, generator=generator) for _ in TIMESTEPS]
    said = [net(sample, time, text, picture, 0.7, return_dict=False) for sample, time in zip(samples, TIMESTEPS)]
    tensors, cases = {}, []
    for branch in [0, 2, 3, 8]:
        _, deep = walk(unet, samples[0], TIMESTEPS[0], text, branch, controls=said[0])
        whole, _ = walk(unet, samples[1], TIMESTEPS[1], text, branch, controls=said[1])
        expected = unet(samples[1], TIMESTEPS[1], text, down_block_additional_residuals=said[1][0],
                        mid_block_additional_residual=said[1][1]).sample
        assert (whole - expected).abs().max() < 1e-5, f"{branch}: a whole pass is not diffusers' own"
        output, _ = walk(unet, samples[1], TIMESTEPS[1], text, branch, deep, controls=said[1])
        unsteered, _ = walk(unet, samples[1], TIMESTEPS[1], text, branch, deep)
        assert (output - expected).abs().max() > 1e-3, f"{branch}: nothing was reused"
        assert (output - unsteered).abs().max() > 1e-3, f"{branch}: nothing was steered"
        case = f"sd1-{branch}"
        tensors |= {f"{case}.deep": deep, f"{case}.output": output, f"{case}.text": text, f"{case}.picture": picture,
                    f"{case}.first": samples[0], f"{case}.second": samples[1]}
        cases.append(dict(name=case, model="sd1", branch=branch, timesteps=TIMESTEPS, network="sd1", weight=0.7))
    write("step-cache-controls.safetensors", tensors, cases)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    controlled()
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
    write("step-cache.safetensors", tensors, cases)


if __name__ == "__main__":
    main()
