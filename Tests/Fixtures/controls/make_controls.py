#!/usr/bin/env python3
"""Makes tiny random ControlNets and T2I-Adapters for the models of ../models, and what diffusers makes of them.

    python make_controls.py      # with the environment of ../models/requirements.txt

Each network is a folder as diffusers saves it. `original.safetensors` and `original-adapter*.safetensors` hold networks under the names of
the original code. cases.json has single passes (every block's output, as in ../models) and runs of whole pipelines: the fields of
../models/README.md, the folder of the model, and `controls`, each with its network, picture, weight and range. shapes.json has the shapes
of the published sizes, with their configurations.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import inspect
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "models"), str(HERE.parent / "weights")]

import diffusers
import torch
from diffusers import ControlNetModel, MultiAdapter, MultiControlNetModel, T2IAdapter
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel

from configurations import MODELS, randomise, told, write_json
from make_checkpoints import original_unet
from make_models import save, worth_keeping
from passes import recorded
from pipelines import BOAT, CAT, SCHEDULERS, case, drawing

INPUTS = HERE.parent / "models" / "inputs"


def copy_of(model, embedding=(4, 6, 8), **more):
    """The configuration of a ControlNet for a model's U-Net."""
    dropped = ("up_block_types", "out_channels", "sample_size")
    config = {key: value for key, value in MODELS[model]["unet"].items() if key not in dropped}
    return {**config, "in_channels": 4, "conditioning_embedding_out_channels": embedding, **more}


NETWORKS = {
    "sd1": (ControlNetModel, copy_of("sd1")),
    "sd1-bgr": (ControlNetModel, copy_of("sd1", controlnet_conditioning_channel_order="bgr")),
    "sd1-pooled": (ControlNetModel, copy_of("sd1", global_pool_conditions=True)),
    "sd2": (ControlNetModel, copy_of("sd2", embedding=(4, 8))),
    "sdxl": (ControlNetModel, copy_of("sdxl")),
    "inpaint9": (ControlNetModel, copy_of("inpaint9")),
    # As the original code has them: eight heads everywhere, pictures eight times as large as latents.
    "original": (ControlNetModel, copy_of("sd1", embedding=(4, 4, 6, 8), attention_head_dim=8, block_out_channels=(8, 8, 16),
                                          norm_num_groups=8)),
    "adapter": (T2IAdapter, dict(channels=[8, 8, 12], num_res_blocks=2, downscale_factor=4)),
    "adapter-grey": (T2IAdapter, dict(channels=[8, 8, 12], num_res_blocks=1, downscale_factor=4, in_channels=1)),
    "adapter-xl": (T2IAdapter, dict(channels=[8, 16, 24, 24], num_res_blocks=2, downscale_factor=8, adapter_type="full_adapter_xl")),
    "adapter-light": (T2IAdapter, dict(channels=[8, 12], num_res_blocks=2, downscale_factor=8, adapter_type="light_adapter")),
    "original-adapter": (T2IAdapter, dict(channels=[4, 8, 12, 12], num_res_blocks=2, downscale_factor=8)),
    "original-adapter-xl": (T2IAdapter, dict(channels=[4, 8, 12, 12], num_res_blocks=2, downscale_factor=16,
                                             adapter_type="full_adapter_xl")),
}


def control(network="sd1", picture="picture.png", weight=1.0, start=0.0, end=1.0):
    return dict(network=network, picture=picture, weight=weight, start=start, end=end)


def steered(name, model, *controls, pipeline="text-to-image", prompt=CAT, **more):
    size = {} if pipeline == "image-to-image" else dict(width=32, height=32)
    return {**case(name, pipeline, prompt, **{**size, "guidance": 5.0, "seed": 40, **more}), "model": model, "controls": list(controls)}


