"""Runs diffusers' Stable Diffusion pipelines on toy components and writes what comes out to cases.json.

The toys are those of Tests/PipelineTests/Toys.swift. What is recorded is what the pipelines themselves do: the order of random
draws, batches, guidance, masks, which steps are run.

Made with diffusers 0.42.1, torch 2.13.0 (CPU), numpy 2, Pillow 12, Python 3.11:
    OMP_NUM_THREADS=1 python make_pipeline_fixtures.py
"""

import json
import math
import pathlib

import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

SCALE = 4
torch.set_grad_enabled(False)


class ToyUNet(torch.nn.Module):
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, in_channels=4, time_cond_proj_dim=None, predicts_variance=False):
        super().__init__()
        self.predicts_variance = predicts_variance
        self.config = FrozenDict(
            dict(in_channels=in_channels, sample_size=5, time_cond_proj_dim=time_cond_proj_dim)
        )

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond=None, **_):
        x, extra = sample[:, :4], sample[:, 4:]
        text = encoder_hidden_states.mean(dim=(1, 2))[:, None, None, None]
        result = (0.5 + 0.2 * text) * x + 0.1 * torch.roll(x, 1, dims=3) + 0.1 * float(timestep) / 1000 + 0.3 * text
        for k in range(extra.shape[1]):
            result = result + (k + 1) / extra.shape[1] * 0.2 * extra[:, k : k + 1]
        if timestep_cond is not None:
            # With four numbers the embedding is sin(1000 w), sin(0.1 w), and their cosines.
            result = result + 0.25 * timestep_cond[:, 1][:, None, None, None]
        return (torch.cat([result, 0.3 * result + 0.1], dim=1) if self.predicts_variance else result,)


class ToyVAE(torch.nn.Module):
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.config = FrozenDict(dict(block_out_channels=[1, 1, 1], latent_channels=4, scaling_factor=0.5))
        self.inward = torch.tensor([[((c * 3 + k) % 5 - 2) / 4 for k in range(3)] for c in range(4)])
        self.outward = torch.tensor([[((k * 4 + c) % 7 - 3) / 6 for c in range(4)] for k in range(3)])

    def encode(self, image):
        mean = torch.einsum("ck,nkhw->nchw", self.inward, torch.nn.functional.avg_pool2d(image, SCALE))
        return FrozenLike(latent_dist=DiagonalGaussianDistribution(torch.cat([mean, 0.1 * mean - 2], dim=1)))

    def decode(self, latents, return_dict=False, generator=None):
        image = torch.einsum("kc,nchw->nkhw", self.outward, latents)
        return (torch.nn.functional.interpolate(image, scale_factor=SCALE),)


class FrozenLike:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class ToyScheduler:
    def __init__(self, order=1, stir=0.0):
        self.config, self.order, self.stir, self.init_noise_sigma = FrozenDict({}), order, stir, 3.0

    def set_timesteps(self, num_inference_steps, device=None):
        self.steps = num_inference_steps
        self.timesteps = torch.tensor([1000 - 10 * i for i in range(num_inference_steps * self.order)])

    def index(self, timestep):
        return self.timesteps.tolist().index(int(torch.as_tensor(timestep).flatten()[0]))

    def scale_model_input(self, sample, timestep):
        return sample / (self.index(timestep) + 1)

    def add_noise(self, sample, noise, timestep):
        return sample + (len(self.timesteps) - self.index(timestep)) * noise

    def step(self, prediction, timestep, sample, generator=None, return_dict=False):
        sample = sample - prediction / self.steps
        if self.stir > 0:
            sample = sample + self.stir * torch.randn(sample.shape, generator=generator)
        return (sample,)


def embedded(texts):
    return torch.tensor(
        [[[sum(text.encode()) % 97 / 97 + 0.01 * (3 * i + j) for j in range(3)] for i in range(2)] for text in texts]
    )


def image(width, height):
    return np.array(
        [[[(y * 7 + x * 3 + k * 5) % 17 / 16 for k in range(3)] for x in range(width)] for y in range(height)], np.float32
    )


def mask(width, height):
    return np.array([[(x * 3 + y * 5) % 11 / 10 for x in range(width)] for y in range(height)], np.float32)


