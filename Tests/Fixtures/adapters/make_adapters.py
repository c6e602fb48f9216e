#!/usr/bin/env python3
"""Writes tiny adapters for the models ../models/sd1 and ../models/sdxl, and the latents that diffusers and PEFT draw with them.

    pip install -r ../models/requirements.txt peft==0.21.2   # the versions that made the committed files
    python make_adapters.py

reference.safetensors has for each case NAME.latents, the last latents of the request in `draw`, and plain.latents and xl-plain.latents without an
adapter. patterns.json has what PEFT finds for names of modules among patterns.
Adapters are applied at weight 0.8. Where neither diffusers nor PEFT reads a form, the published formula is merged into the weights here.
"""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import sys
from pathlib import Path

import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: E402
from transformers import CLIPTextModel  # noqa: E402

WEIGHT = 0.8
PROMPT, NEGATIVE = "a photo of the cat", "blurred, grey"
CLIPTextModel.text_model = property(lambda encoder: encoder)
generator = torch.Generator().manual_seed(18)
reference = {}


def load():
    pipe = StableDiffusionPipeline.from_pretrained(
        HERE.parent / "models/sd1", dtype=torch.float32, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_xl():
    pipe = StableDiffusionXLPipeline.from_pretrained(HERE.parent / "models/sdxl", dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(name, pipe, prompt=PROMPT):
    reference[f"{name}.latents"] = pipe(
        prompt, negative_prompt=NEGATIVE, num_inference_steps=4, guidance_scale=5.0, width=32, height=32, output_type="latent",
        generator=torch.Generator().manual_seed(0)).images.clone()
    plain = reference.get("xl-plain.latents" if name.startswith("xl-") else "plain.latents", reference[f"{name}.latents"])
    change = (reference[f"{name}.latents"] - plain).abs().max() / plain.std()
    print(f"{name}: changes the latents by {change:.3f} of their deviation")


def random(*shape, deviation=0.3):
    return torch.randn(*shape, generator=generator) * deviation


def save(name, tensors, metadata=None):
    path = HERE / f"{name}.safetensors"
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, metadata=metadata)
    assert path.stat().st_size < 200_000, f"{name}: {path.stat().st_size}"


def modules(model, *kinds):
    """Layers whose names have one of these in them."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and any(kind in name for kind in kinds)}


def kohya(prefix, name):
    return prefix + name.replace(".", "_")


def text_name(name):
    return "text_model." + name.removeprefix("text_model.")


def original(name, blocks=2, attends=lambda up_block: up_block > 0):
    """What the original code calls a module of a U-Net with so many residual blocks at each level."""
    parts = name.split(".")
    inner = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    rest = ".".join(parts[4:])
    if parts[0] == "down_blocks":
        number = 1 + (blocks + 1) * int(parts[1])
        if parts[2] == "downsamplers":
            return f"input_blocks.{number + blocks}.0.op"
        return (f"input_blocks.{number + int(parts[3])}.0.{inner[rest]}" if parts[2] == "resnets"
                else f"input_blocks.{number + int(parts[3])}.1.{rest}")
    if parts[0] == "mid_block":
        rest = ".".join(parts[3:])
        return f"middle_block.{2 * int(parts[2])}.{inner[rest]}" if parts[1] == "resnets" else f"middle_block.1.{rest}"
    if parts[0] == "up_blocks":
        number = (blocks + 1) * int(parts[1])
        if parts[2] == "upsamplers":
            return f"output_blocks.{number + blocks}.{2 if attends(int(parts[1])) else 1}.conv"
        return (f"output_blocks.{number + int(parts[3])}.0.{inner[rest]}" if parts[2] == "resnets"
                else f"output_blocks.{number + int(parts[3])}.1.{rest}")
    return {"conv_in": "input_blocks.0.0", "conv_out": "out.2"}[name]


def pair(module, rank, deviation=0.3):
    """Down and up of a layer."""
    if isinstance(module, torch.nn.Conv2d):
        kernel = module.kernel_size
        return (random(rank, module.in_channels, *kernel, deviation=deviation), random(module.out_channels, rank, 1, 1, deviation=deviation))
    return random(rank, module.in_features, deviation=deviation), random(module.out_features, rank, deviation=deviation)


def merged(deltas, pipe=None):
    """The pipeline with differences added to parameters of its U-Net."""
    pipe = pipe or load()
    state = pipe.unet.state_dict()
    for name, delta in deltas.items():
        state[name] += delta.reshape(state[name].shape)
    pipe.unet.load_state_dict(state)
    return pipe


def make_kohya():
    """LoRA and LoCon with alpha, ranks that differ, both networks; the same under the original blocks' names.

    diffusers 0.42.1 loses the alphas of a U-Net's attention where they differ, and reads no kohya file for the text encoder of transformers 5:
    there alphas differ, and the formula is merged here.
    """
    pipe, tensors, originals = load(), {}, {}
    layers = modules(pipe.unet, "attn", "ff.net", "proj_in", "proj_out", "conv1", "conv2", "sampler")
    for index, (name, module) in enumerate(layers.items()):
        rank = 1 + index % 3
        down, up = pair(module, rank)
        alpha = torch.tensor(1.5)
        for target, key in ((tensors, kohya("lora_unet_", name)), (originals, kohya("lora_unet_", original(name)))):
            target |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": alpha}
    unet = dict(tensors)
    for index, (name, module) in enumerate(modules(pipe.text_encoder, "q_proj", "v_proj", "out_proj", "fc1", "fc2").items()):
        down, up = pair(module, 2)
        alpha = torch.tensor(0.5 + index)
        module.weight.data += WEIGHT * alpha / 2 * (up.half().float() @ down.half().float())
        for target, key in ((tensors, kohya("lora_te_", text_name(name))), (originals, kohya("lora_te1_", text_name(name)))):
            target |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": alpha}
    save("kohya", tensors)
    save("original-names", originals)
    pipe.load_lora_weights({key: value.float() for key, value in unet.items()}, adapter_name="a")
    pipe.set_adapters("a", WEIGHT)
    draw("kohya", pipe)


def randomize(model, deviation=0.3):
    """Adapters begin without an effect."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_A", "lora_B", "hada_", "lokr_")):
            parameter.data = random(*parameter.shape, deviation=deviation)
        if "ia3_l" in name:
            parameter.data = 1 + random(*parameter.shape, deviation=0.4)
        if "magnitude" in name:
            parameter.data *= 1 + random(*parameter.shape, deviation=0.2)


