"""Makes loops.safetensors: twenty steps of diffusers' training loops on the tiny model `sd1`, with given latents, noise, timesteps and texts.

    pip install -r ../models/requirements.txt peft
    python make_loops.py

`full` trains the whole U-Net as `train_text_to_image.py` does, `lora` low-rank changes of the attention layers as `train_text_to_image_lora.py` does, `convolutions`
such changes of convolutions and gated layers too. PyTorch computes in float32, as the scripts do. The file has the inputs of each step, and for each loop the losses,
the root mean square of how much each parameter has moved in the end, and the moves of some of its values.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent / "models" / "sd1"
STEPS, BATCH, SAMPLES = 20, 2, 5

generator = torch.Generator().manual_seed(7)
config = UNet2DConditionModel.load_config(MODEL / "unet")
latents = torch.randn(BATCH, 4, 8, 8, generator=generator)
states = torch.randn(BATCH, 7, config["cross_attention_dim"], generator=generator)
noise = torch.randn(STEPS, BATCH, 4, 8, 8, generator=generator)
timesteps = torch.randint(0, 1000, (STEPS, BATCH), generator=generator)
tensors = {"latents": latents, "states": states, "noise": noise, "timesteps": timesteps.float()}


def formula(shape, seed):
    i = torch.arange(torch.Size(shape).numel()) + 131 * seed
    return ((i * 7919 % 1000).float() / 500 - 1).reshape(shape)


def train(name, unet, rate):
    trained = [(key, value) for key, value in unet.named_parameters() if value.requires_grad]
    start = {key: value.detach().clone() for key, value in trained}
    optimizer = torch.optim.AdamW([value for _, value in trained], lr=rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    scheduler = DDPMScheduler.from_pretrained(MODEL / "scheduler")
    losses = []
    for step in range(STEPS):
        noisy = scheduler.add_noise(latents, noise[step], timesteps[step])
        prediction = unet(noisy, timesteps[step], states, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), noise[step].float(), reduction="mean")
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([value for _, value in trained], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    tensors[f"{name}.losses"] = torch.tensor(losses)
    for key, value in trained:
        moved = (value.detach() - start[key]).flatten().double()
        n = min(len(moved), SAMPLES)
        key = key.replace(".default", "").replace(".base_layer", "")
        tensors[f"{name}.{key}"] = torch.cat([moved.pow(2).mean().sqrt().reshape(1), moved[[i * len(moved) // n for i in range(n)]]]).float()
    print(name, len(trained), "parameters, losses from", losses[0], "to", losses[-1])


def low_rank(name, targets, rank, alpha):
    unet = UNet2DConditionModel.from_pretrained(MODEL / "unet")
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    trained = [(key, value) for key, value in unet.named_parameters() if value.requires_grad]
    with torch.no_grad():
        for index, (key, value) in enumerate(trained):
            # Both factors begin with numbers of a formula, so that the first step moves both.
            value.copy_(0.1 * formula(value.shape, len(key)))
    train(name, unet, 1e-3)


train("full", UNet2DConditionModel.from_pretrained(MODEL / "unet"), 1e-4)
low_rank("lora", ["to_k", "to_q", "to_v", "to_out.0"], 4, 4)
low_rank("convolutions", ["to_q", "conv1", "conv2", "conv_shortcut", "ff.net.0.proj", "proj_in", "time_emb_proj", "conv"], 3, 6)
path = HERE / "loops.safetensors"
save_file({key: value.contiguous() for key, value in tensors.items()}, path)
assert path.stat().st_size < 200_000, path.stat().st_size
print(path.name, path.stat().st_size, "bytes")
