#!/usr/bin/env python3
"""Writes what the webui's and ComfyUI's loops make of prompts on the tiny Stable Diffusion 1 of ../models: the last latents, computed anew with diffusers'
U-Net and schedulers.

    python make_pictures.py WEBUI COMFYUI      # as for make_conditionings.py; diffusers is needed, too

The loop is that of modules/sd_samplers_cfg_denoiser.py: which text a step has, passes of their own for texts of other lengths, uncond + Σ w (cond - uncond)
· scale. The webui's noise is that of modules/rng_philox.py; ComfyUI's start is a CPU's, and its steps are a GPU's.
pictures.json is a list of requests; pictures.safetensors has `NUMBER`, [1, 4, 8, 8], for each.
Pinned: torch 2.13 (CPU), diffusers 0.42, NumPy 2.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from make_conditionings import MODELS, Tower, comfy_chunks, comfy_states, webui_chunks, webui_states
from make_prompts import comfyui, webui

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
LONG = "a photo of the cat, a dog and a (red:1.4) house by the sea, in the sun with snow and rain on it, old trees, birds"
CASES = [
    dict(profile="webui", prompt="a (red:1.4) cat", negative="[bird]", scheduler="euler"),
    dict(profile="webui", prompt="a cat BREAK (a dog:0.7)", negative="a bird", scheduler="euler"),
    dict(profile="webui", prompt="[a cat:a dog:0.5] in the sun AND snow :0.6 AND (a tree) :-0.3", negative="[rain|sea]", scheduler="euler"),
    dict(profile="webui", prompt=LONG + " AND a [red|old] house", negative="", scheduler="euler-a"),
    dict(profile="comfy", prompt=LONG, negative="(rain:0.6)", scheduler="euler"),
    dict(profile="comfy", prompt="a (cat:1.3) by the sea", negative=LONG, scheduler="euler-a"),
]
STEPS, SCALE, SEED = 6, 5.0, 20


class Philox:
    """torch.randn on a GPU that runs any number of threads."""

    def __init__(self, seed):
        self.seed, self.offset = seed, 0

    def randn(self, shape):
        n = int(np.prod(shape))
        counter = [np.full(n, self.offset, np.uint32), np.zeros(n, np.uint32), np.arange(n, dtype=np.uint32), np.zeros(n, np.uint32)]
        key = [np.uint32(self.seed & 0xFFFFFFFF), np.uint32(self.seed >> 32)]
        self.offset += 1
        with np.errstate(over="ignore"):
            for _ in range(10):
                a = counter[0].astype(np.uint64) * np.uint64(0xD2511F53)
                b = counter[2].astype(np.uint64) * np.uint64(0xCD9E8D57)
                high, low = np.uint64(32), np.uint64(0xFFFFFFFF)
                counter = [(b >> high).astype(np.uint32) ^ counter[1] ^ key[0], (b & low).astype(np.uint32),
                           (a >> high).astype(np.uint32) ^ counter[3] ^ key[1], (a & low).astype(np.uint32)]
                key = [key[0] + np.uint32(0x9E3779B9), key[1] + np.uint32(0xBB67AE85)]
        scale = np.float32(2.0**-32)
        u = counter[0] * scale + scale / 2
        turn = np.float32(2.0**-32 * 2 * np.pi)
        v = counter[1] * turn + turn / 2
        return torch.from_numpy((np.sqrt(-2 * np.log(u)) * np.sin(v)).astype(np.float32)).reshape(shape)


class CPU:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, shape):
        return torch.randn(shape, generator=self.generator)


def main():
    parser, comfy = webui(sys.argv[1]), comfyui(sys.argv[2])
    tower = Tower(MODELS / "sd1", 0, False)
    unet = UNet2DConditionModel.from_pretrained(MODELS / "sd1/unet").eval()
    config = json.loads((MODELS / "sd1/scheduler/scheduler_config.json").read_text())

    def texts(text):
        """Of the webui: the last step of each, and its states; all texts of a prompt are one batch."""
        schedule = parser.get_learned_conditioning_prompt_schedules([text], STEPS)[0]
        chunks = [webui_chunks(tower, parser.parse_prompt_attention(said)) for _, said in schedule]
        states, _ = webui_states(tower, chunks, 0)
        return [(end, states[index:index + 1]) for index, (end, _) in enumerate(schedule)]

    def comfy_text(text):
        parts = [(comfy["unescape_important"](part), weight) for part, weight in comfy["token_weights"](comfy["escape_important"](text), 1.0)]
        return [(STEPS, comfy_states(tower, [comfy_chunks(tower, parts)], 0)[0])]

    def at(said, step):
        for end, states in said:
            if step <= end:
                return states
        return said[0][1]

    results = {}
    for number, case in enumerate(CASES):
        if case["profile"] == "webui":
            indexes, flat, _ = parser.get_multicond_prompt_list([case["prompt"]])
            conds = [(texts(flat[index]), weight) for index, weight in indexes[0]]
            uncond = texts(case["negative"])
            noise = steps = Philox(SEED)
        else:
            conds, uncond = [(comfy_text(case["prompt"]), 1.0)], comfy_text(case["negative"])
            noise, steps = CPU(SEED), Philox(SEED)
        kind = EulerDiscreteScheduler if case["scheduler"] == "euler" else EulerAncestralDiscreteScheduler
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(STEPS)
        latents = noise.randn((1, 4, 8, 8)) * scheduler.init_noise_sigma
        if kind is EulerAncestralDiscreteScheduler:
            module = sys.modules[kind.__module__]
            module.randn_tensor = lambda shape, **_: steps.randn(tuple(shape))
        for index, timestep in enumerate(scheduler.timesteps):
            with torch.no_grad():
                scaled = scheduler.scale_model_input(latents, timestep)
                base = unet(scaled, timestep, at(uncond, index)).sample
                prediction = base.clone()
                for said, weight in conds:
                    prediction += (unet(scaled, timestep, at(said, index)).sample - base) * (weight * SCALE)
                latents = scheduler.step(prediction, timestep, latents).prev_sample
        results[str(number)] = latents.contiguous()
    save_file(results, HERE / "pictures.safetensors")
    cases = [dict(case, steps=STEPS, guidance=SCALE, seed=SEED) for case in CASES]
    (HERE / "pictures.json").write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
    print(len(cases), "pictures", [float(latents.std()) for latents in results.values()])


if __name__ == "__main__":
    main()
