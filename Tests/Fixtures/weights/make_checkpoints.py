#!/usr/bin/env python3
"""Writes tiny random models as single files with the keys of the original latent diffusion code, and what diffusers makes of them.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23 safetensors==0.8.0   # the versions that made the committed files
    python make_checkpoints.py

For each model: NAME.safetensors, the checkpoint; NAME.json, diffusers' names with each tensor's shape and a hash of its bytes, and
diffusers' configurations; NAME-reference.safetensors, inputs and outputs of the networks in float32. For the published sizes only
shapes: sd15-shapes.json and sd21-shapes.json. The mapping here goes from diffusers to the original; that it is right is checked with
diffusers' own converters, which go the other way.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = Path(__file__).resolve().parent

CROSS, PLAIN = "CrossAttn", ""


def unet_config(levels, **more):
    return dict(down_block_types=[f"{kind}DownBlock2D" for kind in levels], up_block_types=[f"{kind}UpBlock2D" for kind in reversed(levels)],
                in_channels=4, out_channels=4, **more)


def vae_config(channels, **more):
    return dict(block_out_channels=channels, down_block_types=["DownEncoderBlock2D"] * len(channels), latent_channels=4,
                up_block_types=["UpDecoderBlock2D"] * len(channels), **more)


TINY = {
    "sd1": dict(
        unet=unet_config([CROSS, PLAIN], block_out_channels=[8, 8], layers_per_block=2, norm_num_groups=8, cross_attention_dim=16,
                         attention_head_dim=8, sample_size=256),
        vae=vae_config([4, 8], layers_per_block=1, norm_num_groups=4, sample_size=512),
        text=dict(vocab_size=90, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
                  max_position_embeddings=12, hidden_act="quick_gelu", bos_token_id=88, eos_token_id=89),
        open_clip=False,
    ),
    "sd2": dict(
        unet=unet_config([CROSS, CROSS], block_out_channels=[4, 12], layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
                         attention_head_dim=[1, 1], use_linear_projection=True, sample_size=192),
        vae=vae_config([4, 8, 4], layers_per_block=1, norm_num_groups=4, sample_size=768),
        text=dict(vocab_size=90, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
                  max_position_embeddings=12, hidden_act="gelu", bos_token_id=88, eos_token_id=89),
        open_clip=True,
    ),
}

# SDXL's base, its refiner, and a distilled U-Net (SSD-1B's kind): pooled texts of 24 and 6 or 5 numbers of 4 channels each.
XL_VAE = dict(vae_config([4, 4], layers_per_block=1, norm_num_groups=4, sample_size=1024, scaling_factor=0.13025))
XL_TEXT = dict(vocab_size=90, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=12,
               hidden_act="quick_gelu", bos_token_id=88, eos_token_id=89)
XL_TEXT_2 = dict(XL_TEXT, hidden_size=12, intermediate_size=24, hidden_act="gelu", projection_dim=24)


def xl_unet(levels, numbers, **more):
    return unet_config(levels, norm_num_groups=4, attention_head_dim=[1] * len(levels), use_linear_projection=True, sample_size=512,
                       addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=24 + 4 * numbers,
                       **more)


TINY["sdxl"] = dict(
    unet=xl_unet([PLAIN, CROSS], 6, block_out_channels=[4, 12], layers_per_block=1, cross_attention_dim=28,
                 transformer_layers_per_block=2),
    vae=XL_VAE, text=XL_TEXT, text_2=XL_TEXT_2)
TINY["refiner"] = dict(
    unet=xl_unet([PLAIN, CROSS, PLAIN], 5, block_out_channels=[4, 12, 12], layers_per_block=1, cross_attention_dim=12,
                 transformer_layers_per_block=2),
    vae=XL_VAE, text_2=XL_TEXT_2)
TINY["ssd"] = dict(
    unet=xl_unet([PLAIN, CROSS], 6, block_out_channels=[4, 12], layers_per_block=2, cross_attention_dim=28, mid_block_type="UNetMidBlock2D",
                 transformer_layers_per_block=[1, [2, 1]], reverse_transformer_layers_per_block=[[1, 2, 1], 1]),
    vae=XL_VAE, text=XL_TEXT, text_2=XL_TEXT_2)

CLIP_IDS = dict(vocab_size=49408, max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407)
FULL_VAE = vae_config([128, 256, 512, 512], layers_per_block=2, norm_num_groups=32)
PUBLISHED = {
    "sd15": dict(
        unet=unet_config([CROSS] * 3 + [PLAIN], block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, norm_num_groups=32,
                         cross_attention_dim=768, attention_head_dim=8, sample_size=64),
        vae=dict(FULL_VAE, sample_size=512),
        text=dict(CLIP_IDS, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu"),
        open_clip=False,
    ),
    "sd21": dict(
        unet=unet_config([CROSS] * 3 + [PLAIN], block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, norm_num_groups=32,
                         cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True, sample_size=96),
        vae=dict(FULL_VAE, sample_size=768),
        text=dict(CLIP_IDS, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"),
        open_clip=True,
    ),
}
CLIP_L = dict(CLIP_IDS, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
BIG_G = dict(CLIP_IDS, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu",
             projection_dim=1280)
PUBLISHED["sdxl"] = dict(
    unet=unet_config([PLAIN, CROSS, CROSS], block_out_channels=[320, 640, 1280], layers_per_block=2, norm_num_groups=32, sample_size=128,
                     cross_attention_dim=2048, attention_head_dim=[5, 10, 20], use_linear_projection=True, addition_embed_type="text_time",
                     addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, transformer_layers_per_block=[1, 2, 10]),
    vae=dict(FULL_VAE, sample_size=1024, scaling_factor=0.13025), text=CLIP_L, text_2=BIG_G)
PUBLISHED["sdxl-refiner"] = dict(
    unet=unet_config([PLAIN, CROSS, CROSS, PLAIN], block_out_channels=[384, 768, 1536, 1536], layers_per_block=2, norm_num_groups=32,
                     sample_size=128, cross_attention_dim=1280, attention_head_dim=[6, 12, 24, 24], use_linear_projection=True,
                     addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2560,
                     transformer_layers_per_block=4),
    vae=dict(FULL_VAE, sample_size=1024, scaling_factor=0.13025), text_2=BIG_G)


# MARK: from diffusers to the original


def original_unet(state, config):
    """The modules in the order in which the original constructs them, each with its number."""
    layers = config["layers_per_block"]
    places = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
              "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
              "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2"}
    number = 1
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            places[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            if kind.startswith(CROSS):
                places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level < len(config["down_block_types"]) - 1:
            places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        crosses = kind.startswith(CROSS)
        for layer in range(layers + 1):
            places[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            if crosses:
                places[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            if layer == layers and level < len(config["up_block_types"]) - 1:
                places[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{number}.{1 + crosses}.conv"
            number += 1
    inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
              "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    result = {}
    for name, tensor in state.items():
        place = max((p for p in places if name.startswith(p + ".")), key=len)
        rest = name[len(place) + 1:]
        if ".resnets." in place:
            module, _, parameter = rest.partition(".")
            rest = f"{inside[module]}.{parameter}"
        result[f"model.diffusion_model.{places[place]}.{rest}"] = tensor
    return result


def original_vae(state, config):
    levels = len(config["block_out_channels"])
    result = {}
    for name, tensor in state.items():
        part = name.split(".")
        tail = ["nin_shortcut" if p == "conv_shortcut" else p for p in part]
        if len(part) < 4:
            key = name.replace("conv_norm_out", "norm_out")
        elif part[1] == "mid_block" and part[2] == "resnets":
            key = ".".join([part[0], "mid", f"block_{int(part[3]) + 1}", *tail[4:]])
        elif part[1] == "mid_block":
            module = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}[part[4]]
            key = ".".join([part[0], "mid.attn_1", module, part[-1]])
            if module != "norm" and part[-1] == "weight":
                tensor = tensor[:, :, None, None]
        else:
            direction = "down" if part[1] == "down_blocks" else "up"
            level = int(part[2]) if direction == "down" else levels - 1 - int(part[2])
            kind = {"resnets": f"block.{part[4]}", "downsamplers": "downsample", "upsamplers": "upsample"}[part[3]]
            key = ".".join([part[0], direction, str(level), kind, *tail[5:]])
        result[f"first_stage_model.{key}"] = tensor
    return result


def original_clip(state):
    result = {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in state.items()}
    length = len(state["embeddings.position_embedding.weight"])
    result["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(length)[None]
    return result


def original_open_clip(state, config, whole=False):
    """The last block and the projection of version 2 are not in diffusers: any numbers take their place. SDXL has the whole tower."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"] - whole
    state = dict(state)
    for name in [] if whole else [n for n in state if n.startswith("encoder.layers.0.")]:
        state[name.replace(".0.", f".{layers}.", 1)] = torch.ones_like(state[name])
    ends = {"embeddings.token_embedding.weight": "token_embedding.weight", "final_layer_norm.weight": "ln_final.weight",
            "embeddings.position_embedding.weight": "positional_embedding", "final_layer_norm.bias": "ln_final.bias"}
    modules = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
               "self_attn.out_proj": "attn.out_proj"}
    result = {}
    for old, new in ends.items():
        result[new] = state[old]
    for layer in range(layers + 1):
        here, there = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for old, new in modules.items():
                result[f"{there}{new}.{kind}"] = state[f"{here}{old}.{kind}"]
            result[f"{there}attn.in_proj_{kind}"] = torch.cat([state[f"{here}self_attn.{p}_proj.{kind}"] for p in "qkv"])
    projection = state["text_projection.weight"].T if whole else torch.ones(hidden, hidden, dtype=result["ln_final.bias"].dtype)
    result["text_projection"] = projection.contiguous()
    result["logit_scale"] = torch.tensor(4.6)
    return {f"cond_stage_model.model.{key}": value for key, value in result.items()}