CASES = [
    steered("one", "sd1", control(weight=0.8)),
    steered("resized", "sd1", control(picture="picture-37x50.png"), scheduler="ddim"),
    steered("part", "sd1", control(start=0.2, end=0.7), scheduler="euler"),
    steered("part-heun", "sd1", control(start=0.3, end=0.8, weight=0.7), scheduler="heun"),
    steered("two", "sd1", control(weight=0.9, end=0.6), control("sd1-bgr", "picture-37x50.png", weight=0.5, start=0.3)),
    steered("guessing", "sd1", control(), guess_mode=True, guidance=3.0),
    steered("guessing-two", "sd1", control(end=0.6), control("sd1-bgr", weight=0.6), guess_mode=True, guidance=3.0),
    steered("guessing-unguided", "sd1", control(), guess_mode=True, guidance=1.0),
    steered("pooled", "sd1", control("sd1-pooled", weight=0.9)),
    steered("unguided", "sd1", control("sd1-bgr"), guidance=1.0),
    steered("batch", "sd1", control(picture=["picture.png", "mask.png"]), prompt=[CAT, BOAT], images_per_prompt=2),
    steered("img2img", "sd1", control(weight=0.8, start=0.1, end=0.8), pipeline="image-to-image", image="picture.png", strength=0.6),
    steered("inpaint", "sd1", control("sd1-bgr", weight=0.8), pipeline="inpainting", image="picture.png", mask="mask.png", strength=1.0),
    steered("inpaint-60", "sd1", control(end=0.5), pipeline="inpainting", image="picture.png", mask="mask.png", strength=0.6,
            guess_mode=True),
    steered("inpaint9", "inpaint9", control("inpaint9", weight=0.7), pipeline="inpainting", image="picture.png", mask="mask.png",
            strength=1.0),
    steered("xl", "sdxl", control("sdxl", weight=0.8)),
    steered("xl-guessing", "sdxl", control("sdxl", end=0.7), guess_mode=True),
    steered("xl-batch", "sdxl", control("sdxl", weight=0.6), prompt=[CAT, BOAT], images_per_prompt=2),
    steered("xl-img2img", "sdxl", control("sdxl", start=0.3), pipeline="image-to-image", image="picture.png", strength=0.6),
    steered("adapter", "sd1", control("adapter", weight=0.8), scheduler="ddim"),
    steered("adapter-grey", "sd1", control("adapter-grey", "mask.png", weight=0.5), images_per_prompt=2, scheduler="ddim"),
    steered("adapters", "sd1", control("adapter", weight=0.6), control("adapter", "picture-37x50.png", weight=0.4), guidance=1.0, scheduler="euler"),
    steered("adapter-xl", "sdxl", control("adapter-xl", weight=0.7)),
    steered("adapter-xl-part", "sdxl", control("adapter-xl", end=0.45), guidance=3.0),
]
PIPELINES = {
    ("control", "text-to-image", False): diffusers.StableDiffusionControlNetPipeline,
    ("control", "image-to-image", False): diffusers.StableDiffusionControlNetImg2ImgPipeline,
    ("control", "inpainting", False): diffusers.StableDiffusionControlNetInpaintPipeline,
    ("control", "text-to-image", True): diffusers.StableDiffusionXLControlNetPipeline,
    ("control", "image-to-image", True): diffusers.StableDiffusionXLControlNetImg2ImgPipeline,
    ("adapter", "text-to-image", False): diffusers.StableDiffusionAdapterPipeline,
    ("adapter", "text-to-image", True): diffusers.StableDiffusionXLAdapterPipeline,
}


# The published sizes, whose shapes alone are written.
PUBLISHED = {
    "sd15": dict(cross_attention_dim=768),
    "sd21": dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
    "sdxl": dict(cross_attention_dim=2048, attention_head_dim=[5, 10, 20], use_linear_projection=True, block_out_channels=[320, 640, 1280],
                 down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], addition_embed_type="text_time",
                 transformer_layers_per_block=[1, 2, 10], addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
    # A distilled one, with less attention.
    "sdxl-small": dict(cross_attention_dim=2048, attention_head_dim=[5, 10, 20], use_linear_projection=True,
                       block_out_channels=[320, 640, 1280], down_block_types=["DownBlock2D"] * 3, addition_embed_type="text_time",
                       transformer_layers_per_block=[1, 1, 1], addition_time_embed_dim=256,
                       projection_class_embeddings_input_dim=2816),
}


# MARK: networks


def make_network(name, seed):
    kind, config = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    network = kind(**config).eval()
    randomise(network, generator)
    for key, parameter in network.named_parameters():
        # What is added should not drown what it is added to. Pictures never have a mean of 0.
        if key.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            parameter.data *= 0.5
    network.half().save_pretrained(HERE / name, max_shard_size="160KB")
    return network.float()


