#!/usr/bin/env python3
"""Writes Stable unCLIP and the first latent diffusion models as single files of the original code, as make_checkpoints.py writes others.

    python make_early_checkpoints.py     # the same versions

For each: NAME.safetensors, the checkpoint; NAME.json, diffusers' configurations; NAME-reference.safetensors, inputs and outputs in float32.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from configurations import randomise
from make_checkpoints import CROSS, HERE, PLAIN, original_open_clip, original_unet, original_vae, same, unet_config, vae_config, write_json
from make_image_prompts import original_tower

TEXT = dict(vocab_size=90, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=12,
            hidden_act="gelu", bos_token_id=88, eos_token_id=89)
TOWER = dict(hidden_size=16, intermediate_size=32, projection_dim=12, num_hidden_layers=2, num_attention_heads=1, image_size=12, patch_size=4,
             hidden_act="gelu")
VQ = dict(vae_config([4, 8], layers_per_block=1, norm_num_groups=4, sample_size=256) | dict(latent_channels=3), vq_embed_dim=3,
          num_vq_embeddings=16, scaling_factor=1.0)
BERT = dict(vocab_size=60, max_position_embeddings=10, encoder_layers=2, encoder_ffn_dim=24, encoder_attention_heads=8, head_dim=2, d_model=16)
MODELS = {
    "unclip": dict(
        unet=unet_config([CROSS, PLAIN], block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
                         attention_head_dim=[1, 1], use_linear_projection=True, sample_size=192, class_embed_type="projection",
                         projection_class_embeddings_input_dim=24),
        vae=vae_config([4, 8, 4], layers_per_block=1, norm_num_groups=4, sample_size=768), text_encoder=TEXT, image_encoder=TOWER),
    "ldm-classes": dict(
        unet=unet_config([PLAIN, CROSS], block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=8, cross_attention_dim=12,
                         attention_head_dim=[1, 1], sample_size=128) | dict(in_channels=3, out_channels=3),
        vqvae=VQ, class_embedder=dict(n_classes=5, embed_dim=12), betas=(0.0015, 0.0195)),
    "ldm-text": dict(
        unet=unet_config([CROSS, PLAIN], block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
                         attention_head_dim=[8, 8], sample_size=64),
        vqvae=vae_config([4, 8, 4], layers_per_block=1, norm_num_groups=4, sample_size=256, scaling_factor=0.25), bert=BERT,
        betas=(0.00085, 0.012)),
    "ldm-plain": dict(
        unet=dict(block_out_channels=[4, 8], down_block_types=["DownBlock2D", "AttnDownBlock2D"], norm_num_groups=4, layers_per_block=1,
                  up_block_types=["AttnUpBlock2D", "UpBlock2D"], in_channels=3, out_channels=3, attention_head_dim=None, add_attention=True,
                  sample_size=128),
        vqvae=VQ, betas=(0.0015, 0.0155)),
}


def networks(model):
    unet = UNet2DConditionModel if "cross_attention_dim" in model["unet"] else UNet2DModel
    kinds = dict(unet=unet, vae=AutoencoderKL, vqvae=VQModel if "vq_embed_dim" in model.get("vqvae", {}) else AutoencoderKL)
    parts = {name: kind(**model[name]) for name, kind in kinds.items() if name in model}
    if "text_encoder" in model:
        parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**model["text_encoder"]))
    if "image_encoder" in model:
        parts["image_encoder"] = CLIPVisionModelWithProjection(CLIPVisionConfig(**model["image_encoder"]))
    if "bert" in model:
        parts["bert"] = LDMBertModel(LDMBertConfig(**model["bert"]))
    return parts


def original_pixel_unet(state, config):
    """The original's `AttentionBlock` has one matrix for queries, keys and values, as a convolution of length 1."""
    attentions, rest = {}, {}
    for name, tensor in state.items():
        (attentions if ".attentions." in name else rest)[name] = tensor
    crosses = dict(config, **{key: [kind.replace("Attn", CROSS) for kind in config[key]] for key in ("down_block_types", "up_block_types")})
    joined = {}
    for name, tensor in attentions.items():
        module, _, parameter = name.rpartition(".")
        if module.endswith("to_q"):
            parts = [state[f"{module[:-1]}{kind}.{parameter}"] for kind in "qkv"]
            tensor = torch.cat(parts)
            module = module.replace("to_q", "qkv")
        elif module.endswith(("to_k", "to_v")):
            continue
        module = module.replace("group_norm", "norm").replace("to_out.0", "proj_out")
        joined[f"{module}.{parameter}"] = tensor[..., None] if tensor.ndim == 2 else tensor
    return original_unet({**rest, **joined}, crosses)