def original_xl(parts, model):
    """The embedders of SDXL: CLIP as transformers has it, then OpenCLIP; the refiner has OpenCLIP alone."""
    result = {}
    if "text" in model:
        clip = original_clip(parts["text_encoder"])
        result = {key.replace("cond_stage_model", "conditioner.embedders.0"): value for key, value in clip.items()}
    place = f"conditioner.embedders.{int('text' in model)}"
    clip = original_open_clip(parts["text_encoder_2"], model["text_2"], whole=True)
    return {**result, **{key.replace("cond_stage_model", place): value for key, value in clip.items()}}


def original(parts, model):
    if "text_2" in model:
        return {**original_unet(parts["unet"], model["unet"]), **original_vae(parts["vae"], model["vae"]), **original_xl(parts, model)}
    clip = original_open_clip(parts["text_encoder"], model["text"]) if model["open_clip"] else original_clip(parts["text_encoder"])
    return {**original_unet(parts["unet"], model["unet"]), **original_vae(parts["vae"], model["vae"]), **clip}


def check(checkpoint, parts, model):
    """diffusers' converters find in the checkpoint what it was made of."""
    if "text_2" in model:
        return check_xl(checkpoint, parts, model)
    text = CLIPTextModel(CLIPTextConfig(**model["text"]))
    if model["open_clip"]:
        # diffusers leaves out block 23; here the last one has another number.
        last = f"resblocks.{model['text']['num_hidden_layers']}."
        kept = {k: v for k, v in checkpoint.items() if last not in k and not k.endswith("text_projection")}
        text_state = convert_open_clip_checkpoint(text, kept)
    else:
        text_state = convert_ldm_clip_checkpoint(checkpoint)
    text_state = {key.removeprefix("text_model."): value for key, value in text_state.items() if not key.endswith("position_ids")}
    converted = dict(unet=convert_ldm_unet_checkpoint(checkpoint, model["unet"]), text_encoder=text_state,
                     vae=convert_ldm_vae_checkpoint(checkpoint, model["vae"]))
    for part, state in converted.items():
        assert state.keys() == parts[part].keys(), (part, state.keys() ^ parts[part].keys())
        for name, tensor in state.items():
            assert tensor.shape == parts[part][name].shape and torch.equal(tensor, parts[part][name]), (part, name)