def scaled(model, factor):
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "scaling"):
            for name in module.scaling:
                module.scaling[name] *= factor


def make_peft(name, **more):
    """LoRA as diffusers saves it: PEFT's names, and its configuration in the header."""
    pipe = load()
    config = LoraConfig(r=3, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0", "proj_in", "net.0.proj", "conv1", "conv_shortcut"],
                        rank_pattern={"attn2.to_k": 1, "conv1": 2}, alpha_pattern={"attn1.to_q": 6}, **more)
    pipe.unet.add_adapter(config)
    text = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "fc1"], **more)
    inject_adapter_in_model(text, pipe.text_encoder)
    randomize(pipe.unet), randomize(pipe.text_encoder)
    StableDiffusionPipeline.save_lora_weights(
        HERE, unet_lora_layers=get_peft_model_state_dict(pipe.unet), text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
        weight_name=f"{name}.safetensors", unet_lora_adapter_metadata=config.to_dict(), text_encoder_lora_adapter_metadata=text.to_dict())
    scaled(pipe.unet, WEIGHT), scaled(pipe.text_encoder, WEIGHT)
    draw(name, pipe)


def adapter_tensors(model, adapter="default"):
    """What PEFT would save, by module and name."""
    state = {key.removeprefix("base_model.model."): value for key, value in get_peft_model_state_dict(model, adapter_name=adapter).items()}
    found = {}
    for key, value in state.items():
        module, _, name = key.rpartition(".")
        found.setdefault(module, {})[name] = value
    return found


