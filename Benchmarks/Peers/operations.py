#!/usr/bin/env python3
"""Counts the multiplications and additions of a U-Net pass for one picture: `operations.py MODEL SIDE …` prints {side: count}.

As PyTorch counts them, for the direct methods, by a model without numbers.
"""

import json
import sys

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode


def main(model, sides):
    counts = {}
    with torch.device("meta"), torch.no_grad():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model, subfolder="unet"))
        states = torch.randn(1, 77, unet.config.cross_attention_dim)
        for side in sides:
            latents = torch.randn(1, unet.config.in_channels, int(side) // 8, int(side) // 8)
            with FlopCounterMode(display=False) as counter:
                unet(latents, torch.tensor(501), states)
            counts[side] = counter.get_total_flops()
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
