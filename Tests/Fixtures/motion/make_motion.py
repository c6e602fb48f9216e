#!/usr/bin/env python3
"""Makes tiny random motion modules (AnimateDiff) for the models of ../models, and what diffusers makes of them.

    python make_motion.py      # with the environment of ../models/requirements.txt

Each motion module is a folder as diffusers saves it. `original.safetensors` holds `v1-original` under the names of the original code. `saved` is a
model of UNetMotionModel with its scheduler, as AnimateDiffPipeline saves it; its other parts are those of ../models/sd1. `motion-lora.safetensors`
changes the modules of `v2`, `original-lora.safetensors` does the same under the names of the original code, `picture-lora.safetensors` changes the
U-Net for pictures. cases.json has single passes (every
block's output, as in ../models) and runs of whole pipelines: the fields of ../models/README.md, the folder of the model, the motion module, the
number of frames, the pictures of a video to start from, the windows of FreeNoise, and the prompts of later frames. Latents are laid out as diffusers' pipelines have them: [N, 4, F, h, w].
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "models")]

import diffusers
import torch
from diffusers import ControlNetModel, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import make_models
import passes
from configurations import MODELS, randomise, told, write_json
from make_models import save
from passes import recorded
from pipelines import BLURRED, BOAT, CAT, SCHEDULERS, case, drawing

BASES = HERE.parent / "models"
INPUTS = BASES / "inputs"
passes.BLOCKS += (AnimateDiffTransformer3D,)
# Of many small tensors, whose names take room, too.
make_models.LARGEST = 150_000


def adapter(model, **more):
    unet = MODELS[model]["unet"]
    return dict(block_out_channels=unet["block_out_channels"], motion_layers_per_block=unet["layers_per_block"],
                motion_norm_num_groups=unet["norm_num_groups"], **{"motion_num_attention_heads": 2, **more})


# As the published ones are, and one with more than those.
ADAPTERS = {
    "v1": ("sd1", adapter("sd1", motion_max_seq_length=24, use_motion_mid_block=False)),
    "v2": ("sd1", adapter("sd1", motion_max_seq_length=32, use_motion_mid_block=True)),
    "v3": ("sd1", adapter("sd1", motion_max_seq_length=32, use_motion_mid_block=False)),
    "xl": ("sdxl", adapter("sdxl", motion_max_seq_length=32, use_motion_mid_block=False)),
    "deep": ("sd2", adapter("sd2", motion_max_seq_length=6, motion_num_attention_heads=(2, 4, 3), motion_transformer_layers_per_block=2,
                            motion_transformer_layers_per_mid_block=(3,))),
    # The original has eight heads everywhere.
    "v1-original": ("sd1", adapter("sd1", motion_max_seq_length=24, use_motion_mid_block=False, motion_num_attention_heads=8)),
}
SIDES = {"sd1": (6, 4), "sd2": (4, 4), "sdxl": (4, 6)}


def video(name, model, motion, pipeline="text-to-video", prompt=CAT, frames=4, **more):
    size = {} if pipeline == "video-to-video" else dict(width=32, height=32)
    return {**case(name, pipeline, prompt, **{**size, "guidance": 7.5, "seed": 50, "steps": 6, **more}), "model": model, "motion": motion,
            "frames": frames}


CLIP = ["picture.png", "mask.png", "picture.png"]
LINEAR = dict(beta_schedule="linear", clip_sample=False, timestep_spacing="linspace", steps_offset=1)
CASES = [
    video("v1", "sd1", "v1", scheduler="ddim"),
    video("v1-original", "sd1", "v1-original", scheduler="euler"),
    video("v2", "sd1", "v2", frames=16),
    video("v2-unguided", "sd1", "v2", guidance=1.0, frames=1),
    video("v2-batch", "sd1", "v2", prompt=[CAT, BOAT], negative_prompts=[BLURRED, ""], guidance=4.0, frames=3, scheduler="dpmpp-2m"),
    video("v3", "sd1", "v3", scheduler="euler-a", guidance=5.0),
    video("v2-lcm", "sd1", "v2", scheduler="lcm", guidance=2.0, steps=4),
    video("v2-lora", "sd1", "v2", scheduler="ddim", loras={"motion-lora.safetensors": 0.8, "picture-lora.safetensors": 0.5}),
    video("saved", "saved", "v2", guidance=5.0),
    video("xl", "sdxl", "xl", guidance=5.0, frames=3),
    video("deep", "sd2", "deep", guidance=5.0, frames=5, width=16, height=16),
    video("control", "sd1", "v2", frames=3, scheduler="ddim", guidance=5.0, control=dict(network="sd1", weight=0.8, pictures=CLIP)),
    video("free-noise", "sd1", "v2", frames=12, guidance=5.0, scheduler="ddim", free_noise=dict(length=6, stride=2), later={"5": BOAT, "9": BLURRED}),
    video("free-noise-rest", "sd1", "v1", frames=11, guidance=5.0, steps=4, free_noise=dict(length=6, stride=3)),
    video("v2v-free-noise", "sd1", "v2", "video-to-video", frames=6, video=CLIP * 2, strength=0.6, free_noise=dict(length=4, stride=1),
          later={"3": BOAT}),
    video("v2v", "sd1", "v2", "video-to-video", frames=3, video=CLIP, strength=0.6, scheduler="ddim"),
    video("v2v-unguided", "sd1", "v3", "video-to-video", frames=2, video=CLIP[:2], strength=0.8, guidance=1.0, scheduler="euler"),
]


# MARK: motion modules


def make_adapter(name, seed):
    model, config = ADAPTERS[name]
    module = MotionAdapter(**config).eval()
    randomise(module, torch.Generator().manual_seed(seed))
    for key, parameter in module.named_parameters():
        # What is added should not drown what it is added to.
        if ".proj_out." in key:
            parameter.data *= 0.3
    module.half().save_pretrained(HERE / name, max_shard_size="120KB")
    return module.float()


def original_names(module, length):
    """The names of the original code, checked with diffusers' converter."""
    result = {}
    for key, value in module.half().state_dict().items():
        if key.endswith("pos_embed.pe"):
            continue
        for new, old in ((".norm1.", ".norms.0."), (".norm2.", ".norms.1."), (".norm3.", ".ff_norm."), (".attn1.", ".attention_blocks.0."),
                         (".attn2.", ".attention_blocks.1.")):
            key = key.replace(new, old)
        block, _, inside = key.partition(".motion_modules.")
        number, _, inside = inside.partition(".")
        # The first norm of the transformer as a whole is no norm of a block.
        result[f"{block}.motion_modules.{number}.temporal_transformer.{inside}"] = value
    state = module.state_dict()
    for key in [key for key in result if key.endswith(".to_q.weight")]:
        attention = key.removesuffix("to_q.weight")
        own = convert_animatediff_checkpoint_to_diffusers({attention: None}).popitem()[0].rpartition(".attn")[0]
        result[attention + "pos_encoder.pe"] = state[own + ".pos_embed.pe"].clone()
    converted = convert_animatediff_checkpoint_to_diffusers(dict(result))
    wanted = {key: value for key, value in state.items() if not key.endswith("pos_embed.pe")}
    assert converted.keys() == wanted.keys(), converted.keys() ^ wanted.keys()
    assert all(torch.equal(converted[key], wanted[key]) for key in wanted)
    module.float()
    return result