def check_xl(checkpoint, parts, model):
    # diffusers' converter knows one middle alone.
    if "mid_block_type" not in model["unet"]:
        same(convert_ldm_unet_checkpoint(checkpoint, model["unet"]), parts["unet"])
    same(convert_ldm_vae_checkpoint(checkpoint, model["vae"]), parts["vae"])
    if "text" in model:
        same({k.removeprefix("text_model."): v for k, v in convert_ldm_clip_checkpoint(checkpoint).items() if not k.endswith("position_ids")},
             parts["text_encoder"])
    text = CLIPTextModelWithProjection(CLIPTextConfig(**model["text_2"]))
    # diffusers' converter asks for the width of the published model.
    prefix = f"conditioner.embedders.{int('text' in model)}.model."
    shaped = {**checkpoint, prefix + "text_projection": checkpoint[prefix + "text_projection"].clone()}
    state = convert_open_clip_checkpoint(text, shaped, prefix=prefix)
    same({k.removeprefix("text_model."): v for k, v in state.items() if not k.endswith("position_ids")}, parts["text_encoder_2"])


def same(found, expected):
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name, tensor in found.items():
        assert tensor.shape == expected[name].shape and torch.equal(tensor, expected[name]), name


# MARK: files


def fnv(tensor):
    """FNV-1a over 64 bits."""
    value = 0xCBF29CE484222325
    for byte in tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor[None].view(torch.uint8).numpy().tobytes():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def networks(model):
    result = dict(unet=UNet2DConditionModel(**model["unet"]), vae=AutoencoderKL(**model["vae"]))
    if "text" in model:
        result["text_encoder"] = CLIPTextModel(CLIPTextConfig(**model["text"]))
    if "text_2" in model:
        result["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**model["text_2"]))
    return result


def state_of(part):
    return {k.removeprefix("text_model."): v for k, v in part.state_dict().items() if not k.endswith("position_ids")}


def configurations_of(model):
    names = dict(unet="unet", vae="vae", text="text_encoder", text_2="text_encoder_2")
    return {names[part]: model[part] for part in names if part in model}


def randomise(module, generator):
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = (1 + 0.25 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise).half()
        else:
            parameter.data = (noise / parameter[0].numel() ** 0.5 * (4 if "embedding.weight" in name else 1)).half()


@torch.no_grad()
def reference(parts, model, generator):
    if "text_2" in model:
        return reference_xl(parts, model, generator)
    side, length = 8, model["text"]["max_position_embeddings"]
    parts = {name: part.float().eval() for name, part in parts.items()}
    ids = torch.randint(0, model["text"]["bos_token_id"], (1, length), generator=generator)
    ids[0, 0], ids[0, -2:] = model["text"]["bos_token_id"], model["text"]["eos_token_id"]
    states = parts["text_encoder"](ids).last_hidden_state
    latents = torch.randn(1, 4, side, side, generator=generator)
    prediction = parts["unet"](latents, 321.0, states).sample
    picture = parts["vae"].decode(latents).sample
    moments = parts["vae"]._encode(picture)
    return dict(ids=ids.float(), states=states, latents=latents, prediction=prediction, picture=picture, moments=moments)


@torch.no_grad()
def reference_xl(parts, model, generator):
    parts = {name: part.float().eval() for name, part in parts.items()}
    text = model["text_2"]
    ids = torch.randint(0, text["bos_token_id"], (1, text["max_position_embeddings"]), generator=generator)
    ids[0, 0], ids[0, -2:] = text["bos_token_id"], text["eos_token_id"]
    outputs = [parts[name](ids, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2") if name in parts]
    states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
    numbers = torch.randint(0, 64, (1, (model["unet"]["projection_class_embeddings_input_dim"] - 24) // 4), generator=generator).float()
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    told = dict(text_embeds=outputs[-1].text_embeds, time_ids=numbers)
    prediction = parts["unet"](latents, 321.0, states, added_cond_kwargs=told).sample
    return dict(ids=ids.float(), states=states, pooled=outputs[-1].text_embeds, numbers=numbers, latents=latents, prediction=prediction,
                picture=parts["vae"].decode(latents).sample)


def make_tiny(name, model, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = networks(model)
    for part in parts.values():
        randomise(part, generator)
    states = {name: {k: v.clone() for k, v in state_of(part).items()} for name, part in parts.items()}
    checkpoint = original(states, model)
    check(checkpoint, states, model)
    # What the original's training leaves in its checkpoints besides.
    checkpoint["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 10) ** 2
    checkpoint["model_ema.decay"] = torch.tensor(0.9999)
    checkpoint["model_ema.diffusion_modelout2bias"] = torch.zeros(4)
    checkpoint["first_stage_model.loss.logvar"] = torch.zeros(1)
    checkpoint["global_step"] = torch.tensor(470000)
    save_file({k: v.contiguous().clone() for k, v in checkpoint.items()}, HERE / f"{name}.safetensors")
    tensors = {part: {k: dict(shape=list(v.shape), hash=fnv(v)) for k, v in state.items()} for part, state in states.items()}
    configurations = configurations_of(model)
    write_json(f"{name}.json", dict(tensors=tensors, configurations=configurations))
    save_file({k: v.contiguous() for k, v in reference(parts, model, generator).items()}, HERE / f"{name}-reference.safetensors")


def make_shapes(name, model):
    with torch.device("meta"):
        parts = networks(model)
        states = {name: state_of(part) for name, part in parts.items()}
        checkpoint = original(states, model)
    shapes = {key: list(value.shape) for key, value in checkpoint.items()}
    # Of SDXL's thousands of tensors one in a hundred, and no autoencoder: all kinds are in the tiny models.
    some = 100 if "text_2" in model else 1
    if "text_2" in model:
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith("first_stage_model.")}
        states.pop("vae")
    tensors = {part: {k: list(v.shape) for k, v in list(state.items())[::some]} for part, state in states.items()}
    configurations = {part: value for part, value in configurations_of(model).items() if part in states}
    write_json(f"{name}-shapes.json", dict(checkpoint=shapes, tensors=tensors, configurations=configurations))


def write_json(name, value):
    (HERE / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    torch.set_num_threads(1)
    for seed, (name, model) in enumerate(TINY.items()):
        make_tiny(name, model, seed)
    for name, model in PUBLISHED.items():
        make_shapes(name, model)
    for path in sorted(HERE.glob("*")):
        path.chmod(0o644)
        print(f"{path.stat().st_size:>8} {path.name}")


if __name__ == "__main__":
    main()
