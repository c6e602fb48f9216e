#!/usr/bin/env python3
"""Writes small safetensors files with the reference implementation, to be read by ours.

    pip install torch==2.13.0 safetensors==0.8.0   # the versions that made the committed files
    python make_safetensors.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent


def main():
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(3, 5, generator=generator)
    tensors = {
        "f32": values,
        "f16": values.half(),
        "bf16": values.bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "position_ids": torch.arange(7)[None],
        "flags": torch.tensor([True, False, True]),
        'a "name" \\ with\tünïcode 🙂': torch.tensor([1.0, 2.0]),
    }
    save_file(tensors, HERE / "mixed.safetensors", {"format": "pt", "note": 'line\nbreak, "quotes" and 🙂'})
    expected = {name: value.float().flatten().tolist() for name, value in tensors.items() if value.is_floating_point()}
    (HERE / "mixed.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
