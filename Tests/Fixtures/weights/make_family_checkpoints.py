#!/usr/bin/env python3
"""Writes a depth-conditioned model and an upscaler as single files of the original code, as make_checkpoints.py writes others.

    python make_family_checkpoints.py    # the same versions

For each: NAME.safetensors, the checkpoint; NAME.json, diffusers' configurations; NAME-reference.safetensors, inputs and outputs in float32.
"""

import torch
from make_checkpoints import CROSS, HERE, PLAIN, check, networks, original_open_clip, original_unet, original_vae, randomise, vae_config
from make_checkpoints import unet_config, write_json
from safetensors.torch import save_file

TEXT = dict(vocab_size=90, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=12,
            hidden_act="gelu", bos_token_id=88, eos_token_id=89)
MODELS = {
    "depth": dict(
        unet=unet_config([CROSS, PLAIN], block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
                         attention_head_dim=[1, 1], use_linear_projection=True, sample_size=128) | dict(in_channels=5),
        vae=vae_config([4, 8, 4], layers_per_block=1, norm_num_groups=4, sample_size=512, scaling_factor=0.18215),
        text=TEXT, open_clip=True),
    # Its first level attends to the text alone, its middle to itself, too.
    "upscaler": dict(
        unet=unet_config([CROSS, PLAIN], block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
                         attention_head_dim=8, use_linear_projection=True, only_cross_attention=[True, False], num_class_embeds=20,
                         sample_size=128) | dict(in_channels=7),
        vae=vae_config([4, 4, 8], layers_per_block=1, norm_num_groups=4, sample_size=512, scaling_factor=0.08333),
        text=TEXT, open_clip=True),
}


def original(parts, model):
    state = dict(parts["unet"])
    labels = state.pop("class_embedding.weight", None)
    result = {**original_unet(state, model["unet"]), **original_vae(parts["vae"], model["vae"]),
              **original_open_clip(parts["text_encoder"], model["text"])}
    return result if labels is None else {**result, "model.diffusion_model.label_emb.weight": labels}


def main():
    torch.set_num_threads(1)
    for seed, (name, model) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(30 + seed)
        parts = networks(model)
        for part in parts.values():
            randomise(part, generator)
        states = {name: {k: v.clone() for k, v in part.state_dict().items() if not k.endswith("position_ids")} for name, part in parts.items()}
        checkpoint = original(states, model)
        check(checkpoint, states, model)
        # What nobody needs of such files.
        checkpoint["depth_model.model.pretrained.model.cls_token" if name == "depth" else "low_res_model.betas"] = torch.zeros(4)
        checkpoint["global_step"] = torch.tensor(100000)
        save_file({k: v.contiguous().clone() for k, v in checkpoint.items()}, HERE / f"{name}.safetensors")
        write_json(f"{name}.json", dict(configurations=dict(unet=model["unet"], vae=model["vae"], text_encoder=model["text"])))
        latents = torch.randn(1, model["unet"]["in_channels"], 8, 8, generator=generator)
        states = torch.randn(1, 5, 16, generator=generator)
        more = dict(class_labels=torch.tensor([13])) if "num_class_embeds" in model["unet"] else {}
        with torch.no_grad():
            prediction = parts["unet"].float().eval()(latents, 321.0, states, **more).sample
        save_file(dict(latents=latents, states=states, prediction=prediction), HERE / f"{name}-reference.safetensors")
        print(name, (HERE / f"{name}.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