def original_control(network):
    """The names of the original code; that they are right is checked with diffusers' converter."""
    state = network.half().state_dict()
    inner = {key: value for key, value in state.items() if not key.startswith("controlnet")}
    result = original_unet(inner, {**network.config, "up_block_types": []})
    result = {key.replace("model.diffusion_model.", "control_model."): value for key, value in result.items()}
    hints = ["conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out"]
    for kind in ("weight", "bias"):
        for index, hint in enumerate(hints):
            result[f"control_model.input_hint_block.{2 * index}.{kind}"] = state[f"controlnet_cond_embedding.{hint}.{kind}"]
        for index in range(len(network.controlnet_down_blocks)):
            result[f"control_model.zero_convs.{index}.0.{kind}"] = state[f"controlnet_down_blocks.{index}.{kind}"]
        result[f"control_model.middle_block_out.0.{kind}"] = state[f"controlnet_mid_block.{kind}"]
    converted = convert_controlnet_checkpoint(dict(result), network.config)
    assert converted.keys() == state.keys(), converted.keys() ^ state.keys()
    assert all(torch.equal(converted[key], state[key]) for key in state)
    network.float()
    return result


def original_adapter(network):
    """The original counts the layers of all levels in one list."""
    layers, result = network.config["num_res_blocks"], {}
    for key, value in network.half().state_dict().items():
        part = key.removeprefix("adapter.").split(".")
        if part[0] == "body":
            block = int(part[1]) * layers
            part = ["body", str(block), *part[2:]] if part[2] == "in_conv" else ["body", str(block + int(part[3])), *part[4:]]
        result[".".join(part)] = value
    network.float()
    return result


# MARK: single passes


def control_pass(network, timestep, generator):
    config = network.config
    scale = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    inputs = dict(sample=torch.randn(2, config["in_channels"], 4, 6, generator=generator),
                  encoder_hidden_states=torch.randn(2, 7, config["cross_attention_dim"], generator=generator),
                  controlnet_cond=torch.rand(2, config["conditioning_channels"], 4 * scale, 6 * scale, generator=generator))
    more = told(config, 2, generator) or {}

    def run(**how):
        skips, middle = network(timestep=timestep, **inputs, added_cond_kwargs=more, return_dict=False, **how)
        # Means are the same everywhere.
        sizes = [recorded_sizes[index] for index in range(len(skips))]
        skips = [skip.expand(*skip.shape[:2], *size) for skip, size in zip(skips, sizes)]
        return {**{f"{index}": skip for index, skip in enumerate(skips)}, "middle": middle.expand(*middle.shape[:2], *sizes[-1])}

    recorded_sizes = []
    hooks = [part.register_forward_hook(lambda _, __, output: recorded_sizes.append(output.shape[2:]))
             for part in network.controlnet_down_blocks]
    said, outputs = recorded(network, lambda: run(conditioning_scale=0.7))
    with torch.no_grad():
        guessed = run(conditioning_scale=0.9, guess_mode=True)
    for hook in hooks:
        hook.remove()
    tensors = {f"input.{key}": value for key, value in {**inputs, **more}.items()}
    return tensors | outputs | {f"output.{key}": value for key, value in said.items()} | {f"output.guess.{key}": value
                                                                                         for key, value in guessed.items()}


def adapter_pass(network, generator):
    config = network.config
    picture = torch.rand(2, config["in_channels"], 5 * config["downscale_factor"], 6 * config["downscale_factor"], generator=generator)
    with torch.no_grad():
        features = network(picture)
    return {"input.controlnet_cond": picture, **{f"output.{index}": value for index, value in enumerate(features)}}


# MARK: whole pipelines


def opened(picture, network):
    pictures = [Image.open(INPUTS / name) for name in ([picture] if isinstance(picture, str) else picture)]
    grey = network.config["in_channels"] == 1
    pictures = [one.convert("L") if grey else one for one in pictures]
    return pictures if len(pictures) > 1 else pictures[0]