def low_rank(parameters, endings, generator, rank=2):
    """Random factors for the layers whose names end so, under diffusers' names."""
    for key, value in parameters.items():
        if key.endswith(endings):
            down = torch.randn(rank, value.shape[1], generator=generator) / value.shape[1] ** 0.5
            up = 0.7 * torch.randn(value.shape[0], rank, generator=generator) / rank**0.5
            holder, _, last = key.removesuffix(".weight").removesuffix(".0").rpartition(".")
            yield holder, last, {"down": down.half(), "up": up.half()}


def make_loras(module, seed):
    """A motion LoRA under diffusers' names and under those of the original code, and a LoRA of the U-Net for pictures."""
    generator = torch.Generator().manual_seed(seed)
    motion, original, picture = {}, {}, {}
    for holder, last, factors in low_rank(module.state_dict(), ("to_q.weight", "to_v.weight", "to_out.0.weight"), generator):
        motion |= {f"unet.{holder}.processor.{last}_lora.{key}.weight": value for key, value in factors.items()}
        block, _, inside = holder.partition(".transformer_blocks.")
        inside = inside.replace(".attn1", ".attention_blocks.0").replace(".attn2", ".attention_blocks.1")
        old = f"{block}.temporal_transformer.transformer_blocks.{inside}.processor.{last}_lora"
        original |= {f"{old}.{key}.weight": value for key, value in factors.items()}
    unet = UNet2DConditionModel.from_pretrained(BASES / "sd1" / "unet", dtype=torch.float32)
    for holder, last, factors in low_rank(unet.state_dict(), ("attn1.to_v.weight", "attn2.to_q.weight"), generator):
        picture |= {f"unet.{holder}.processor.{last}_lora.{key}.weight": value for key, value in factors.items()}
    save_file(motion, HERE / "motion-lora.safetensors")
    save_file(original, HERE / "original-lora.safetensors")
    save_file(picture, HERE / "picture-lora.safetensors")


