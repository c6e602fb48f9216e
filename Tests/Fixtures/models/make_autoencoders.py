#!/usr/bin/env python3
"""Makes the tiny autoencoders beside this script that take the place of sd1's, and the reference results for them. See README.md.

    python make_autoencoders.py          # after make_models.py
"""

import copy
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import sys

import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, VQModel
from diffusers.utils import logging
from safetensors.torch import load_file, save_file
from torch import nn

from configurations import randomise, write_json
from make_models import HERE, end_to_end, save
from passes import decode_pass, encode_pass, recorded

sys.path.append(str(HERE.parent / "weights"))
from make_checkpoints import original_vae


class Quantized(VQModel):
    """The pipelines hand over a generator, which VQModel does not take."""

    def decode(self, latents, generator=None, **more):
        return super().decode(latents, **more)


def tiny(encoder, decoder, width=8, **more):
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * len(encoder), decoder_block_out_channels=(width + 4,) * len(decoder),
        num_encoder_blocks=encoder, num_decoder_blocks=decoder, **more)


MODELS = {
    "taesd": lambda: tiny((1, 2, 1), (2, 1, 1)),
    "taesd4": lambda: tiny((1, 0, 1), (1, 1), act_fn="silu", upsampling_scaling_factor=4, latent_channels=5, scaling_factor=0.7),
    "vq": lambda: Quantized(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"), norm_num_groups=8, latent_channels=6,
        vq_embed_dim=4, num_vq_embeddings=24, scaling_factor=0.6),
    "asymmetric": lambda: AsymmetricAutoencoderKL(
        down_block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, layers_per_down_block=1,
        up_block_out_channels=(4, 8, 12), up_block_types=("UpDecoderBlock2D",) * 3, layers_per_up_block=2, norm_num_groups=4),
}
SIDES, LATENT_SIDES = (16, 24), (4, 6)


def encoded(model, picture):
    result = model.encode(picture)
    return result.latents if hasattr(result, "latents") else result.latent_dist.mean


def scaled(layer, factor):
    for parameter in layer.parameters():
        parameter.data *= factor


def make(name, folder, generator):
    """Latents of standard deviation about one once scaled, and pictures that fill -1…1."""
    model = MODELS[name]().eval()
    randomise(model, generator)
    quantizes = isinstance(model, VQModel)
    is_tiny = isinstance(model, AutoencoderTiny)
    last, out = (model.encoder.layers[-1], model.decoder.layers[-1]) if is_tiny else (model.quant_conv, model.decoder.conv_out)
    channels = model.config.vq_embed_dim if quantizes else model.config.latent_channels
    with torch.no_grad():
        picture = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
        scaled(last, 0.9 / model.config.scaling_factor / encoded(model, picture).std())
        if quantizes:
            model.quantize.embedding.weight /= model.config.scaling_factor
        decoded = model.decode(torch.randn(2, channels, 8, 8, generator=generator) / model.config.scaling_factor).sample
        scaled(out, 0.45 / decoded.std())
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder / "vae")
    path = folder / "vae/config.json"
    path.write_text(path.read_text().replace("Quantized", "VQModel"))


