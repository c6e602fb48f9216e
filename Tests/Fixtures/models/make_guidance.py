#!/usr/bin/env python3
"""Runs diffusers' pipelines on the tiny models with every kind of guidance, and writes guidance/cases.json.

    python make_guidance.py      # with the environment of requirements.txt

Perturbed attention, self-attention guidance and FreeU are diffusers' own. Other kinds have no pipeline of Stable Diffusion: there the network's two answers are both replaced by
what the kind makes of them, so that the pipeline's own formula gives just that. Adaptive projected guidance and intervals are diffusers' guiders; dynamic
thresholding and CFG++ are computed here, by the formulas of their sources.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import inspect
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance
from diffusers.utils import logging

import make_models
import pipelines
from configurations import write_json
from pipelines import BLURRED, BOAT, CAT, case, run

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "guidance"
PERTURBED = {"text-to-image": diffusers.StableDiffusionPAGPipeline, "image-to-image": diffusers.StableDiffusionPAGImg2ImgPipeline}
XL_PERTURBED = {"text-to-image": diffusers.StableDiffusionXLPAGPipeline}
DEGRADED = {"text-to-image": diffusers.StableDiffusionSAGPipeline}
PLAIN, XL_PLAIN = dict(pipelines.PIPELINES), dict(pipelines.XL_PIPELINES)


def drawn(name, model="sd1", pipeline="text-to-image", prompt=CAT, **more):
    size = dict(width=32, height=32) if pipeline == "text-to-image" else {}
    return {**case(name, pipeline, prompt, **{**size, "guidance": 5.0, "seed": 70, "steps": 6, **more}), "model": model}


CASES = [
    drawn("pag", pag=dict(scale=3.0, layers=["mid"])),
    drawn("pag-alone", guidance=1.0, pag=dict(scale=2.0, layers=["mid"])),
    drawn("pag-layers", pag=dict(scale=2.5, layers=["down_blocks.0", r"up_blocks.\d.attentions.1"]), negative_prompts=[BLURRED], scheduler="ddim"),
    drawn("pag-adaptive", pag=dict(scale=3.0, adaptive=0.004, layers=["mid"]), guidance_rescale=0.6, scheduler="dpmpp-2m"),
    drawn("pag-batch", prompt=[CAT, BOAT], negative_prompts=[BLURRED, ""], images_per_prompt=2, pag=dict(scale=3.0, layers=["mid"]), scheduler="euler-a"),
    drawn("pag-xl", "sdxl", pag=dict(scale=3.0, layers=["mid"]), scheduler="euler"),
    drawn("pag-img2img", pipeline="image-to-image", image="picture.png", strength=0.6, pag=dict(scale=3.0, layers=["mid"])),
    drawn("sag", sag=0.75, width=64, height=48, scheduler="unipc"),
    drawn("sag-alone", sag=1.0, guidance=1.0, width=64, height=64, scheduler="ddim"),
    drawn("sag-batch", prompt=[CAT, BOAT], negative_prompts=[BLURRED, ""], images_per_prompt=2, sag=0.75, width=64, height=48, scheduler="ddpm"),
    drawn("sag-v", "sd2", sag=0.5, width=32, height=32, scheduler="ddim"),
    drawn("sag-odd", "odd", sag=0.75, width=40, height=40, scheduler="dpmpp-2m"),
    drawn("freeu", freeu=[1.5, 1.6, 0.9, 0.2]),
    drawn("freeu-wide", width=48, height=16, freeu=[1.2, 1.4, 0.5, 1.3], scheduler="ddim"),
    drawn("freeu-odd", "odd", width=40, height=40, freeu=[1.1, 1.2, 0.6, 0.4]),
    drawn("freeu-pag-xl", "sdxl", guidance=2.5, freeu=[1.1, 1.2, 0.9, 0.2], pag=dict(scale=1.0, layers=["mid", "down"]), scheduler="ddim"),
    drawn("apg", apg=dict(eta=0.0, momentum=-0.5, norm_threshold=2.5), guidance=9.0, scheduler="ddim"),
    drawn("apg-plain", apg=dict(eta=1.0, norm_threshold=0.0), guidance=4.0, scheduler="euler"),
    drawn("apg-batch", apg=dict(eta=0.3, norm_threshold=15.0), prompt=[CAT, BOAT], guidance=9.0, scheduler="dpmpp-2m"),
    drawn("interval", interval=[0.2, 0.7], scheduler="ddim", steps=10),
    drawn("interval-v", "sd2", interval=[0.0, 0.5], scheduler="euler", width=16, height=16),
    drawn("thresholded", thresholding=dict(mimic=3.0, percentile=0.9), guidance=12.0, scheduler="ddim"),
    drawn("thresholded-jointly", thresholding=dict(mimic=4.0, percentile=0.95, separate=False, phi=0.7), guidance=12.0, scheduler="euler"),
    drawn("cfgpp-ddim", renoising=True, guidance=0.6, scheduler="ddim"),
    drawn("cfgpp-euler", renoising=True, guidance=0.8, scheduler="euler", negative_prompts=[BLURRED]),
    drawn("cfgpp-euler-a", renoising=True, guidance=0.5, scheduler="euler-a"),
    drawn("cfgpp-v", "sd2", renoising=True, guidance=0.6, scheduler="ddim", width=16, height=16),
]


def projected(given):
    """diffusers' guider on the network's answers. A momentum is remembered from step to step."""
    told = given["apg"]
    guider = AdaptiveProjectedGuidance(given["guidance"], told.get("momentum"), told["norm_threshold"], eta=told["eta"])
    if "momentum" in told:
        guider.momentum_buffer = diffusers.guiders.adaptive_projected_guidance.MomentumBuffer(told["momentum"])
    return lambda negative, text, step: guider.forward(text, negative).pred


def limited(given):
    start, stop = given["interval"]

    def guided(negative, text, step):
        guider = ClassifierFreeGuidance(given["guidance"], start=start, stop=stop)
        guider.set_state(step=step, num_inference_steps=given["steps"], timestep=None)
        return guider.forward(text, negative).pred

    return guided


def thresholded(given):
    """`DynThresh` with constant scales, a mean as the start and absolute deviations. One picture alone, as its joint maxima are the batch's."""
    told, scale = given["thresholding"], given["guidance"]

    def centred(tensor):
        flat = tensor.flatten(2)
        mean = flat.mean(dim=2, keepdim=True)
        return flat - mean, mean

    def guided(negative, text, step):
        target = negative + (text - negative) * scale
        (own, mean), (wanted, _) = centred(target), centred(negative + (text - negative) * told["mimic"])
        if told.get("separate", True):
            spread = wanted.abs().amax(dim=2, keepdim=True)
            cut = torch.quantile(own.abs(), told["percentile"], dim=2, keepdim=True)
        else:
            spread, cut = wanted.abs().max(), torch.quantile(own.abs(), told["percentile"])
        most = torch.maximum(spread, cut)
        result = (own.clamp(-most, most) / most * spread + mean).unflatten(2, target.shape[2:])
        phi = told.get("phi", 1.0)
        return phi * result + (1 - phi) * target

    return guided