def make_saved():
    """What AnimateDiffPipeline saves of its own: a U-Net with motion modules, and the scheduler that its documentation has."""
    pipeline = load("text-to-video", "sd1", "v2", torch.float32)
    pipeline.unet.half().save_pretrained(HERE / "saved" / "unet", max_shard_size="100KB")
    diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, **LINEAR).save_pretrained(HERE / "saved" / "scheduler")
    parts = {key: list(value) for key, value in pipeline.config.items() if isinstance(value, (tuple, list))}
    parts |= dict(unet=["diffusers", "UNetMotionModel"], scheduler=["diffusers", "DDIMScheduler"])
    parts.pop("motion_adapter")
    write_json(HERE / "saved" / "model_index.json", dict(
        _class_name="AnimateDiffPipeline", _diffusers_version=diffusers.__version__, **parts))


def whole(network, unet):
    """`from_unet2d` forgets what SDXL is told of sizes, whose layers stay random."""
    if unet.config.addition_embed_type:
        network.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    return network


# MARK: single passes


def motion_pass(name, generator):
    model, _ = ADAPTERS[name]
    unet = UNet2DConditionModel.from_pretrained(BASES / model / "unet", dtype=torch.float32)
    network = whole(UNetMotionModel.from_unet2d(unet, MotionAdapter.from_pretrained(HERE / name, dtype=torch.float32)), unet).eval()
    config, frames = network.config, 3
    inputs = dict(sample=torch.randn(2, 4, frames, *SIDES[model], generator=generator),
                  encoder_hidden_states=torch.randn(2, 7, config["cross_attention_dim"], generator=generator))
    more = told(config, 2, generator) or {}

    def run():
        text = inputs["encoder_hidden_states"].repeat_interleave(frames, dim=0)
        return network(inputs["sample"], torch.tensor(321.0, dtype=torch.float64), text, added_cond_kwargs=more).sample

    result, outputs = recorded(network, run)
    if name in ("v1", "v3", "deep"):
        outputs = {key: value for key, value in outputs.items() if ".motion_modules." in key and key.count(".") <= 5}
    elif name == "v2":
        outputs = {key: value for key, value in outputs.items() if ".up_blocks.2.attentions" not in key}
    return {**{f"input.{key}": value for key, value in {**inputs, **more}.items()}, **outputs, "output": result}


# MARK: whole pipelines


PIPELINES = {
    ("text-to-video", False): diffusers.AnimateDiffPipeline,
    ("video-to-video", False): diffusers.AnimateDiffVideoToVideoPipeline,
    ("text-to-video", True): diffusers.AnimateDiffSDXLPipeline,
}
CONTROLLED = diffusers.AnimateDiffControlNetPipeline