def to_torch(pixels):
    pixels = torch.tensor(pixels)
    return pixels.permute(2, 0, 1)[None] if pixels.ndim == 3 else pixels[None, None]


TRAINING = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
# The pipelines set what they think an old configuration should have had; these have it from the start.
REAL = {
    "ddim": ("DDIMScheduler", dict(steps_offset=1, clip_sample=False, set_alpha_to_one=False)),
    "ddpm": ("DDPMScheduler", dict(steps_offset=1, clip_sample=False)),
    "pndm": ("PNDMScheduler", dict(steps_offset=1, skip_prk_steps=True)),
    "lms": ("LMSDiscreteScheduler", dict(steps_offset=1)),
    "euler": ("EulerDiscreteScheduler", dict(steps_offset=1)),
    "euler-a": ("EulerAncestralDiscreteScheduler", dict(steps_offset=1)),
    "heun": ("HeunDiscreteScheduler", dict(steps_offset=1)),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", dict(steps_offset=1)),
    "unipc": ("UniPCMultistepScheduler", dict(steps_offset=1)),
    "lcm": ("LCMScheduler", dict(steps_offset=1, clip_sample=False, set_alpha_to_one=True)),
}
# A network that predicts its variance, too.
LEARNED = {"ddpm-learned-range": ("DDPMScheduler", dict(steps_offset=1, clip_sample=False, variance_type="learned_range"))}
TOYS = {"toy": dict(), "toy-stirred": dict(stir=0.25), "toy-second-order": dict(order=2)}


def scheduler(name):
    if name in TOYS:
        return ToyScheduler(**TOYS[name]), None
    kind, options = (REAL | LEARNED)[name]
    made = getattr(diffusers, kind)(**TRAINING, **options)
    # `lambda_min_clipped` is minus infinity by default, which JSON cannot hold.
    finite = {key: value for key, value in made.config.items() if not isinstance(value, float) or math.isfinite(value)}
    return made, dict(finite, _class_name=kind)


PIPELINES = {
    "txt2img": (diffusers.StableDiffusionPipeline, 4),
    "img2img": (diffusers.StableDiffusionImg2ImgPipeline, 4),
    "inpaint": (diffusers.StableDiffusionInpaintPipeline, 4),
    "inpaint9": (diffusers.StableDiffusionInpaintPipeline, 9),
    "edit": (diffusers.StableDiffusionInstructPix2PixPipeline, 8),
    "lcm": (diffusers.LatentConsistencyModelPipeline, 4),
    "lcm-img2img": (diffusers.LatentConsistencyModelImg2ImgPipeline, 4),
}


