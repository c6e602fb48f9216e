"""Steps of training by PyTorch: forward, backward and the update by AdamW, in float32, on noise in the place of pictures and latents."""

import argparse

import passes

# What is trained, and the pass whose network and inputs a step of it takes.
PASSES = {"train-lora": "predictor", "train-unet": "predictor", "train-autoencoder": "vae-encode"}
RANK = 16
# Source: diffusers' train_text_to_image_lora.py.
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
SCALES = 4
DIVERGENCE = 1e-6


def step(given, memory, checkpointed):
    """One step, as a function without arguments."""
    import torch

    forward = argparse.Namespace(**{**vars(given), "part": PASSES[given.part]})
    network = passes.module(forward).part.train()
    network.to(memory_format=memory)
    taken = {name: torch.from_numpy(array) for name, array in passes.inputs(forward).items()}
    taken = {name: tensor.contiguous(memory_format=memory) if tensor.ndim == 4 else tensor for name, tensor in taken.items()}
    if given.part == "train-lora":
        add_low_rank(network)
    if checkpointed:
        network.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW([parameter for parameter in network.parameters() if parameter.requires_grad], lr=1e-4)
    loss = reconstruction(network, taken) if given.part == "train-autoencoder" else prediction(given, network, taken)

    def run():
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def add_low_rank(unet):
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=ATTENTION))


def prediction(given, unet, taken):
    """How wrong the U-Net's answer about the noise is. Source: diffusers' train_text_to_image.py."""
    import torch
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_pretrained(given.model, subfolder="scheduler")
    latents, states = taken["latents"], taken["states"]
    added = {name: taken[name] for name in ("text_embeds", "time_ids") if name in taken} or None

    def loss():
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (given.batch,))
        answer = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states, added_cond_kwargs=added, return_dict=False)[0]
        return torch.nn.functional.mse_loss(answer, noise)

    return loss


def reconstruction(vae, taken):
    """How wrong a picture is that went through latents, with the losses and the weights that `ldm train autoencoder` has without options."""
    import torch

    picture = taken["picture"]

    def loss():
        distribution = vae.encode(picture, return_dict=False)[0]
        decoded = vae.decode(distribution.sample(), return_dict=False)[0]
        return torch.nn.functional.l1_loss(decoded, picture) + edges(decoded - picture) + DIVERGENCE * distribution.kl().mean()

    return loss


def edges(error):
    """How much neighbouring pixels of an error differ, at several scales. Source: arXiv 1907.01341."""
    import torch

    total = 0
    for _ in range(SCALES):
        total = total + 0.5 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
        error = torch.nn.functional.avg_pool2d(error, 2)
    return total / SCALES