def load(kind, model, motion, dtype, control=None):
    module = MotionAdapter.from_pretrained(HERE / motion, dtype=dtype)
    parts = dict(feature_extractor=None, image_encoder=None)
    if model == "saved":
        model = "sd1"
        parts |= dict(unet=UNetMotionModel.from_pretrained(HERE / "saved" / "unet", dtype=dtype),
                      scheduler=diffusers.DDIMScheduler.from_pretrained(HERE / "saved" / "scheduler"))
    if control:
        parts["controlnet"] = ControlNetModel.from_pretrained(HERE.parent / "controls" / control["network"], dtype=dtype)
    pipeline = (CONTROLLED if control else PIPELINES[kind, model == "sdxl"]).from_pretrained(BASES / model, motion_adapter=module, dtype=dtype, **parts)
    if model == "sdxl":
        whole(pipeline.unet, UNet2DConditionModel.from_pretrained(BASES / model / "unet", dtype=dtype))
    return pipeline


def run(given, dtype):
    pipeline = load(given["pipeline"], given["model"], given["motion"], dtype, given.get("control"))
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    pipeline.set_progress_bar_config(disable=True)
    if "scheduler" in given:
        kind, more = SCHEDULERS[given["scheduler"]]
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **more)
    if "free_noise" in given:
        pipeline.enable_free_noise(context_length=given["free_noise"]["length"], context_stride=given["free_noise"]["stride"])
    if "loras" in given:
        for index, file in enumerate(given["loras"]):
            pipeline.load_lora_weights(load_file(HERE / file), adapter_name=f"lora{index}")
        pipeline.set_adapters([f"lora{index}" for index in range(len(given["loras"]))], list(given["loras"].values()))
    draws, latents, timesteps = [], [], []

    def record(_, __, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values["latents"])
        return values

    arguments = dict(prompt=given["prompts"], num_inference_steps=given["steps"], guidance_scale=given["guidance"], output_type="pt",
                     generator=torch.Generator().manual_seed(given["seed"]), callback_on_step_end=record)
    if "negative_prompts" in given:
        arguments["negative_prompt"] = given["negative_prompts"]
    arguments |= {key: given[key] for key in ("width", "height", "strength") if key in given}
    if "video" in given:
        pictures = [Image.open(INPUTS / name).convert("RGB") for name in given["video"]]
        arguments |= dict(video=[pictures], width=pictures[0].width, height=pictures[0].height)
    else:
        arguments["num_frames"] = given["frames"]
    if "free_noise" in given:
        later = {int(frame): prompt for frame, prompt in given.get("later", {}).items()}
        arguments["prompt"] = {0: given["prompts"][0], **later}
    if "control" in given:
        arguments |= dict(conditioning_frames=[Image.open(INPUTS / name).convert("RGB") for name in given["control"]["pictures"]],
                          controlnet_conditioning_scale=given["control"]["weight"])
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
    modules = {name: make_adapter(name, 4000 + seed) for seed, name in enumerate(ADAPTERS)}
    save_file({key: value.contiguous() for key, value in original_names(modules["v1-original"], 24).items()}, HERE / "original.safetensors")
    make_loras(modules["v2"], 4050)
    make_saved()
    described = []
    for seed, name in enumerate(name for name in ADAPTERS if name != "v1-original"):
        tensors = motion_pass(name, torch.Generator().manual_seed(4100 + seed))
        files = save(tensors, HERE / "reference", f"pass-{name}")
        described.append(dict(name=name, model=ADAPTERS[name][0], files=files, timestep=321.0))
        print(name, len(tensors))
    pipelines = []
    for given in CASES:
        timesteps, tensors = run(given, torch.float32)
        precise = run(given, torch.float64)[1]["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        kept = [key for key in tensors if not key.startswith("latents.") or key in ("latents.0", "latents.2")]
        if "free_noise" in given:
            # What was drawn is put into another order in its own place.
            kept = [key for key in kept if not key.startswith("draw.")]
        draws = [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")]
        tensors = {key: tensors[key] for key in kept if not (given["frames"] == 16 and key in ("latents.0", "latents.2"))}
        pipelines.append({**given, "files": save(tensors, HERE / "reference", given["name"]), "timesteps": timesteps, "draws": draws,
                          "float64_deviation": float(f"{deviation:.1e}")})
        print(given["name"], f"{deviation:.1e}", float(tensors["latents"].std()))
    write_json(HERE / "cases.json", dict(passes=described, pipelines=pipelines))


if __name__ == "__main__":
    main()