def original_bert(state):
    names = {"model.embed_tokens": "token_emb", "model.embed_positions": "pos_emb.emb", "model.layer_norm": "norm", "to_logits": "to_logits"}
    inside = {"self_attn_layer_norm": (0, "0"), "self_attn.q_proj": (0, "1.to_q"), "self_attn.k_proj": (0, "1.to_k"),
              "self_attn.v_proj": (0, "1.to_v"), "self_attn.out_proj": (0, "1.to_out"), "final_layer_norm": (1, "0"),
              "fc1": (1, "1.net.0.0"), "fc2": (1, "1.net.2")}
    result = {}
    for name, tensor in state.items():
        module, _, parameter = name.rpartition(".")
        if module not in names:
            layer, _, part = module.removeprefix("model.layers.").partition(".")
            turn, there = inside[part]
            module = f"attn_layers.layers.{2 * int(layer) + turn}.{there}"
        else:
            module = names[module]
        result[f"cond_stage_model.transformer.{module}.{parameter}"] = tensor
    return result


def original(name, parts, model):
    states = {key: {k: v.clone() for k, v in part.state_dict().items() if not k.endswith("position_ids")} for key, part in parts.items()}
    autoencoder = "vae" if "vae" in states else "vqvae"
    result = original_vae(states[autoencoder], model[autoencoder])
    unet = dict(states["unet"])
    labels = {key: unet.pop(key) for key in list(unet) if key.startswith("class_embedding.")}
    result |= original_pixel_unet(unet, model["unet"]) if name == "ldm-plain" else original_unet(unet, model["unet"])
    layers = {"linear_1": "0.0", "linear_2": "0.2"}
    result |= {f"model.diffusion_model.label_emb.{layers[key.split('.')[1]]}.{key.split('.')[2]}": value for key, value in labels.items()}
    if name != "ldm-plain":
        same(convert_ldm_unet_checkpoint(result, model["unet"]), states["unet"])
    if "vq_embed_dim" not in model[autoencoder]:
        same(convert_ldm_vae_checkpoint(result, model[autoencoder]), states[autoencoder])
    if "text_encoder" in states:
        result |= original_open_clip(states["text_encoder"], model["text_encoder"])
    if "image_encoder" in states:
        result |= {f"embedder.model.{key}": value for key, value in original_tower(parts["image_encoder"]).items()}
        # What the original code leaves of the tower's other half, and the tables of the noise.
        result |= {"embedder.model.ln_final.weight": torch.ones(16), "embedder.model.logit_scale": torch.tensor(4.6),
                   "noise_augmentor.betas": torch.zeros(8), "noise_augmentor.alphas_cumprod": torch.zeros(8)}
    if "bert" in states:
        result |= original_bert(states["bert"])
    return result


def main():
    torch.set_num_threads(1)
    for seed, (name, model) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(50 + seed)
        parts = networks(model)
        for part in parts.values():
            randomise(part.eval(), generator)
            part.half().float()
        checkpoint = original(name, parts, model)
        if "betas" in model:
            checkpoint["betas"] = torch.linspace(model["betas"][0] ** 0.5, model["betas"][1] ** 0.5, 1000, dtype=torch.float64) ** 2
            checkpoint["betas"] = checkpoint["betas"].float()
        if "class_embedder" in model:
            table = torch.randn(*model["class_embedder"].values(), generator=generator)
            checkpoint["cond_stage_model.embedding.weight"] = table
        if name == "ldm-text":
            checkpoint["scale_factor"] = torch.tensor(0.25)
        channels = model["unet"]["in_channels"]
        tensors = dict(latents=torch.randn(1, channels, 8, 8, generator=generator))
        more = {}
        if "cross_attention_dim" in model["unet"]:
            more["encoder_hidden_states"] = tensors["states"] = torch.randn(1, 5, model["unet"]["cross_attention_dim"], generator=generator)
        if name == "unclip":
            more["class_labels"] = tensors["labels"] = torch.randn(1, 24, generator=generator)
            tensors["pixels"] = torch.randn(1, 3, 12, 12, generator=generator)
        with torch.no_grad():
            tensors["prediction"] = parts["unet"](tensors["latents"], 321.0, **more).sample
            autoencoder = parts.get("vae", parts.get("vqvae"))
            tensors["decoded"] = autoencoder.decode(tensors["latents"]).sample
            if name == "unclip":
                tensors["image_embeds"] = parts["image_encoder"](tensors["pixels"]).image_embeds
            if "bert" in parts:
                ids = torch.tensor([[7, 3, 59, 0, 21]])
                tensors["text"] = parts["bert"](ids).last_hidden_state
        save_file({k: v.half().contiguous() if v.ndim > 1 and "." in k else v.contiguous() for k, v in checkpoint.items()},
                  HERE / f"{name}.safetensors")
        configurations = {key: model[key] for key in model if key != "betas"}
        write_json(f"{name}.json", dict(configurations=configurations, betas=model.get("betas")))
        save_file(tensors, HERE / f"{name}-reference.safetensors")
        print(name, (HERE / f"{name}.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
