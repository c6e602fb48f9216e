"""What the peers have in common: the command line, the work, and how its answer is told."""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

PASSES = ["predictor", "controlnet", "vae-decode", "vae-encode", "text", "picture"]
PROMPT = "a photograph of an astronaut riding a horse"
TIMESTEP = 501


# Where converted models are kept.
CACHE = Path(os.environ.get("PEERS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latent-diffusion-peers")


def arguments(description, choices=PASSES, **more):
    """The command line of `ldm bench`, and what a peer adds: names of options with what argparse is to know of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", type=Path, help="a folder as diffusers saves it")
    parser.add_argument("--pass", dest="part", choices=choices, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, help="of a whole picture; 20 of DPM-Solver++ 2M where the model recommends none")
    parser.add_argument("--frames", type=int, help="of clips, for a U-Net with motion modules")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where converted models are kept; {CACHE} if not given")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the answer is always JSON")
    for name, about in more.items():
        parser.add_argument(f"--{name}", **about)
    return parser.parse_args()


def timed(run, repeats, warm_up=None):
    """Seconds of each repeat, after a first run that is not counted."""
    (warm_up or run)()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes():
    """The most memory that the process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `getrusage`, which begins with the peak of the program that started this one.
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def configuration(model, part):
    return json.loads((Path(model) / part / "config.json").read_text())


def recommendations(model):
    """What a model says of steps and guidance, which `ldm` follows too."""
    file = model / "generation_defaults.json"
    return json.loads(file.read_text()) if file.exists() else {}


def component(given):
    """The folder of the model that the pass needs."""
    return {"predictor": "unet", "controlnet": "controlnet", "text": "text_encoder"}.get(given.part, "vae")


def inputs(given):
    """What goes into a pass, as NumPy arrays by name: noise, always the same."""
    import numpy

    noise = numpy.random.default_rng(0)

    def normal(*shape):
        return noise.standard_normal(shape, dtype=numpy.float32)

    vae, own = configuration(given.model, "vae"), configuration(given.model, component(given))
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    length = json.loads((given.model / "tokenizer/tokenizer_config.json").read_text())["model_max_length"]
    rows, columns = given.height // scale, given.width // scale
    if given.part in ("predictor", "controlnet"):
        frames = [given.frames] if given.frames else []
        taken = {"latents": normal(given.batch, own["in_channels"], *frames, rows, columns), "timestep": numpy.array(TIMESTEP),
                 "states": normal(given.batch, length, own["cross_attention_dim"])}
        if given.frames:
            taken["states"] = taken["states"].repeat(given.frames, axis=0)
        if given.part == "controlnet":
            taken["picture"] = normal(given.batch, own["conditioning_channels"], given.height, given.width).clip(0, 1)
        if own.get("addition_embed_type") == "text_time":
            numbers = 6
            pooled = own["projection_class_embeddings_input_dim"] - numbers * own["addition_time_embed_dim"]
            taken |= {"text_embeds": normal(given.batch, pooled), "time_ids": numpy.ones((given.batch, numbers), numpy.float32)}
        return taken
    if given.part == "vae-decode":
        return {"latents": normal(given.batch, vae["latent_channels"], rows, columns)}
    if given.part == "vae-encode":
        return {"picture": normal(given.batch, 3, given.height, given.width).clip(-1, 1)}
    return {"ids": noise.integers(0, own["vocab_size"], (given.batch, length))}


def module(given):
    """The pass as a module of PyTorch's in float32."""
    import diffusers
    import torch
    from transformers import CLIPTextModel

    class Pass(torch.nn.Module):
        def __init__(self, call):
            super().__init__()
            kind = CLIPTextModel if given.part == "text" else getattr(diffusers, configuration(given.model, component(given))["_class_name"])
            self.part = kind.from_pretrained(given.model, subfolder=component(given), dtype=torch.float32).eval()
            if given.frames:
                motion = diffusers.MotionAdapter.from_pretrained(given.model / "motion", dtype=torch.float32)
                self.part = diffusers.UNetMotionModel.from_unet2d(self.part, motion).eval()
            self.call = call

        def forward(self, *inputs):
            return self.call(self.part, *inputs)

    def added(inputs):
        return dict(added_cond_kwargs=dict(zip(("text_embeds", "time_ids"), inputs)) or None, return_dict=False)

    def encoded(result):
        """The distribution's parameters, or the latents of an autoencoder that has none."""
        return getattr(result, "parameters", result)

    return Pass({
        "predictor": lambda unet, latents, time, states, *more: unet(latents, time, states, **added(more))[0],
        "controlnet": lambda net, latents, time, states, picture, *more: flat(net(latents, time, states, picture, **added(more))),
        "vae-decode": lambda vae, latents: vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0],
        "vae-encode": lambda vae, picture: encoded(vae.encode(picture, return_dict=False)[0]),
        "text": lambda encoder, ids: encoder(ids, return_dict=False)[0],
    }[given.part])


def flat(said):
    """What a ControlNet says, of the way down and of the middle, as one tuple."""
    down, middle = said
    return *down, middle


def quiet_libraries():
    """Nothing is downloaded and nothing but the answer is printed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import warnings

    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore")
    for messages in (logging, transformers_logging):
        messages.set_verbosity_error()
        messages.disable_progress_bar()