def make_loha():
    """LoHa, with the kernel between the factors of convolutions, under LyCORIS' names."""
    pipe, tensors = load(), {}
    config = LoHaConfig(r=2, alpha=1, target_modules=["attn1.to_q", "attn2.to_v", "conv1", "proj_out"], use_effective_conv2d=True)
    inject_adapter_in_model(config, pipe.unet)
    randomize(pipe.unet, 0.7)
    for module, parts in adapter_tensors(pipe.unet).items():
        tensors |= {f"{kohya('lora_unet_', module)}.{name}": value for name, value in parts.items()}
        tensors[f"{kohya('lora_unet_', module)}.alpha"] = torch.tensor(1.0)
    save("loha", tensors)
    scaled(pipe.unet, WEIGHT)
    draw("loha", pipe)


def make_lokr():
    """LoKr: whole factors, products, and products around a kernel. alpha counts only where there is a product."""
    pipe, tensors = load(), {}
    for name, rank, factor, targets in (("a", 2, 2, ["conv2", "ff.net.0.proj", "attn2.to_v"]), ("b", 1, 4, ["attn1.to_q"])):
        config = LoKrConfig(r=rank, alpha=rank / 2, target_modules=targets, use_effective_conv2d=True, decompose_both=True,
                            decompose_factor=factor)
        inject_adapter_in_model(config, pipe.unet, adapter_name=name)
    for module in pipe.unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(["a", "b"])
    randomize(pipe.unet, 0.5)
    kinds = set()
    for module, parts in (adapter_tensors(pipe.unet, "a") | adapter_tensors(pipe.unet, "b")).items():
        key = kohya("lycoris_", module)
        kinds.add(tuple(sorted(parts)))
        if "lokr_w1" in parts and "lokr_w2" in parts:
            parts["lokr_w1"] = parts["lokr_w1"] * 0.5
        tensors |= {f"{key}.{name}": value for name, value in parts.items()} | {f"{key}.alpha": torch.tensor(0.5 if "attn1" in module else 1.0)}
    print("lokr:", kinds)
    save("lokr", tensors)
    scaled(pipe.unet, WEIGHT)
    draw("lokr", pipe)


def make_ia3():
    """(IA)3 of outputs and inputs: LyCORIS' names at weight 0.8, PEFT's at weight 1."""
    pipe, tensors = load(), {}
    names = ["attn1.to_k", "attn2.to_v", "ff.net.2", "proj_out"]
    inject_adapter_in_model(IA3Config(target_modules=names, feedforward_modules=["ff.net.2"]), pipe.unet)
    randomize(pipe.unet)
    found = adapter_tensors(pipe.unet)
    save("ia3-peft", {f"base_model.model.{module}.{name}": value for module, parts in found.items() for name, value in parts.items()})
    draw("ia3-peft", pipe)
    pipe = load()
    state = pipe.unet.state_dict()
    for module, parts in found.items():
        factor, on_input, weight = parts["ia3_l"].flatten() - 1, module.endswith("ff.net.2"), state[module + ".weight"]
        tensors |= {f"{kohya('lora_unet_', module)}.weight": factor, f"{kohya('lora_unet_', module)}.on_input": torch.tensor(on_input)}
        weight += WEIGHT * weight * factor.reshape([1, -1] + [1] * (weight.dim() - 2) if on_input else [-1] + [1] * (weight.dim() - 1))
    save("ia3", tensors)
    pipe.unet.load_state_dict(state)
    draw("ia3", pipe)


def make_dora():
    """kohya's dora_scale of outputs and of inputs, as webui and ComfyUI blend it. Source: the published formula."""
    pipe, tensors, deltas = load(), {}, {}
    for index, (name, module) in enumerate(modules(pipe.unet, "attn2.to_q", "conv1", "proj_in").items()):
        down, up = pair(module, 2)
        weight = module.weight.data
        changed = weight + 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        axes = [axis for axis in range(weight.dim()) if axis != index % 2]
        norms = changed.square().sum(dim=axes, keepdim=True).sqrt()
        lengths = norms * (1 + random(*norms.shape))
        deltas[name + ".weight"] = WEIGHT * (changed / norms * lengths - weight)
        key = kohya("lora_unet_", name)
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0), f"{key}.dora_scale": lengths}
    save("dora", tensors)
    draw("dora", merged(deltas, pipe))


