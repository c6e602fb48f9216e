#!/usr/bin/env python3
"""Makes tiny random models of ModelScope's kind (text-to-video) and what diffusers makes of them.

    python make_text_to_video.py      # with the environment of ../models/requirements.txt

Each model is a folder with what is its own: model_index.json, the scheduler and the U-Net (`UNet3DConditionModel`). Its other parts are those of
../models/sd2. `lora.safetensors` changes `modelscope`, its layers for pictures and those for frames; diffusers' class cannot load one, so that the
reference adds B · A to the weights. cases.json has single passes (every block's output, as in ../models) and runs of whole pipelines: the fields of
../models/README.md, the folder of the model, the number of frames, and the pictures of a video to start from. Latents are laid out as
diffusers' pipelines have them: [N, 4, F, h, w].
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "models")]

import diffusers
import torch
from diffusers import TextToVideoSDPipeline, UNet3DConditionModel, VideoToVideoSDPipeline
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import make_models
import passes
from configurations import BETAS, CROSS, PLAIN, fit_prediction, randomise, write_json
from make_models import save
from passes import recorded
from pipelines import BLURRED, BOAT, CAT, SCHEDULERS, case, drawing

BASE = HERE.parent / "models" / "sd2"
INPUTS = HERE.parent / "models" / "inputs"
passes.BLOCKS += (TemporalConvLayer, TransformerTemporalModel)
# Of many small tensors, whose names take room, too.
make_models.LARGEST = 150_000


def unet(levels, channels, **more):
    return dict(
        down_block_types=tuple(f"{kind}DownBlock3D" for kind in levels), up_block_types=tuple(f"{kind}UpBlock3D" for kind in reversed(levels)),
        block_out_channels=channels, **{"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 24,
                                        "attention_head_dim": 4, **more})


MODELS = {
    # As published: attention everywhere but at the lowest resolution.
    "modelscope": dict(
        unet=unet([CROSS, CROSS, PLAIN], (8, 16, 24)), scheduler="DDIMScheduler",
        scheduler_config=dict(**BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False,
                              prediction_type="epsilon", sample_max_value=1.0, thresholding=False, timestep_spacing="leading"),
        pass_shape=(2, 3, 8, 6)),
    "odd": dict(
        unet=unet([PLAIN, CROSS], (10, 15), attention_head_dim=5, norm_num_groups=5, layers_per_block=2, norm_eps=1e-6, sample_size=9),
        scheduler="DPMSolverMultistepScheduler",
        scheduler_config=dict(**BETAS, prediction_type="v_prediction", algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="linspace"),
        pass_shape=(1, 5, 7, 9)),
}


def clip(name, model="modelscope", pipeline="text-to-video", prompt=CAT, frames=4, **more):
    size = {} if pipeline == "video-to-video" else dict(width=16, height=16)
    return {**case(name, pipeline, prompt, **{**size, "guidance": 9.0, "seed": 60, "steps": 6, **more}), "model": model, "frames": frames}


CASES = [
    clip("clip"),
    clip("sixteen", frames=16, guidance=5.0),
    clip("one", frames=1),
    clip("unguided", frames=2, guidance=1.0),
    clip("batch", prompt=[CAT, BOAT], negative_prompts=[BLURRED, ""], guidance=4.0, frames=3, scheduler="dpmpp-2m"),
    clip("wide", frames=3, width=40, height=24, guidance=5.0, negative_prompts=[BLURRED]),
    # What a scheduler draws is drawn frame by frame.
    clip("euler-a", frames=3, guidance=4.0, scheduler="euler-a"),
    clip("ddpm", frames=2, guidance=4.0, scheduler="ddpm"),
    clip("lcm", frames=3, guidance=2.0, scheduler="lcm", steps=4),
    clip("odd", "odd", frames=5, guidance=3.0, width=16, height=24),
    clip("lora", frames=3, guidance=5.0, loras={"lora.safetensors": 0.7}),
    clip("v2v", pipeline="video-to-video", frames=3, video=["picture.png", "mask.png", "picture.png"], strength=0.6, guidance=5.0),
    clip("v2v-unguided", pipeline="video-to-video", frames=1, video=["picture-48x32.png"], strength=0.8, guidance=1.0, scheduler="euler"),
    # More frames than AnimateDiff's pipelines draw at once.
    clip("v2v-long", "odd", "video-to-video", frames=18, video=["picture-16x16.png"] * 18, strength=0.5, guidance=2.0, scheduler="euler-a"),
]


# MARK: models


class AsPictures:
    """A network of clips that takes four pictures for two clips of two frames."""

    def __init__(self, network):
        self.network, self.conv_out = network, network.conv_out

    def __call__(self, pictures, timestep, states, **_):
        clips = pictures.unflatten(0, (2, 2)).transpose(1, 2)
        return self.network(clips, timestep, states[::2])


def make_model(name, seed):
    model, folder = MODELS[name], HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scheduler").mkdir(parents=True)
    write_json(folder / "scheduler" / "scheduler_config.json", dict(
        _class_name=model["scheduler"], _diffusers_version=diffusers.__version__, **model["scheduler_config"]))
    scheduler = getattr(diffusers, model["scheduler"]).from_pretrained(folder / "scheduler")
    generator = torch.Generator().manual_seed(seed)
    network = UNet3DConditionModel(**model["unet"]).eval()
    randomise(network, generator)
    for key, parameter in network.named_parameters():
        # What is added should not drown what it is added to.
        if "transformer_in.proj_out" in key or "temp_attentions" in key and ".proj_out." in key or ".conv4." in key:
            parameter.data *= 0.4
    fit_prediction(AsPictures(network), {**network.config}, scheduler, generator)
    network.half().save_pretrained(folder / "unet", max_shard_size="120KB")
    write_json(folder / "model_index.json", dict(
        _class_name="TextToVideoSDPipeline", _diffusers_version="0.15.0.dev0", scheduler=["diffusers", model["scheduler"]],
        text_encoder=["transformers", "CLIPTextModel"], tokenizer=["transformers", "CLIPTokenizer"],
        unet=["diffusers", "UNet3DConditionModel"], vae=["diffusers", "AutoencoderKL"]))


def make_lora(seed, rank=2):
    """Random factors under PEFT's names: of layers of all kinds, temporal convolutions among them."""
    generator = torch.Generator().manual_seed(seed)
    network = UNet3DConditionModel.from_pretrained(HERE / "modelscope" / "unet", dtype=torch.float32)
    tensors = {}
    for key, value in network.state_dict().items():
        if not key.endswith(("attn1.to_q.weight", "attn2.to_v.weight", "transformer_in.proj_in.weight", "temp_convs.0.conv2.3.weight")):
            continue
        down = torch.randn(rank, *value.shape[1:], generator=generator) / value[0].numel() ** 0.5
        up = 0.5 * torch.randn(value.shape[0], rank, *(1 for _ in value.shape[2:]), generator=generator) / rank**0.5
        module = "unet." + key.removesuffix(".weight")
        tensors |= {f"{module}.lora_A.weight": down.half(), f"{module}.lora_B.weight": up.half()}
    save_file(tensors, HERE / "lora.safetensors")


