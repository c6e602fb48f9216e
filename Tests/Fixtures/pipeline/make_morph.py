"""Makes morph.json: what NumPy and PyTorch make of a walk between the noise of two seeds.

The formula is Shoemake's ("Animating rotation with quaternion curves", 1985), with the threshold of diffusers' community pipeline interpolate_stable_diffusion.
Pinned: torch 2.13 (CPU), NumPy 2. Run it in this folder: python make_morph.py
"""

import json

import numpy as np
import torch

torch.set_num_threads(1)


def between(start, end, t):
    start, end = start.astype(np.float64), end.astype(np.float64)
    cosine = (start * end).sum() / np.sqrt((start**2).sum() * (end**2).sum())
    if abs(cosine) > 0.9995:
        return (1 - t) * start + t * end
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)


def noise(seed, draws):
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(1, 4, 5, 5, generator=generator).numpy() for _ in range(draws)]


cases = {"walks": [], "vectors": []}
for first, second, t in [(1, 2, 0.25), (1, 2, 0.5), (7, 123456789, 0.9), (3, 4, 1e-3)]:
    # The noise of the start, and that of a first step.
    drawn = [between(a, b, t).transpose(0, 2, 3, 1).ravel() for a, b in zip(noise(first, 2), noise(second, 2))]
    cases["walks"].append({"first": first, "second": second, "position": t, "noise": [[float(np.float32(x)) for x in d] for d in drawn]})
rng = np.random.default_rng(3)
for kind in ("ordinary", "almost the same", "opposite"):
    a = rng.standard_normal(6).astype(np.float32)
    b = rng.standard_normal(6).astype(np.float32) if kind == "ordinary" else (a if kind == "almost the same" else -a) + np.float32(1e-3)
    for t in (0.0, 0.3, 1.0):
        cases["vectors"].append({"kind": kind, "first": a.tolist(), "second": b.tolist(), "position": t, "result": between(a, b, t).tolist()})
with open("morph.json", "w") as file:
    json.dump(cases, file)