def passes(model, channels, generator):
    if isinstance(model, AsymmetricAutoencoderKL):
        result = {"vae-encode": encode_pass(model, 1, SIDES, generator), "vae-decode": decode_pass(model, 1, SIDES, generator)}
        shown = torch.rand(1, 3, *SIDES, generator=generator) * 2 - 1, (torch.rand(1, 1, *SIDES, generator=generator) > 0.5).float()
        latents = result["vae-decode"]["input"]
        decoded, blocks = recorded(model, lambda: model.decode(latents, None, *shown).sample)
        result["vae-decode-masked"] = {"input": latents, "input.image": shown[0], "input.mask": shown[1], **blocks, "output": decoded}
        return result
    picture = torch.rand(2, 3, *SIDES, generator=generator) * 2 - 1
    latents = torch.randn(2, channels, *LATENT_SIDES, generator=generator) / model.config.scaling_factor
    output, encoder = recorded(model, lambda: model.encode(picture).latents)
    decoded, decoder = recorded(model, lambda: model.decode(latents).sample)
    if isinstance(model, VQModel):
        distances = torch.cdist(latents.permute(0, 2, 3, 1).flatten(0, 2), model.quantize.embedding.weight).sort().values
        assert (distances[:, 1] - distances[:, 0]).min() > 1e-3, "two codes are about as near: no case to compare with"
    return {"vae-encode": {"input": picture, **encoder, "output": output}, "vae-decode": {"input": latents, **decoder, "output": decoded}}


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        layers = [layer for _ in range(3) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, x):
        return (self.conv(x) + x).relu()


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def original_vq(model, folder):
    """The original's names, which converters of diffusers do not know for attention at a level of its own."""
    attentions = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
    levels, result = len(model.config.block_out_channels), {}
    for name, tensor in model.half().state_dict().items():
        part = name.split(".")
        if len(part) > 5 and part[3] == "attentions":
            level = part[2] if part[1] == "down_blocks" else str(levels - 1 - int(part[2]))
            kernel = part[5] != "group_norm" and part[-1] == "weight"
            key = ".".join([part[0], part[1].removesuffix("_blocks"), level, "attn", part[4], attentions[part[5]], part[-1]])
            result[key] = tensor[:, :, None, None] if kernel else tensor
        else:
            result |= {key.removeprefix("first_stage_model."): value for key, value in original_vae({name: tensor}, model.config).items()}
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in result.items()}, folder / "vq.safetensors")


def original_taesd(model, folder):
    """The original's two files: its decoder begins with a clamp, which has the number 0."""
    config, state = model.config, model.state_dict()
    channels, layers = config.decoder_block_out_channels[0], []
    for level, count in enumerate(config.num_decoder_blocks):
        last = level == len(config.num_decoder_blocks) - 1
        layers += [Block(channels) for _ in range(count)] + ([] if last else [nn.Upsample(scale_factor=2)])
        layers += [nn.Conv2d(channels, 3 if last else channels, 3, padding=1, bias=last)]
    decoder = nn.Sequential(Clamp(), nn.Conv2d(config.latent_channels, channels, 3, padding=1), nn.ReLU(), *layers)
    half = lambda name: {key.removeprefix(f"{name}.layers."): value.half().contiguous() for key, value in state.items()
                         if key.startswith(f"{name}.layers.")}
    moved = {f"{int(key.split('.', 1)[0]) + 1}.{key.split('.', 1)[1]}": value for key, value in half("decoder").items()}
    decoder.load_state_dict({key: value.float() for key, value in moved.items()}, strict=True)
    latents = torch.randn(1, config.latent_channels, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (decoder(latents) * 2 - 1 - model.decode(latents).sample).abs().max() < 1e-5
    folder.mkdir()
    save_file(moved, folder / "taesd_decoder.safetensors")
    save_file(half("encoder"), folder / "taesd_encoder.safetensors")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for index, name in enumerate(MODELS):
        folder, generator = HERE / name, torch.Generator().manual_seed(3000 + index)
        make(name, folder, generator)
        model = MODELS[name]().eval()
        model.load_state_dict({key: value.float() for key, value in load_file(folder / "vae/diffusion_pytorch_model.safetensors").items()})
        channels = 5 if name == "taesd4" else 4
        described = {key: dict(files=save(tensors, folder / "reference", key)) for key, tensors in passes(model, channels, generator).items()}
        parts = lambda dtype: dict(vae=copy.deepcopy(model).to(dtype))
        pipelines = end_to_end(name, folder, HERE / "inputs", HERE / "sd1", parts)
        write_json(folder / "cases.json", dict(passes=described, pipelines=pipelines))
        if name == "taesd":
            original_taesd(model, folder / "original")
        if name == "vq":
            original_vq(model, folder / "original")
        print(name, "made")


if __name__ == "__main__":
    main()