def replaced(pipeline, guided):
    """Lets both answers of the network be what a kind of guidance makes of them."""
    forward, step = pipeline.unet.forward, [0]

    def answer(*arguments, **more):
        negative, text = forward(*arguments, **more)[0].chunk(2)
        result = guided(negative, text, step[0])
        step[0] += 1
        return (torch.cat([result, result]),)

    pipeline.unet.forward = answer


def renoised(pipeline, given):
    """CFG++: x₀ by λ, and the noise of the negative answer. A step that goes to α′ x₀ + σ′ ε goes to its own end with the negative answer alone, plus α′ times
    how far the two x₀ are apart."""
    scheduler, answers = pipeline.scheduler, {}

    def guided(negative, text, step):
        answers["negative"] = negative
        return negative + given["guidance"] * (text - negative)

    replaced(pipeline, guided)
    advance = scheduler.step

    def step(output, timestep, sample, generator=None, **more):
        sigmas = getattr(scheduler, "sigmas", None)
        state = generator.get_state() if generator is not None else None
        found = advance(output, timestep, sample, generator=generator, **{**more, "return_dict": True})
        if sigmas is not None:
            scheduler._step_index -= 1
            alpha = 1.0
        else:
            previous = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
            alpha = (scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod) ** 0.5
        if state is not None:
            generator.set_state(state)
        other = advance(answers["negative"], timestep, sample, generator=generator, **{**more, "return_dict": True})
        return (other.prev_sample + alpha * (found.pred_original_sample - other.pred_original_sample),)

    # Its signature says what it takes.
    step.__signature__ = inspect.signature(advance)
    scheduler.step = step


def degraded(pipeline, given):
    """Self-attention guidance, where rounding decides of no place whether it is blurred."""
    mask = pipeline.sag_masking

    def masked(original, attention, size, timestep, noise):
        heads = len(attention) // len(original)
        received = attention.unflatten(0, (len(original), heads)).mean(1).sum(1)
        nearest = float((received - 1).abs().min())
        assert nearest > 1e-4, f"{given['name']}: a place gets {nearest} more or less attention than decides"
        return mask(original, attention, size, timestep, noise)

    pipeline.sag_masking = masked
    return dict(sag_scale=given["sag"])


def prepare(pipeline, given):
    more = {}
    if "sag" in given:
        more |= degraded(pipeline, given)
    if "pag" in given:
        pipeline.set_pag_applied_layers(given["pag"]["layers"])
        more |= dict(pag_scale=given["pag"]["scale"], pag_adaptive_scale=given["pag"].get("adaptive", 0.0))
    if "freeu" in given:
        b1, b2, s1, s2 = given["freeu"]
        pipeline.enable_freeu(s1=s1, s2=s2, b1=b1, b2=b2)
    for key, kind in {"apg": projected, "interval": limited, "thresholding": thresholded}.items():
        if key in given:
            replaced(pipeline, kind(given))
    if "renoising" in given:
        renoised(pipeline, given)
        more |= dict(guidance_scale=7.5)  # any above 1, so that both rows are computed
    return more


def runs(given, dtype):
    pipelines.PIPELINES, pipelines.XL_PIPELINES = (PERTURBED, XL_PERTURBED) if "pag" in given else (PLAIN, XL_PLAIN)
    if "sag" in given:
        pipelines.PIPELINES = DEGRADED
    return run(HERE / given["model"], HERE / "inputs", given, dtype, prepare)[1]


def described(given):
    tensors, precise = runs(given, torch.float32), runs(given, torch.float64)["latents"].float()
    deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
    assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
    timesteps = tensors.pop("timesteps")
    tensors = make_models.worth_keeping(given, tensors)
    print(given["name"], f"{deviation:.1e}", float(tensors["latents"].std()))
    return {**given, "files": make_models.save(tensors, FOLDER / "reference", given["name"]), "timesteps": timesteps.tolist(),
            "draws": [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")],
            "float64_deviation": float(f"{deviation:.1e}")}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    write_json(FOLDER / "cases.json", dict(pipelines=[described(given) for given in CASES]))


if __name__ == "__main__":
    main()