def run(task, scheduler_name, **options):
    case = dict(
        task=task, scheduler=scheduler_name, prompts=["a cat"], negativePrompts=[""], steps=4, guidance=7.5, seed=11,
        width=24, height=16, imagesPerPrompt=1, strength=None, imageGuidance=None, guidanceRescale=None, noise=None,
    )
    case.update(options)
    kind, channels = PIPELINES[task]
    is_lcm = task.startswith("lcm")
    unet = ToyUNet(channels, 4 if is_lcm else None, predicts_variance=scheduler_name in LEARNED)
    made, case["schedulerConfiguration"] = scheduler(scheduler_name)
    others = dict(image_encoder=None) if not task.startswith("edit") else {}
    pipeline = kind(
        vae=ToyVAE(), text_encoder=None, tokenizer=None, unet=unet, scheduler=made, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False, **others,
    )
    pipeline.set_progress_bar_config(disable=True)
    arguments = dict(
        prompt_embeds=embedded(case["prompts"]), num_inference_steps=case["steps"], guidance_scale=case["guidance"],
        num_images_per_prompt=case["imagesPerPrompt"], generator=torch.Generator().manual_seed(case["seed"]),
    )
    if not is_lcm:
        arguments["negative_prompt_embeds"] = embedded(case["negativePrompts"])
    if task in ("txt2img", "lcm", "inpaint", "inpaint9"):
        arguments.update(width=case["width"], height=case["height"])
    if task not in ("txt2img", "lcm"):
        arguments["image"] = to_torch(image(case["width"], case["height"]))
    if task.startswith("inpaint"):
        arguments["mask_image"] = to_torch(mask(case["width"], case["height"]))
    if case["strength"] is not None:
        arguments["strength"] = case["strength"]
    if case["imageGuidance"] is not None:
        arguments["image_guidance_scale"] = case["imageGuidance"]
    if case["guidanceRescale"] is not None:
        arguments["guidance_rescale"] = case["guidanceRescale"]
    if case["noise"] is not None:
        count = len(case["prompts"]) * case["imagesPerPrompt"]
        arguments["latents"] = torch.randn(
            (count, 4, case["height"] // SCALE, case["width"] // SCALE), generator=torch.Generator().manual_seed(case["noise"])
        )

    def numbers(output_type):
        arguments["generator"] = torch.Generator().manual_seed(case["seed"])
        result = pipeline(**arguments, output_type=output_type).images.permute(0, 2, 3, 1)
        return [float(f"{value:.7g}") for value in result.flatten().tolist()]

    case["latents"] = numbers("latent")
    # Every fourth pixel of every fourth row says all: the toy decoder repeats them.
    arguments["generator"] = torch.Generator().manual_seed(case["seed"])
    decoded = pipeline(**arguments, output_type="pt").images[:, :, ::SCALE, ::SCALE].permute(0, 2, 3, 1)
    case["image"] = [float(f"{value:.7g}") for value in decoded.flatten().tolist()]
    return case


cases = [
    run("txt2img", "toy"),
    run("txt2img", "toy-stirred", prompts=["a cat", "two dogs"], negativePrompts=["bad", "worse"], imagesPerPrompt=2),
    run("txt2img", "toy-stirred", noise=5),
    run("txt2img", "toy", guidance=1.0),
    run("txt2img", "toy", guidanceRescale=0.7),
    run("img2img", "toy-stirred", strength=0.75),
    run("img2img", "toy-stirred", strength=0.5, prompts=["a cat", "two dogs"], negativePrompts=["", ""], imagesPerPrompt=2),
    run("img2img", "toy-second-order", strength=0.5),
    run("img2img", "toy", strength=1.0),
    run("inpaint", "toy-stirred", strength=1.0),
    run("inpaint", "toy-stirred", strength=0.75, prompts=["a cat", "two dogs"], negativePrompts=["", ""]),
    run("inpaint", "toy-second-order", strength=0.5, guidance=1.0),
    run("inpaint", "toy", strength=1.0, noise=5),
    run("inpaint9", "toy-stirred", strength=1.0, imagesPerPrompt=2),
    run("inpaint9", "toy-stirred", strength=0.75),
    run("inpaint9", "toy", strength=1.0, guidance=1.0),
    run("edit", "toy-stirred", imageGuidance=1.5, negativePrompts=["bad"]),
    run("edit", "toy", imageGuidance=2.0, imagesPerPrompt=2),
    run("edit", "toy", imageGuidance=0.5),
    run("lcm", "lcm", guidance=8.5),
    run("lcm-img2img", "lcm", guidance=8.5, strength=0.5),
]
for name in REAL:
    steps = 6
    cases.append(run("txt2img", name, steps=steps))
    cases.append(run("img2img", name, steps=steps, strength=0.5))
    cases.append(run("inpaint", name, steps=steps, strength=0.7))
for name in LEARNED:
    cases.append(run("txt2img", name, steps=6, prompts=["a cat", "two dogs"], negativePrompts=["", "bad"]))
    cases.append(run("inpaint", name, steps=6, strength=0.7))

photo = (image(23, 13) * 255).round().astype(np.uint8)
resized = np.asarray(PIL.Image.fromarray(photo).resize((20, 12), PIL.Image.Resampling.LANCZOS))
enlarged = np.asarray(PIL.Image.fromarray(photo).resize((32, 20), PIL.Image.Resampling.LANCZOS))

target = pathlib.Path(__file__).parent / "cases.json"
target.write_text(
    json.dumps(
        dict(
            cases=cases,
            lanczos=[
                dict(width=w, height=h, pixels=p.flatten().tolist()) for w, h, p in [(20, 12, resized), (32, 20, enlarged)]
            ],
        ),
        separators=(",", ":"), allow_nan=False,
    ).replace("},{", "},\n{")
    + "\n"
)
print(target.stat().st_size, "bytes,", len(cases), "cases")