def make_locon():
    """LoCon with a kernel between 1x1 convolutions, and full differences of weights, biases and norms."""
    pipe, tensors, deltas = load(), {}, {}
    for name, module in modules(pipe.unet, "conv1", "sampler").items():
        up, mid, down = random(module.out_channels, 2, 1, 1), random(2, 3, 3, 3), random(3, module.in_channels, 1, 1)
        key = kohya("lora_unet_", name)
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_mid.weight": mid, f"{key}.lora_down.weight": down}
        deltas[name + ".weight"] = WEIGHT * torch.einsum("nmkl,in,mj->ijkl", mid, up.flatten(1), down.flatten(1))
    for name, module in modules(pipe.unet, "attn1.to_out.0", "ff.net.0.proj", "conv_in", "time_embedding").items():
        key = kohya("lora_unet_", name)
        tensors |= {f"{key}.diff": random(*module.weight.shape, deviation=0.05), f"{key}.diff_b": random(*module.bias.shape)}
        deltas |= {f"{name}.weight": WEIGHT * tensors[f"{key}.diff"], f"{name}.bias": WEIGHT * tensors[f"{key}.diff_b"]}
    for name in ("mid_block.resnets.0.norm1", "down_blocks.0.attentions.0.transformer_blocks.0.norm2"):
        key, count = kohya("lora_unet_", name), pipe.unet.get_submodule(name).weight.shape[0]
        tensors |= {f"{key}.w_norm": random(count), f"{key}.b_norm": random(count)}
        deltas |= {f"{name}.weight": WEIGHT * tensors[f"{key}.w_norm"], f"{name}.bias": WEIGHT * tensors[f"{key}.b_norm"]}
    save("locon", tensors)
    draw("locon", merged(deltas, pipe))


def make_embeddings():
    """Textual inversions of one vector and of several."""
    for name, count in (("moon-cat", 3), ("<one>", 1)):
        vectors = random(count, 16, deviation=1.0)
        save("embedding-diffusers" if count == 1 else "embedding", {name: vectors[0] if count == 1 else vectors})
        if count > 1:
            save("embedding-webui", {"emb_params": vectors})
    pipe = load()
    pipe.load_textual_inversion(load_file(HERE / "embedding.safetensors"))
    pipe.load_textual_inversion(load_file(HERE / "embedding-diffusers.safetensors"))
    draw("embedding", pipe, prompt="a photo of moon-cat and <one> in the rain")


def make_xl_kohya():
    """SDXL's LoRA of all three networks, also under the original blocks' names. As above, the text encoders' part is merged here."""
    pipe, tensors, originals = load_xl(), {}, {}
    for index, (name, module) in enumerate(modules(pipe.unet, "attn", "ff.net", "proj_in", "proj_out", "conv1", "sampler").items()):
        down, up = pair(module, 1 + index % 2)
        for target, key in ((tensors, name), (originals, original(name, blocks=1, attends=lambda up_block: True))):
            key = kohya("lora_unet_", key)
            target |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": torch.tensor(0.75)}
    unet, unet_originals = dict(tensors), dict(originals)
    for encoder, prefix in ((pipe.text_encoder, "lora_te1_"), (pipe.text_encoder_2, "lora_te2_")):
        for index, (name, module) in enumerate(modules(encoder, "q_proj", "v_proj", "out_proj", "fc1").items()):
            down, up = pair(module, 2)
            alpha, key = torch.tensor(0.5 + index), kohya(prefix, text_name(name))
            module.weight.data += WEIGHT * alpha / 2 * (up.half().float() @ down.half().float())
            for target in (tensors, originals):
                target |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(), f"{key}.alpha": alpha}
    save("xl-kohya", tensors)
    save("xl-original-names", originals)
    for name, state in (("xl-original-names", unet_originals), ("xl-kohya", unet)):
        pipe.load_lora_weights({key: value.float() for key, value in state.items()}, adapter_name=name)
        pipe.set_adapters(name, WEIGHT)
        draw(name, pipe)
        pipe.delete_adapters(name)
    assert torch.equal(reference.pop("xl-original-names.latents"), reference["xl-kohya.latents"])