def add_lora(network, file, weight):
    tensors = load_file(file)
    parameters = dict(network.named_parameters())
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        down, up = tensors[key], tensors[key.replace("lora_A", "lora_B")]
        parameter = parameters[key.removeprefix("unet.").replace(".lora_A.weight", ".weight")]
        change = up.to(parameter.dtype).flatten(1) @ down.to(parameter.dtype).flatten(1)
        parameter.data += weight * change.reshape(parameter.shape)


# MARK: single passes


def single_pass(name, generator):
    model = MODELS[name]
    network = UNet3DConditionModel.from_pretrained(HERE / name / "unet", dtype=torch.float32).eval()
    count, frames, *sides = model["pass_shape"]
    inputs = dict(sample=torch.randn(count, 4, frames, *sides, generator=generator),
                  encoder_hidden_states=torch.randn(count, 7, network.config.cross_attention_dim, generator=generator))

    def run():
        return network(inputs["sample"], torch.tensor(321.0, dtype=torch.float64), inputs["encoder_hidden_states"]).sample

    result, outputs = recorded(network, run)
    return {**{f"input.{key}": value for key, value in inputs.items()}, **outputs, "output": result}


# MARK: whole pipelines

PIPELINES = {"text-to-video": TextToVideoSDPipeline, "video-to-video": VideoToVideoSDPipeline}


def run(given, dtype):
    folder = HERE / given["model"]
    network = UNet3DConditionModel.from_pretrained(folder / "unet", dtype=dtype)
    index = make_models.DiffusionPipeline.load_config(folder)
    scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler")
    base = diffusers.StableDiffusionPipeline.from_pretrained(
        BASE, dtype=dtype, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline = PIPELINES[given["pipeline"]](
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=network, scheduler=scheduler)
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    pipeline.set_progress_bar_config(disable=True)
    if "scheduler" in given:
        kind, more = SCHEDULERS[given["scheduler"]]
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **more)
    for file, weight in given.get("loras", {}).items():
        add_lora(network, HERE / file, weight)
    draws, latents, timesteps = [], [], []

    def record(_, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values)

    arguments = dict(prompt=given["prompts"], num_inference_steps=given["steps"], guidance_scale=given["guidance"], output_type="pt",
                     generator=torch.Generator().manual_seed(given["seed"]), callback=record)
    if "negative_prompts" in given:
        arguments["negative_prompt"] = given["negative_prompts"]
    arguments |= {key: given[key] for key in ("width", "height", "strength") if key in given}
    if "video" in given:
        arguments["video"] = [Image.open(INPUTS / name).convert("RGB") for name in given["video"]]
    else:
        arguments["num_frames"] = given["frames"]
    with drawing(draws, dtype):
        frames = pipeline(**arguments).frames
    tensors = {f"draw.{i}": drawn for i, drawn in enumerate(draws)} | {f"latents.{i}": state for i, state in enumerate(latents)}
    # [N, F, 3, H, W]; the first and the last frame are enough.
    return timesteps, tensors | {"latents": latents[-1], "frames": frames[:, [0, -1]]}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for seed, name in enumerate(MODELS):
        make_model(name, 6000 + seed)
    make_lora(6050)
    described = []
    for seed, name in enumerate(MODELS):
        tensors = single_pass(name, torch.Generator().manual_seed(6100 + seed))
        described.append(dict(name=name, model=name, files=save(tensors, HERE / "reference", f"pass-{name}"), timestep=321.0))
        print(name, len(tensors))
    pipelines = []
    for given in CASES:
        timesteps, tensors = run(given, torch.float32)
        precise = run(given, torch.float64)[1]["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        draws = [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")]
        # Of long clips, the start and the end are enough.
        kept = ("draw.0", "latents", "frames") if given["frames"] > 8 else [
            key for key in tensors if not key.startswith("latents.") or key in ("latents.0", "latents.2")]
        pipelines.append({**given, "files": save({key: tensors[key] for key in kept}, HERE / "reference", given["name"]),
                          "timesteps": timesteps, "draws": draws, "float64_deviation": float(f"{deviation:.1e}")})
        print(given["name"], f"{deviation:.1e}", float(tensors["latents"].std()))
    write_json(HERE / "cases.json", dict(passes=described, pipelines=pipelines))


if __name__ == "__main__":
    main()
