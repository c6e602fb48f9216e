"""What diffusers' pipelines make of configurations that say little or say it wrong, before and after the scheduler is exchanged.

    pip install torch==2.13.0 diffusers==0.42.1   # the versions that made corrections.json
    python make_corrections.py

Each case: `file`, the scheduler_config.json; `task`, the pipeline; `exchanged`, the class that takes the place of the file's (`from_config`),
or null; then `timesteps` of ten steps and `next`, what the first step makes of `SAMPLE` and `PREDICTION`.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
)

SAMPLE = [3.0, -2.0, 1.0, 0.5]
PREDICTION = [0.5, 1.0, -2.0, 0.25]
TASKS = {
    "text-to-image": StableDiffusionPipeline,
    "image-to-image": StableDiffusionImg2ImgPipeline,
    "inpainting": StableDiffusionInpaintPipeline,
    "editing": StableDiffusionInstructPix2PixPipeline,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FILES = [
    {"_class_name": "PNDMScheduler", **BETAS},
    {"_class_name": "PNDMScheduler", **BETAS, "steps_offset": 0, "skip_prk_steps": False, "clip_sample": True},
    {"_class_name": "DDIMScheduler", **BETAS},
    {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": True, "steps_offset": 2},
    {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_spacing": "leading"},
]
EXCHANGED = [None, "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"]


def run(file, task, exchanged):
    made = getattr(diffusers, file["_class_name"]).from_config(file)
    parts = dict.fromkeys(["vae", "text_encoder", "tokenizer", "unet", "safety_checker", "feature_extractor"])
    pipeline = TASKS[task](**parts, scheduler=made, requires_safety_checker=False)
    if exchanged:
        pipeline.scheduler = getattr(diffusers, exchanged).from_config(pipeline.scheduler.config)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(10)
    step = scheduler.step(torch.tensor([PREDICTION]), scheduler.timesteps[0], torch.tensor([SAMPLE]))
    return {"file": file, "task": task, "exchanged": exchanged, "timesteps": [float(t) for t in scheduler.timesteps],
            "next": step.prev_sample[0].tolist()}


cases = [run(file, task, exchanged) for file in FILES for task in TASKS for exchanged in EXCHANGED]
lines = ",\n".join(json.dumps(case) for case in cases)
path = Path(__file__).parent / "corrections.json"
path.write_text(f'{{"sample": {SAMPLE}, "prediction": {PREDICTION}, "cases": [\n{lines}\n]}}\n')
print(path, len(cases), "cases")
