#!/usr/bin/env python3
"""Makes the tiny model `latent-upscaler`, and what diffusers makes of it: see README.md.

    python make_latent_upscaler.py       # after make_models.py, which makes the pictures
"""

import shutil

import make_models  # sets the environment before torch is loaded
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionLatentUpscalePipeline, UNet2DConditionModel
from diffusers.utils import logging
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clip_tokenizer import write_json, write_tokenizer
from configurations import BETAS, MERGES, randomise, scale_autoencoder, text, vae
from passes import recorded
from pipelines import case, drawing

FOLDER = make_models.HERE / "latent-upscaler"
# The original's blocks in the original's order, with one more level above. Groups of normalisations have 32 channels, whatever a configuration says.
UNET = dict(
    act_fn="gelu", attention_head_dim=16, block_out_channels=(32, 64, 64), conv_in_kernel=1, conv_out_kernel=1, cross_attention_dim=16,
    cross_attention_norm="layer_norm", down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"), in_channels=8,
    layers_per_block=1, mid_block_type=None, norm_num_groups=None, only_cross_attention=(False, False, True), out_channels=5,
    resnet_time_scale_shift="scale_shift", sample_size=None, time_cond_proj_dim=128 + 16, time_embedding_type="fourier",
    timestep_post_act="gelu", up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"))
SCHEDULER = dict(**BETAS, prediction_type="original_sample", interpolation_type="linear", trained_betas=None)
TIMESTEP = 0.375
CASES = [
    case("picture", "latent-upscaling", image="picture-16x16.png", guidance=9.0, seed=60),
    case("latents", "latent-upscaling", latents=[4, 4, 8], guidance=5.0, seed=61, negative_prompts=["blurred"]),
    case("unguided", "latent-upscaling", latents=[4, 8, 4], guidance=1.0, seed=62, steps=5),
    # Without guidance at all the pipeline reads no prompt.
    case("no-guidance", "latent-upscaling", image="picture-16x16.png", guidance=0.0, seed=63, steps=5),
]


def conditions(rows, generator):
    """What the network is told: that the small picture has no noise, and a pooled text."""
    noise = torch.cat([torch.ones(rows, 64), torch.zeros(rows, 64)], 1)
    return torch.cat([noise, torch.randn(rows, UNET["time_cond_proj_dim"] - 128, generator=generator)], 1)


def fit_denoiser(network, scheduler, generator):
    """Chooses conv_out, a 1×1 convolution, so that the network is a passable denoiser within the pipeline's preconditioning."""
    features, wanted = [], []
    hook = network.conv_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    scheduler.set_timesteps(24)
    for sigma in scheduler.sigmas[:-1]:
        clean, noise = (torch.randn(4, 4, 16, 16, generator=generator) for _ in range(2))
        noisy, scale = clean + sigma * noise, (sigma**2 + 1).sqrt()
        small = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(clean, 2), scale_factor=2)
        with torch.no_grad():
            network(torch.cat([noisy / scale, small], 1), sigma.log() / 4, torch.randn(4, 8, 16, generator=generator),
                    timestep_cond=conditions(4, generator))
        wanted.append((clean - noisy / scale**2) * scale / sigma)
    hook.remove()
    columns, wanted = (torch.cat(parts).permute(0, 2, 3, 1).flatten(0, 2).double() for parts in (features, wanted))
    columns = torch.cat([columns, torch.ones(len(columns), 1)], 1)
    gram = columns.T @ columns + 1e-2 * len(columns) * torch.eye(columns.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, columns.T @ wanted).float()
    weight, bias = network.conv_out.weight, network.conv_out.bias
    # The last channel is the variance, of which nobody asks.
    weight.data[:4] = solution[:-1].T.reshape(4, -1, 1, 1) + 0.1 * weight.data[:4]
    bias.data[:4] = solution[-1]


def make_model(generator):
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    count = write_tokenizer(FOLDER / "tokenizer", make_models.MERGES_FILE, 16, "<|endoftext|>", MERGES)
    ids = dict(bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1)
    parts = dict(unet=UNet2DConditionModel(**UNET), vae=AutoencoderKL(**vae((8, 16))),
                 text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=count, **ids, **text(layers=2))))
    for part in parts.values():
        randomise(part.eval(), generator)
    scheduler = EulerDiscreteScheduler(**SCHEDULER)
    parts["unet"].time_proj.weight.data.copy_(torch.randn(len(parts["unet"].time_proj.weight), generator=generator))
    fit_denoiser(parts["unet"], scheduler, generator)
    scale_autoencoder(parts["vae"], parts["vae"].config, generator)
    for part in ("unet", "vae"):
        parts[part].half().save_pretrained(FOLDER / part, max_shard_size="150KB")
    parts["text_encoder"].save_pretrained(FOLDER / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    scheduler.save_pretrained(FOLDER / "scheduler")
    StableDiffusionLatentUpscalePipeline(**parts, tokenizer=tokenizer, scheduler=scheduler).save_config(FOLDER)


def unet_pass(generator):
    network = UNet2DConditionModel.from_pretrained(FOLDER / "unet", dtype=torch.float32).eval()
    inputs = {"sample": torch.randn(2, 8, 8, 12, generator=generator), "timestep_cond": conditions(2, generator),
              "encoder_hidden_states": torch.randn(2, 7, 16, generator=generator)}
    result, outputs = recorded(network, lambda: network(timestep=torch.tensor(TIMESTEP), **inputs).sample)
    return {**{f"input.{key}": value for key, value in inputs.items()}, **outputs, "output": result}


def run(given, dtype=torch.float32):
    """Runs a case and returns its tensors. The network is told ¼ log σ in the place of the timestep."""
    pipeline = StableDiffusionLatentUpscalePipeline.from_pretrained(FOLDER, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    draws, latents, timesteps, tensors = [], [], [], {}
    if "latents" in given:
        tensors["input.latents"] = torch.randn(1, *given["latents"], generator=torch.Generator().manual_seed(99))
        picture = tensors["input.latents"].to(dtype)
    else:
        picture = Image.open(make_models.HERE / "inputs" / given["image"])
    pipeline.unet.register_forward_pre_hook(lambda _, arguments: timesteps.append(float(arguments[1])))
    with drawing(draws, dtype):
        image = pipeline(prompt=given["prompts"], negative_prompt=given.get("negative_prompts"), image=picture,
                         num_inference_steps=given["steps"], guidance_scale=given["guidance"], output_type="pt",
                         generator=torch.Generator().manual_seed(given["seed"]),
                         callback=lambda step, timestep, values: latents.append(values)).images
    tensors |= {f"draw.{i}": drawn for i, drawn in enumerate(draws)}
    tensors |= {f"latents.{i}": state for i, state in enumerate(latents)}
    return {**tensors, "latents": latents[-1], "image": image, "timesteps": torch.tensor(timesteps)}


def described(given):
    tensors, precise = run(given), run(given, torch.float64)["latents"].float()
    deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
    assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
    timesteps = tensors.pop("timesteps").tolist()
    return {**given, "files": make_models.save(tensors, FOLDER / "reference", given["name"]), "timesteps": timesteps,
            "draws": [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")],
            "float64_deviation": float(f"{deviation:.1e}")}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make_model(torch.Generator().manual_seed(5000))
    files = make_models.save(unet_pass(torch.Generator().manual_seed(5100)), FOLDER / "reference", "unet")
    write_json(FOLDER / "cases.json", dict(passes=dict(unet=dict(timestep=TIMESTEP, files=files)),
                                           pipelines=[described(given) for given in CASES]))


if __name__ == "__main__":
    main()
