#!/usr/bin/env python3
"""Writes how PyTorch rounds to 16 bits, and blocks of 8 bits made with NumPy.

    pip install torch==2.13.0 numpy==2.4.6 safetensors==0.8.0   # the versions that made the committed files
    python make_forms.py
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

HERE = Path(__file__).resolve().parent


def rounding():
    """float32 of every kind, and what they become."""
    generator = np.random.default_rng(11)
    # Any bits below the formats' ends: numbers of all sizes, most of them not representable.
    bits = generator.integers(0, 2**32, 3000, dtype=np.uint64).astype(np.uint32)
    # Near float16's range, below its normal numbers, and halfway between neighbours.
    sizes = 2.0 ** generator.uniform(-27, 16, 2000) * generator.choice([-1, 1], 2000)
    halves = generator.integers(0, 0x7BFF, 500).astype(np.uint16)
    ties = (halves.view(np.float16).astype(np.float64) + (halves + 1).view(np.float16).astype(np.float64)) / 2
    coarse = generator.integers(0, 0x7F7F, 500).astype(np.uint32)
    coarse_ties = (coarse << 16 | 0x8000).view(np.float32)
    named = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 65519.996, 65520.0, -65520.0, 2**-24, 2**-25, 2**-25 * 1.0001, 3 * 2**-25, 2**-14, 2**-14 - 2**-25,
             2**-126, 2**-149, 3.3895314e38, 3.3961775e38, 3.4028235e38]
    values = np.concatenate([bits.view(np.float32), sizes.astype(np.float32), ties.astype(np.float32), -ties.astype(np.float32),
                             coarse_ties, -coarse_ties, np.array(named, dtype=np.float32)])
    exact = torch.from_numpy(values)
    save_torch({"exact": exact, "f16": exact.half(), "bf16": exact.bfloat16()}, HERE / "rounding.safetensors")


def blocks(weight):
    """[O, I] or [O, C, kh, kw] → scales [O, blocks], steps [O, blocks, 32]; a kernel's row is [kh, kw, C]."""
    order = weight if weight.ndim == 2 else weight.transpose(0, 2, 3, 1)
    rows = order.reshape(len(weight), -1, 32)
    scales = (np.abs(rows).max(-1) / np.float32(127)).astype(np.float16)
    wide = scales.astype(np.float32)[..., None]
    steps = np.where(wide > 0, np.clip(np.rint(rows / np.where(wide > 0, wide, 1)), -127, 127), 0).astype(np.int8)
    return scales, steps


def stored(weight):
    """The tensor NAME.q8_0."""
    scales, steps = blocks(weight)
    packed = np.concatenate([scales[..., None].view(np.uint8), steps.view(np.uint8)], -1)
    return packed.reshape(len(weight), *weight.shape[2:], weight.shape[1] // 32, 34)


def decoded(q):
    """What a reader does with NAME.q8_0; the page on forms has the same lines."""
    block = q.view(np.dtype([("d", "<f2"), ("q", "i1", 32)]))[..., 0]
    values = block["d"].astype(np.float32)[..., None] * block["q"]
    values = values.reshape(*q.shape[:-2], -1)
    return values if values.ndim == 2 else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def quantised():
    generator = np.random.default_rng(5)
    special = generator.normal(size=(6, 64)).astype(np.float32)
    special[0] = 0  # no scale at all
    special[1] *= 1e-5  # a scale below half precision's normal numbers
    special[2] *= 1e-9  # a scale that rounds to nothing
    special[3] = np.linspace(-127, 127, 64)  # q is the value, or halfway
    special[4] *= 1e6  # large scales
    special[5, :32] = -5  # all the same
    tensors = {
        "matrix": generator.normal(size=(5, 96)).astype(np.float32),
        "special": special,
        "kernel": generator.normal(size=(3, 64, 3, 3)).astype(np.float32),
        "window": generator.normal(size=(2, 32, 1, 2)).astype(np.float32),
        "point": generator.normal(size=(7, 32, 1, 1)).astype(np.float32),
    }
    file = {}
    for name, weight in tensors.items():
        q = stored(weight)
        file[f"exact.{name}"] = weight
        file[f"decoded.{name}"] = decoded(q)
        file[f"{name}.q8_0"] = q
    # Values that the form cannot hold are not among them; a tensor that is not quantised is.
    file["plain"] = generator.normal(size=7).astype(np.float16)
    save_file(file, HERE / "quantised.safetensors", {"format": "pt"})


if __name__ == "__main__":
    rounding()
    quantised()