def run(given, dtype):
    folder, controls = HERE.parent / "models" / given["model"], given["controls"]
    is_xl, is_adapter = given["model"] == "sdxl", controls[0]["network"].startswith("adapter")
    networks = [NETWORKS[one["network"]][0].from_pretrained(HERE / one["network"], dtype=dtype) for one in controls]
    multiple = MultiAdapter if is_adapter else MultiControlNetModel
    network = networks[0] if len(networks) == 1 else multiple(networks)
    pictures = [opened(one["picture"], one_network) for one, one_network in zip(controls, networks)]
    picture, weights = pictures[0], [one["weight"] for one in controls]
    if len(networks) > 1:
        picture = pictures
    else:
        weights = weights[0]
    absent = dict(add_watermarker=False) if is_xl else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    kind = PIPELINES["adapter" if is_adapter else "control", given["pipeline"], is_xl]
    pipeline = kind.from_pretrained(folder, dtype=dtype, **{"adapter" if is_adapter else "controlnet": network}, **absent)
    # diffusers looks for the final norm where transformers 4 has it.
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    pipeline.set_progress_bar_config(disable=True)
    if "scheduler" in given:
        scheduler, more = SCHEDULERS[given["scheduler"]]
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **more)
    draws, latents, timesteps, tensors = [], [], [], {}

    def record(_, __, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values["latents"])
        return values

    arguments = dict(prompt=given["prompts"], num_inference_steps=given["steps"], guidance_scale=given["guidance"], output_type="pt",
                     num_images_per_prompt=given.get("images_per_prompt", 1), generator=torch.Generator().manual_seed(given["seed"]))
    arguments |= {key: given[key] for key in ("width", "height", "strength", "guess_mode") if key in given}
    if "callback_on_step_end" in inspect.signature(kind.__call__).parameters:
        arguments["callback_on_step_end"] = record
    else:
        arguments["callback"] = lambda _, timestep, state: record(None, None, timestep, dict(latents=state.clone()))
    if is_adapter:
        arguments |= dict(image=picture, adapter_conditioning_scale=weights)
        if is_xl:
            arguments["adapter_conditioning_factor"] = controls[0]["end"]
    else:
        arguments |= dict(controlnet_conditioning_scale=weights, control_guidance_start=[one["start"] for one in controls],
                          control_guidance_end=[one["end"] for one in controls])
        arguments["image" if given["pipeline"] == "text-to-image" else "control_image"] = picture
    for key, argument in {"image": "image", "mask": "mask_image"}.items():
        if key in given:
            arguments[argument] = Image.open(INPUTS / given[key])
    with drawing(draws, dtype):
        result = pipeline(**arguments).images
    # One of the pipelines does not know `pt`.
    result = result if torch.is_tensor(result) else torch.from_numpy(result).permute(0, 3, 1, 2)
    tensors |= {f"draw.{i}": drawn for i, drawn in enumerate(draws)} | {f"latents.{i}": state for i, state in enumerate(latents)}
    return timesteps, tensors | {"latents": latents[-1], "image": result}


def shapes():
    result = {}
    for name, config in PUBLISHED.items():
        with torch.device("meta"):
            network = ControlNetModel(**config)
        result[name] = dict(configuration=dict(network.config), tensors={key: list(value.shape) for key, value in network.state_dict().items()})
    return result


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    passes = []
    for seed, (name, (kind, _)) in enumerate(NETWORKS.items()):
        network, generator = make_network(name, 2000 + seed), torch.Generator().manual_seed(2100 + seed)
        if kind is ControlNetModel:
            tensors = control_pass(network, 321.0, generator)
        else:
            tensors = adapter_pass(network, generator)
        passes.append(dict(name=name, files=save(tensors, HERE / "reference", f"pass-{name}"), timestep=321.0))
        if name.startswith("original"):
            original = original_control(network) if kind is ControlNetModel else original_adapter(network)
            save_file({key: value.contiguous().clone() for key, value in original.items()}, HERE / f"{name}.safetensors")
    pipelines = []
    for given in CASES:
        timesteps, tensors = run(given, torch.float32)
        precise = run(given, torch.float64)[1]["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        tensors = worth_keeping(given, tensors)
        pipelines.append({**given, "files": save(tensors, HERE / "reference", given["name"]), "timesteps": timesteps,
                          "draws": [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")],
                          "float64_deviation": float(f"{deviation:.1e}")})
        print(given["name"], f"{deviation:.1e}")
    (HERE / "shapes.json").write_text(json.dumps(shapes(), separators=(",", ":")) + "\n")
    write_json(HERE / "cases.json", dict(passes=passes, pipelines=pipelines))


if __name__ == "__main__":
    main()