def make_xl_peft():
    """LoRA of all three networks as diffusers saves it, with patterns that are expressions: of several that match, the first counts."""
    pipe, layers, metadata = load_xl(), {}, {}
    parts = {
        "unet": LoraConfig(
            r=3, lora_alpha=2, target_modules=["to_q", "to_k", "to_out.0", "proj_in", "conv1", "linear_1"],
            rank_pattern={r"^mid_block\.attentions\.0\.proj_in": 4, r"attn[12]\.to_k": 1, "conv1": 2, r"down_blocks\.\d\..*": 2},
            alpha_pattern={"attn2.to_q": 5, r"down_blocks\..*attn2\.to_q": 9, r"resnets\.(0|1)\.conv1": 4, "to_q": 7}),
        "text_encoder": LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "fc1"], alpha_pattern={r"encoder\.layers\.[02]\.mlp\.fc1": 1}),
        "text_encoder_2": LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "fc2"], rank_pattern={"layers.1.*": 3}),
    }
    for name, config in parts.items():
        network = getattr(pipe, name)
        inject_adapter_in_model(config, network)
        randomize(network, 0.2)
        layers[f"{name}_lora_layers"], metadata[f"{name}_lora_adapter_metadata"] = get_peft_model_state_dict(network), config.to_dict()
    StableDiffusionXLPipeline.save_lora_weights(HERE, **layers, **metadata, weight_name="xl-peft.safetensors")
    for name in parts:
        scaled(getattr(pipe, name), WEIGHT)
    draw("xl-peft", pipe)


def make_xl_embedding():
    """A textual inversion for both text encoders."""
    vectors = {"clip_l": random(2, 16, deviation=1.0), "clip_g": random(2, 24, deviation=1.0)}
    save("xl-embedding", vectors)
    pipe = load_xl()
    for key, suffix in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            vectors[key], token="moon-cat", text_encoder=getattr(pipe, "text_encoder" + suffix), tokenizer=getattr(pipe, "tokenizer" + suffix))
    draw("xl-embedding", pipe, prompt="a photo of moon-cat in the rain")


def make_patterns():
    """Which of some patterns PEFT takes for names of modules; null for none."""
    names = ["conv1", "mid_block.resnets.0.conv1", "mid_block.resnets.0.conv10", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_q",
             "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", "up_blocks.12.resnets.0.conv_shortcut", "xconv1", "to_q"]
    lists = [["conv1"], ["resnets.0.conv1", "conv1"], [r"mid_block\.resnets\.\d+\.conv1"], ["to.q"], ["attn[12].to_(q|k)"], ["^conv1"], ["^to_q", ".*to_q"],
             ["conv1$", "to_out.0$"], [r"up_blocks\.\d\..*"], [r"up_blocks\.\d\d.*"], ["conv1|to_q"], ["(?:down|up)_blocks.0.*", ".*"], ["conv1.?"],
             [r"[a-z_]+_shortcut", "conv_shortcut"], [r"\w+"], ["resnets"], [""], ["attn2.to_q", "to_q"], ["to_[^k]"], [r"(?=.*attn1)up.*", r"blocks\.0.*"]]
    found = [[None if (key := get_pattern_key(patterns, name)) == name and name not in patterns else key for name in names] for patterns in lists]
    cases = [{"patterns": patterns, "found": keys} for patterns, keys in zip(lists, found)]
    (HERE / "patterns.json").write_text(json.dumps({"modules": names, "cases": cases}, indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    pipe = load()
    reference["plain.latents"] = torch.zeros(1, 4, 4, 4) + torch.linspace(0, 1, 4)
    draw("plain", pipe)
    make_kohya()
    make_peft("peft")
    make_peft("peft-dora", use_dora=True)
    make_loha()
    make_lokr()
    make_ia3()
    make_dora()
    make_locon()
    make_embeddings()
    draw("xl-plain", load_xl())
    make_xl_kohya()
    make_xl_peft()
    make_xl_embedding()
    make_patterns()
    save("reference", {key: value.float() for key, value in reference.items()})


if __name__ == "__main__":
    main()
