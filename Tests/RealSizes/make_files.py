#!/usr/bin/env python3
"""Makes files of the published models' shapes in half precision with random weights: `make_files.py FOLDER`, which needs NumPy alone.

Loading, memory and time do not depend on the weights' values, so no trained ones are needed. Each layer keeps the size of what goes through it, so that
nothing overflows. About 14 GB: sdxl, ssd-1b and sd15 (original names) and controlnet-sd15 (diffusers' names). What is there already is left alone.
"""

import functools
import json
import math
import re
import struct
import sys
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "Fixtures"
BLOCK = 1 << 22
# Transformer blocks that SSD-1B keeps at each place of SDXL's U-Net. Source: Gupta et al. 2024 (arXiv:2401.02677) and its published configuration.
SSD_BLOCKS = {"input_blocks.4": 2, "input_blocks.5": 2, "input_blocks.7": 4, "input_blocks.8": 4, "output_blocks.0": 4, "output_blocks.1": 4,
              "output_blocks.2": 10, "output_blocks.3": 2, "output_blocks.4": 1, "output_blocks.5": 1}


@functools.cache
def numbers(deviation):
    """Normal numbers of a deviation, as bytes; the same ones again and again serve all layers."""
    return (np.random.default_rng(0).standard_normal(BLOCK, np.float32) * deviation).astype(np.float16).tobytes()


def write(path, shapes):
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            left = 2 * math.prod(shape)
            if len(shape) < 2:
                # Gains are 1, and biases 0.
                file.write((np.ones if name.endswith("weight") else np.zeros)(shape, np.float16).tobytes())
                continue
            block = numbers(1 / math.sqrt(math.prod(shape[1:])))
            while left > 0:
                file.write(block[:left])
                left -= len(block)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


def ssd(shapes):
    """SDXL's shapes without what SSD-1B leaves out."""
    kept = {}
    for name, shape in shapes.items():
        if "diffusion_model.middle_block.1." in name or "diffusion_model.middle_block.2." in name:
            continue
        found = re.search(r"((?:in|out)put_blocks\.\d+)\.1\.transformer_blocks\.(\d+)\.", name)
        if not found or int(found[2]) < SSD_BLOCKS[found[1]]:
            kept[name] = shape
    return kept


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    sd15, sdxl = (json.loads((FIXTURES / f"weights/{name}-shapes.json").read_text())["checkpoint"] for name in ("sd15", "sdxl"))
    # The autoencoders have the same shapes.
    sdxl |= {name: shape for name, shape in sd15.items() if name.startswith("first_stage_model.")}
    control = json.loads((FIXTURES / "controls/shapes.json").read_text())["sd15"]["tensors"]
    for name, shapes in {"sdxl": sdxl, "ssd-1b": ssd(sdxl), "sd15": sd15, "controlnet-sd15": control}.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write(path, shapes)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
