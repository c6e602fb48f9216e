"""End-to-end cases: whole pipelines as diffusers runs them, with everything that is random written down."""

import contextlib
import inspect

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image
from transformers import CLIPTextModel

SCHEDULERS = {
    "ddpm": (DDPMScheduler, {}),
    "ddim": (DDIMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "euler-trailing": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
}
CAT, BOAT = "a photo of the cat", "Two boats in the rain"
BLURRED = "blurred, grey"


def case(name, pipeline, prompt=CAT, **more):
    """What cases.json says of a run; `scheduler` absent means that of the model's folder."""
    return {"name": name, "pipeline": pipeline, "prompts": [prompt] if isinstance(prompt, str) else prompt, "steps": 10, **more}


def text_to_image(side, wide):
    """The cases that every text-to-image model has; `wide` is a size (width, height) that is not square."""
    size = dict(width=side, height=side)
    return [
        case("txt2img", "text-to-image", **size, guidance=7.5, seed=0),
        case("txt2img-unguided", "text-to-image", **size, guidance=1.0, seed=1),
        case("txt2img-negative", "text-to-image", **size, guidance=5.0, seed=2, negative_prompts=[BLURRED]),
        case("txt2img-batch", "text-to-image", [CAT, BOAT], **size, guidance=4.0, seed=3, images_per_prompt=2,
             negative_prompts=[BLURRED, ""]),
        case("txt2img-wide", "text-to-image", BOAT, width=wide[0], height=wide[1], guidance=3.0, seed=4),
    ]


def switched(side, names, guidance):
    return [case(f"txt2img-{name}", "text-to-image", width=side, height=side, guidance=guidance, seed=5, scheduler=name) for name in names]


def image_to_image(names, **more):
    return [
        case(f"img2img-{name}-{round(100 * strength)}", "image-to-image", image="picture.png", strength=strength, guidance=5.0, seed=6,
             scheduler=name, **more)
        for name in names for strength in (0.3, 0.75)
    ]


def inpaint(name, image="picture.png", mask="mask.png", width=32, height=32, **more):
    return case(f"inpaint-{name}", "inpainting", image=image, mask=mask, width=width, height=height,
                **{"guidance": 5.0, "seed": 7, "strength": 1.0, **more})


def edit(name, **more):
    return case(f"edit-{name}", "editing", **{"image": "picture.png", "guidance": 7.5, "image_guidance": 1.5, "seed": 8, **more})


def xl_edit(name, **more):
    return edit(name, **{"width": 32, "height": 32, "guidance": 4.0, "seed": 38, **more})


def with_other_autoencoder():
    """The cases of sd1 with an autoencoder whose latents are no distribution."""
    return [
        case("txt2img", "text-to-image", width=32, height=32, guidance=5.0, seed=20, steps=6),
        case("img2img", "image-to-image", image="picture.png", strength=0.6, guidance=4.0, seed=21, images_per_prompt=2),
        inpaint("wide", image="picture-48x32.png", mask="mask-48x32.png", width=48, seed=22),
    ]


CASES = {
    "sd1": [
        *text_to_image(32, (48, 32)),
        *switched(32, SCHEDULERS, 7.5),
        case("txt2img-clip-skip-1", "text-to-image", width=32, height=32, guidance=4.0, seed=9, clip_skip=1),
        *image_to_image(SCHEDULERS),
        case("img2img-batch", "image-to-image", [CAT, BOAT], image="picture.png", strength=0.6, guidance=4.0, seed=10,
             images_per_prompt=2),
        case("img2img-resized", "image-to-image", image="picture-37x50.png", strength=0.6, guidance=4.0, seed=11),
        *(inpaint(f"{name}-100", scheduler=name) for name in ("ddim", "pndm", "euler", "euler-a", "heun", "dpmpp-2m", "unipc", "lcm")),
        *(inpaint(f"{name}-60", scheduler=name, strength=0.6) for name in ("ddim", "pndm", "euler", "euler-a", "heun", "dpmpp-2m")),
        inpaint("wide", image="picture-48x32.png", mask="mask-48x32.png", width=48, images_per_prompt=2),
        inpaint("unguided", guidance=1.0),
    ],
    "sd2": [
        *text_to_image(16, (24, 16)),
        *switched(16, SCHEDULERS, 5.0),
        *image_to_image(["ddim", "euler", "euler-a", "dpmpp-2m"]),
    ],
    "inpaint9": [
        inpaint("pndm-100"),
        inpaint("unguided", guidance=1.0),
        inpaint("negative", negative_prompts=[BLURRED]),
        inpaint("pndm-60", strength=0.6),
        *(inpaint(f"{name}-100", scheduler=name) for name in ("ddim", "euler", "euler-a")),
        *(inpaint(f"{name}-60", scheduler=name, strength=0.6) for name in ("ddim", "euler-a")),
        inpaint("wide-batch", image="picture-48x32.png", mask="mask-48x32.png", width=48, prompt=[CAT, BOAT], images_per_prompt=2),
    ],
    "edit8": [
        edit("euler"),
        edit("unguided", guidance=1.0),
        edit("strong", image_guidance=2.5, guidance=4.0, negative_prompts=[BLURRED]),
        *(edit(name, scheduler=name) for name in ("ddim", "euler-a", "dpmpp-2m")),
        edit("wide-batch", image="picture-48x32.png", images_per_prompt=2, prompt=[CAT, BOAT]),
    ],
    "lcm": [
        case("lcm", "latent-consistency", width=16, height=16, guidance=8.5, seed=12),
        case("lcm-4-steps", "latent-consistency", width=16, height=16, guidance=8.5, seed=13, steps=4),
        case("lcm-1-step", "latent-consistency", width=16, height=16, guidance=3.0, seed=13, steps=1),
        case("lcm-unguided", "latent-consistency", width=16, height=16, guidance=1.0, seed=14, steps=4),
        case("lcm-batch", "latent-consistency", [CAT, BOAT], width=24, height=16, guidance=5.0, seed=15, steps=4, images_per_prompt=2),
        case("txt2img-ddim", "text-to-image", width=16, height=16, guidance=6.0, seed=16, scheduler="ddim"),
        case("img2img-75", "image-to-image", image="picture-16x16.png", strength=0.75, guidance=5.0, seed=17),
        case("lcm-img2img-50", "latent-consistency-image-to-image", image="picture-16x16.png", strength=0.5, guidance=5.0, seed=18, steps=4),
        case("lcm-img2img-batch", "latent-consistency-image-to-image", [CAT, BOAT], image="picture-16x16.png", strength=0.8,
             guidance=8.5, seed=19, steps=4, images_per_prompt=2),
    ],
    "sdxl": [
        *text_to_image(32, (48, 32)),
        *switched(32, ["euler-a", "dpmpp-2m", "unipc"], 5.0),
        # As Turbo and Lightning are run.
        case("turbo", "text-to-image", width=32, height=32, guidance=0.0, seed=20, steps=1, scheduler="euler-trailing"),
        case("lightning", "text-to-image", width=32, height=32, guidance=0.0, seed=21, steps=4, scheduler="euler-trailing"),
        case("second-prompts", "text-to-image", CAT, width=32, height=32, guidance=5.0, seed=22, prompt_2=BOAT,
             negative_prompts=[BLURRED], negative_prompt_2="a dog"),
        case("empty-negative", "text-to-image", width=32, height=32, guidance=5.0, seed=23, negative_prompts=[""]),
        case("clip-skip-1", "text-to-image", width=32, height=32, guidance=5.0, seed=24, clip_skip=1),
        case("sizes", "text-to-image", width=32, height=32, guidance=5.0, seed=25, original_size=[40, 64], crop=[8, 16],
             target_size=[32, 48]),
        case("negative-sizes", "text-to-image", width=32, height=32, guidance=5.0, seed=26, original_size=[40, 64], crop=[8, 16],
             negative_original_size=[20, 24], negative_crop=[2, 4], negative_target_size=[16, 24]),
        # Negative sizes without a crop: the pipelines have other defaults for it.
        case("negative-sizes-without-crop", "text-to-image", width=32, height=32, guidance=5.0, seed=36, crop=[8, 16],
             negative_original_size=[20, 24], negative_target_size=[16, 24]),
        case("img2img-negative-sizes", "image-to-image", image="picture.png", strength=0.6, guidance=5.0, seed=37, crop=[8, 16],
             negative_original_size=[20, 24], negative_target_size=[16, 24]),
        case("first-80", "text-to-image", width=32, height=32, guidance=5.0, seed=27, denoising_end=0.8),
        *image_to_image(["euler", "dpmpp-2m"]),
        case("img2img-sizes", "image-to-image", image="picture.png", strength=0.6, guidance=5.0, seed=28, original_size=[40, 64],
             crop=[8, 16]),
        inpaint("99", strength=0.9999),
        inpaint("60", strength=0.6, scheduler="ddim"),
        case("last-40", "image-to-image", image="picture.png", guidance=5.0, seed=29, strength=0.3, denoising_start=0.6),
    ],
    "refiner": [
        case("img2img", "image-to-image", image="picture.png", strength=0.3, guidance=5.0, seed=30),
        case("scores", "image-to-image", image="picture.png", strength=0.5, guidance=5.0, seed=31, aesthetic_score=7.5,
             negative_aesthetic_score=1.5, negative_prompts=[BLURRED]),
        case("last-20", "image-to-image", latents=[4, 4, 8], guidance=5.0, seed=32, denoising_start=0.8, steps=20),
        case("last-20-heun", "image-to-image", latents=[4, 8, 8], guidance=5.0, seed=33, denoising_start=0.8, steps=15, scheduler="heun"),
    ],
    "ssd": [case("txt2img", "text-to-image", width=32, height=32, guidance=5.0, seed=34)],
    "xl-inpaint9": [
        inpaint("99", strength=0.9999),
        inpaint("100"),
        inpaint("60", strength=0.6, negative_prompts=[BLURRED]),
    ],
    "xl-edit8": [
        xl_edit("euler"),
        xl_edit("unguided", guidance=1.0),
        xl_edit("negative", image_guidance=2.5, negative_prompts=[BLURRED], negative_prompt_2="a dog"),
        xl_edit("second-prompt", prompt_2=BOAT, scheduler="ddim"),
        xl_edit("sizes", original_size=[40, 64], crop=[8, 16], target_size=[32, 48], scheduler="euler-a"),
        xl_edit("rescaled", guidance_rescale=0.7),
        # As the pipeline is told for CosXL.
        xl_edit("scaled", is_cosxl_edit=True),
        xl_edit("resized-batch", image="picture-37x50.png", width=48, images_per_prompt=2, prompt=[CAT, BOAT], denoising_end=0.7),
    ],
    "tiny": [case("txt2img", "text-to-image", width=32, height=32, guidance=7.5, seed=35)],
    "taesd": with_other_autoencoder(),
    "vq": with_other_autoencoder()[:2],  # inpainting draws noise of latent_channels, which it has more of
    "asymmetric": [*with_other_autoencoder()[:2], inpaint("wide", image="picture-48x32.png", mask="mask-48x32.png", width=48, seed=22, steps=6)],
    "odd": [
        *text_to_image(40, (56, 40)),
        *image_to_image(["euler"]),
        case("img2img-odd-sides", "image-to-image", image="picture-37x50.png", strength=0.6, guidance=4.0, seed=11),
    ],
}
PICTURES = {"picture.png": (32, 32), "picture-48x32.png": (48, 32), "picture-37x50.png": (37, 50), "picture-16x16.png": (16, 16)}
MASKS = {"mask.png": (32, 32), "mask-48x32.png": (48, 32)}
PIPELINES = {
    "text-to-image": diffusers.StableDiffusionPipeline,
    "image-to-image": diffusers.StableDiffusionImg2ImgPipeline,
    "inpainting": diffusers.StableDiffusionInpaintPipeline,
    "editing": diffusers.StableDiffusionInstructPix2PixPipeline,
    "latent-consistency": diffusers.LatentConsistencyModelPipeline,
    "latent-consistency-image-to-image": diffusers.LatentConsistencyModelImg2ImgPipeline,
}
XL_PIPELINES = {
    "text-to-image": diffusers.StableDiffusionXLPipeline,
    "image-to-image": diffusers.StableDiffusionXLImg2ImgPipeline,
    "inpainting": diffusers.StableDiffusionXLInpaintPipeline,
    "editing": diffusers.StableDiffusionXLInstructPix2PixPipeline,
}


@contextlib.contextmanager
def drawing(draws, dtype):
    """Writes down what is drawn. Numbers are drawn in float32 whatever type is asked for, so that types can be compared."""
    original = torch.randn

    def randn(*shape, generator=None, **more):
        drawn = original(*shape, generator=generator, **{**more, "dtype": torch.float32})
        draws.append(drawn)
        return drawn.to(dtype)

    torch.randn = randn
    try:
        yield
    finally:
        torch.randn = original


def load(folder, kind, dtype, **parts):
    if (folder / "text_encoder_2").exists():
        return XL_PIPELINES[kind].from_pretrained(folder, dtype=dtype, add_watermarker=False)
    return PIPELINES[kind].from_pretrained(
        folder, **parts, dtype=dtype, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def run(folder, inputs, given, dtype=torch.float32, prepare=lambda pipeline, given: {}, **parts):
    """Runs a case and returns the scheduler's configuration and the tensors: draws, latents after each step, the picture.

    `prepare` changes the pipeline and returns further arguments. `parts` take the place of the folder's.
    """
    pipeline = load(folder, given["pipeline"], dtype, **parts)
    if "is_cosxl_edit" in given:
        pipeline.is_cosxl_edit = given["is_cosxl_edit"]
    # diffusers looks for the final norm where transformers 4 has it.
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    pipeline.set_progress_bar_config(disable=True)
    if "scheduler" in given:
        kind, more = SCHEDULERS[given["scheduler"]]
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **more)
    draws, latents, timesteps, tensors = [], [], [], {}

    def record(_, __, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values["latents"])
        return values

    arguments = dict(prompt=given["prompts"], num_inference_steps=given["steps"], guidance_scale=given["guidance"],
                     num_images_per_prompt=given.get("images_per_prompt", 1), output_type="pt",
                     generator=torch.Generator().manual_seed(given["seed"]))
    if "callback_on_step_end" in inspect.signature(pipeline.__call__).parameters:
        arguments["callback_on_step_end"] = record
    else:
        arguments["callback"] = lambda _, timestep, values: record(None, None, timestep, {"latents": values})
    renamed = {"negative_prompts": "negative_prompt", "image_guidance": "image_guidance_scale", "width": "width", "height": "height",
               "crop": "crops_coords_top_left", "negative_crop": "negative_crops_coords_top_left"}
    renamed |= {key: key for key in (
        "strength", "clip_skip", "prompt_2", "negative_prompt_2", "original_size", "target_size", "negative_original_size",
        "negative_target_size", "aesthetic_score", "negative_aesthetic_score", "denoising_start", "denoising_end",
        "guidance_rescale")}
    arguments |= {renamed[key]: given[key] for key in renamed if key in given}
    for key in ("original_size", "target_size", "crops_coords_top_left"):
        for key in (key, f"negative_{key}"):
            if key in arguments:
                arguments[key] = tuple(arguments[key])
    arguments |= prepare(pipeline, given)
    if "latents" in given:
        tensors["input.latents"] = torch.randn(1, *given["latents"], generator=torch.Generator().manual_seed(99))
        arguments["image"] = tensors["input.latents"].to(dtype)
    for key, argument in {"image": "image", "mask": "mask_image"}.items():
        if key in given:
            arguments[argument] = Image.open(inputs / given[key])
    if "image" in given:
        size = {key: given[key] for key in ("width", "height") if key in given}
        tensors["input.image"] = pipeline.image_processor.preprocess(arguments["image"], **size)
    if "mask" in given:
        tensors["input.mask"] = pipeline.mask_processor.preprocess(arguments["mask_image"], **size)
    with drawing(draws, dtype):
        picture = pipeline(**arguments).images
    if given["pipeline"] == "inpainting" and isinstance(pipeline.vae, diffusers.AsymmetricAutoencoderKL):
        draws.pop()  # when all is done, the picture is encoded once more for nothing
    tensors |= {f"draw.{i}": drawn for i, drawn in enumerate(draws)}
    tensors |= {f"latents.{i}": state for i, state in enumerate(latents)}
    tensors |= {"latents": latents[-1], "image": picture, "timesteps": torch.tensor(timesteps)}
    config = {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    return {"_class_name": type(pipeline.scheduler).__name__, **config}, tensors
