#!/usr/bin/env python3
"""Runs diffusers' own fast tests and writes down what they give and what they expect: cases.json, components/, tokenizer/, inputs/.

    pip install -r ../models/requirements.txt pytest parameterized requests requests_mock
    git clone --depth 1 --branch v0.40.0 https://github.com/huggingface/diffusers
    PYTHONPATH=diffusers python make_published.py

The tests initialise their models from PyTorch's seed. Weights are not stored: a component's file holds its configuration and, in order, the draws
from PyTorch's generator that its initialisation made (`draws`: name, shape, kind, two numbers; a draw without a name was overwritten later), so that
whoever has the generator has the weights. `constants` are the parameters that are no draw. Both are checked here.

`expected` in cases.json is the slice that stands in diffusers' test, `tolerance` what the test allows. `reference` is the slice that the installed
diffusers gives: the expectations of some tests are older. A slice is the last channel's lower right 3x3 pixels.

The tests' tokenizer is hf-internal-testing/tiny-random-clip. tokenizer/ has those of its tokens, under their numbers, and those of its merges that
the prompts of the cases need.
"""

import contextlib
import hashlib
import importlib
import inspect
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTokenizer

HERE = Path(__file__).resolve().parent
TAG = "v0.40.0"

# A module of diffusers' tests, and those of its tests that expect a slice.
SD, XL, CONTROL = "stable_diffusion", "stable_diffusion_xl", "controlnet"
TESTS = {
    f"{SD}.test_stable_diffusion": [
        *(f"stable_diffusion_{x}" for x in ("ddim", "lcm", "ddim_factor_8", "pndm", "k_lms", "k_euler_ancestral", "k_euler", "negative_prompt"))],
    f"{SD}.test_stable_diffusion_img2img": [
        *(f"stable_diffusion_img2img_{x}" for x in (
            "default_case", "default_case_lcm", "negative_prompt", "multiple_init_images", "k_lms"))],
    f"{SD}.test_stable_diffusion_inpaint": [
        "stable_diffusion_inpaint", "stable_diffusion_inpaint_lcm", "stable_diffusion_inpaint_euler"],
    f"{SD}.test_stable_diffusion_instruction_pix2pix": [
        *(f"stable_diffusion_pix2pix_{x}" for x in ("default_case", "negative_prompt", "multiple_init_images", "euler"))],
    f"{SD}_2.test_stable_diffusion": [*(f"stable_diffusion_{x}" for x in ("ddim", "pndm", "k_lms", "k_euler_ancestral", "k_euler"))],
    f"{SD}_2.test_stable_diffusion_inpaint": ["stable_diffusion_inpaint"],
    f"{SD}_2.test_stable_diffusion_upscale": ["stable_diffusion_upscale"],
    f"{SD}_2.test_stable_diffusion_v_pred": ["stable_diffusion_v_pred_ddim", "stable_diffusion_v_pred_k_euler"],
    f"{XL}.test_stable_diffusion_xl": ["stable_diffusion_xl_euler", "stable_diffusion_xl_euler_lcm"],
    f"{XL}.test_stable_diffusion_xl_img2img": ["stable_diffusion_xl_img2img_euler", "stable_diffusion_xl_img2img_euler_lcm"],
    f"{XL}.test_stable_diffusion_xl_inpaint": [
        "stable_diffusion_xl_inpaint_euler", "stable_diffusion_xl_inpaint_euler_lcm", "stable_diffusion_xl_refiner"],
    f"{XL}.test_stable_diffusion_xl_adapter": ["stable_diffusion_adapter_default_case", "adapter_sdxl_lcm"],
    f"{SD}_image_variation.test_stable_diffusion_image_variation": [
        "stable_diffusion_img_variation_default_case", "stable_diffusion_img_variation_multiple_images"],
    f"{SD}_adapter.test_stable_diffusion_adapter": ["stable_diffusion_adapter_default_case", "adapter_lcm"],
    "latent_consistency_models.test_latent_consistency_models": ["lcm_onestep", "lcm_multistep"],
    "latent_consistency_models.test_latent_consistency_models_img2img": ["lcm_onestep", "lcm_multistep"],
    f"{CONTROL}.test_controlnet_sdxl_img2img": [
        "stable_diffusion_xl_controlnet_img2img", "stable_diffusion_xl_controlnet_img2img_guess"],
    "stable_unclip.test_stable_unclip_img2img": ["image_embeds_none"],
    "ddpm.test_ddpm": ["fast_inference"],
    "ddim.test_ddim": ["inference"],
    "pndm.test_pndm": ["inference"],
}


# Classes of tests that need trained weights or a GPU, that wrap several adapters in one component, whose adapter has a level more than fits (which
# diffusers leaves out without a word), or that only others inherit.
OTHERS = ("Slow", "Nightly", "Integration", "MultiAdapter", "LightAdapter", "AdapterTests")


class Draws(TorchDispatchMode):
    """Every draw from PyTorch's generator, in order, and the seeds between."""

    def __init__(self):
        super().__init__()
        self.log = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        if name in ("uniform_", "normal_"):
            numbers = [float(x) for x in arguments[1:3]] + [float(v) for k, v in (keywords or {}).items() if k in ("from", "to", "mean", "std")]
            numbers = numbers or [0.0, 1.0]
            self.log.append((name[:-1], arguments[0], numbers if len(numbers) == 2 else numbers + [1.0]))
        elif name == "randn":
            self.log.append(("normal", result, [0.0, 1.0]))
        elif name in ("rand", "randint", "bernoulli_", "random_", "randperm", "multinomial", "exponential_", "truncated_normal_"):
            raise NotImplementedError(name)
        return result

    def __enter__(self):
        self.seed = torch.manual_seed

        def manual_seed(value):
            self.log.append(("seed", value, None))
            return self.seed(value)

        torch.manual_seed = manual_seed
        return super().__enter__()

    def __exit__(self, *error):
        torch.manual_seed = self.seed
        return super().__exit__(*error)


def is_constant(parameter):
    return bool((parameter == parameter.flatten()[0]).all())


def recipe(module, log):
    """How the initialisation made a module's parameters."""
    names = {p.data_ptr(): (name, p) for name, p in module.state_dict().items() if p.numel()}
    places = {tensor.data_ptr(): index for index, (kind, tensor, _) in enumerate(log) if kind != "seed" and tensor.data_ptr() in names}
    # What was drawn and then set to a constant is a constant.
    places = {key: index for key, index in places.items() if not is_constant(names[key][1])}
    assert places or all(is_constant(p) for p in module.state_dict().values())
    if not places:
        return dict(seed=0, draws=[], constants=[[name, list(p.shape), float(p.flatten()[0])] for name, p in module.state_dict().items()])
    first, last = min(places.values()), max(places.values())
    seeds = [index for index, item in enumerate(log) if item[0] == "seed" and index < first]
    start = seeds[-1]
    assert not [item for item in log[start + 1:last] if item[0] == "seed"]
    draws = []
    for index in range(start + 1, last + 1):
        kind, tensor, numbers = log[index]
        name = names[tensor.data_ptr()][0] if places.get(tensor.data_ptr()) == index else None
        draws.append([name, list(tensor.shape), kind, *[float(np.float32(x)) if kind == "normal" else x for x in numbers]])
    generator = torch.Generator().manual_seed(log[start][1])
    drawn = {}
    for name, shape, kind, a, b in draws:
        value = getattr(torch.empty(shape), kind + "_")(a, b, generator=generator)
        if name is not None:
            drawn[name] = value
    constants = []
    for name, parameter in module.state_dict().items():
        if name in drawn:
            assert torch.equal(drawn[name].reshape(parameter.shape), parameter), f"{name} is not what was drawn"
        else:
            assert is_constant(parameter), f"{name} is neither drawn nor constant"
            constants.append([name, list(parameter.shape), float(parameter.flatten()[0])])
    return dict(seed=log[start][1], draws=draws, constants=constants)


def shortened(draws):
    """Draws of parameters, with those that were overwritten summed up as they are drawn."""
    return [[name, shape if name else [int(np.prod(shape))], kind, a, b] for name, shape, kind, a, b in draws]


class Components:
    """Every component once."""

    def __init__(self):
        self.files = {}

    def name(self, component, module, log):
        config = json.loads((module if hasattr(module, "to_json_string") else module.config).to_json_string())
        if not hasattr(module, "to_json_string"):
            # As transformers adds it to what it saves.
            config["architectures"] = [type(module).__name__]
        content = dict(type=type(module).__name__, config=config, **recipe(module, log))
        content["draws"] = shortened(content["draws"])
        text = json.dumps(content, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self.files:
            count = sum(name.startswith(component + "-") for name, _ in self.files.values())
            self.files[digest] = (f"{component}-{count}", text)
        return self.files[digest][0]

    def write(self, folder):
        folder.mkdir(exist_ok=True)
        for name, text in self.files.values():
            text = text.replace(',["', ',\n["').replace(",[null", ",\n[null") + "\n"
            assert len(text) < 200_000, f"{name}: {len(text)}"
            (folder / f"{name}.json").write_text(text)


class Inputs:
    """Every picture once: PNG where a test gives a picture, numbers in CHW where it gives a tensor."""

    def __init__(self):
        self.tensors, self.pictures = {}, {}

    def name(self, value):
        if isinstance(value, list):
            return [self.name(item) for item in value]
        if isinstance(value, Image.Image):
            name = hashlib.sha256(value.tobytes() + str(value.size).encode()).hexdigest()[:8] + ".png"
            self.pictures[name] = value
            return name
        tensor = value.detach().float().contiguous()
        name = hashlib.sha256(tensor.numpy().tobytes() + str(tensor.shape).encode()).hexdigest()[:8] + ".safetensors"
        self.tensors[name] = tensor.clone()
        return name

    def write(self, folder):
        folder.mkdir(exist_ok=True)
        for name, picture in self.pictures.items():
            picture.save(folder / name)
        for name, tensor in self.tensors.items():
            save_file({"input": tensor}, folder / name)


def plain(value, inputs):
    """An argument of a pipeline as JSON has it."""
    if isinstance(value, torch.Generator):
        fresh = torch.Generator().manual_seed(value.initial_seed())
        assert torch.equal(value.get_state(), fresh.get_state()), "something was drawn from the generator before"
        return value.initial_seed()
    if isinstance(value, (torch.Tensor, Image.Image)) or isinstance(value, list) and value and isinstance(value[0], Image.Image):
        return inputs.name(value)
    return value


class Run:
    """One test, with what its pipeline was called with."""

    def __init__(self, module, kind, method):
        self.module, self.kind, self.method = module, kind, method
        self.calls, self.draws, self.found = [], Draws(), {}

    def make(self, original):
        def components(test, *arguments, **keywords):
            with self.draws:
                return original(test, *arguments, **keywords)
        return components

    def __call__(self):
        kind, is_whole = self.kind, not hasattr(self.kind, "get_dummy_components")
        if not is_whole:
            kind = type(kind.__name__, (kind,), {"get_dummy_components": self.make(kind.get_dummy_components)})
        test = kind(self.method) if hasattr(kind, "assertEqual") else kind()
        calls, patched = self.calls, {}

        def watch(frame, event, _):
            if event == "return" and frame.f_code.co_name == self.method:
                self.found = dict(frame.f_locals)

        classes = {c for c in vars(self.module).values() if inspect.isclass(c) and issubclass(c, DiffusionPipeline)}
        for c in classes:
            patched[c] = c.__call__

            def call(pipeline, *arguments, original=c.__call__, **keywords):
                names = list(inspect.signature(original).parameters)[1:]
                given = {**dict(zip(names, arguments)), **keywords}
                seed = {k: plain(v, None) for k, v in given.items() if isinstance(v, torch.Generator)}
                result = original(pipeline, *arguments, **keywords)
                image = result[0] if isinstance(result, tuple) else getattr(result, "images", None)
                calls.append((pipeline, {**given, **seed}, image))
                return result

            c.__call__ = call
        sys.setprofile(watch)
        try:
            with self.draws if is_whole else contextlib.nullcontext():
                getattr(test, self.method)()
        finally:
            sys.setprofile(None)
            for c, original in patched.items():
                c.__call__ = original
        return self.calls


def slices(image):
    """The lower right 3x3 of the last channel of each picture."""
    image = image.float().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if image.shape[-1] not in (1, 3, 4):
        image = image.transpose(0, 2, 3, 1)
    return [picture[-3:, -3:, -1].flatten() for picture in image]


def tolerance(source):
    """What a test allows: the last number beside its comparison."""
    found = re.findall(r"(?:<=?|atol=|expected_max_diff(?:erence)?=|,)\s*(\d+(?:\.\d*)?e-\d|0\.0\d+)\s*\)?\s*(?:,|\n|$)", source)
    return float(found[-1])


def tokenizer_part(tokenizer, prompts):
    """The tokens and merges that the prompts need."""
    serialized = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary, merges = serialized["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in serialized["merges"]]
    rank = {pair: index for index, pair in enumerate(merges)}
    used, kept = {tokenizer.bos_token, tokenizer.eos_token}, set()
    for word in {word for prompt in prompts for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", prompt.lower())}:
        pieces = [*word[:-1], word[-1] + "</w>"]
        used.update(pieces)
        while True:
            pairs = [(rank[pair], i) for i, pair in enumerate(zip(pieces, pieces[1:])) if pair in rank]
            if not pairs:
                break
            index, i = min(pairs)
            kept.add(index)
            pieces[i:i + 2] = ["".join(merges[index])]
            used.add(pieces[i])
    return {token: vocabulary[token] for token in sorted(used, key=vocabulary.get)}, [merges[index] for index in sorted(kept)]


def case(name, run, components, inputs):
    pipeline, given, image = run.calls[0]
    source = inspect.getsource(getattr(run.kind, run.method))
    wanted = next(v for k, v in run.found.items() if re.fullmatch(r"expected(_image)?_slice", k))
    wanted = np.asarray(wanted, dtype=np.float32)
    found = min(slices(image), key=lambda s: abs(s - wanted).max())
    parts, types = {}, {}
    for part, value in pipeline.components.items():
        # The image encoder of SDXL is for adapters that no test loads.
        if isinstance(value, torch.nn.Module) and (part != "image_encoder" or "XL" not in type(pipeline).__name__):
            parts[part] = components.name(part, value, run.draws.log)
            types[part] = [type(value).__module__.split(".")[0], type(value).__name__]
    files = {part: json.loads(value.to_json_string()) for part, value in pipeline.components.items() if part.endswith("scheduler")}
    others = {k: v for k, v in dict(pipeline.config).items() if isinstance(v, (bool, int, float)) and not k.startswith("_")}
    place = [index for index, s in enumerate(slices(image)) if s is found or np.array_equal(s, found)][0]
    described = dict(
        name=f"{run.kind.__name__}.{run.method}", file="tests/" + run.module.__name__.removeprefix("tests.").replace(".", "/") + ".py",
        version=TAG.removeprefix("v"), pipeline=type(pipeline).__name__, parts=parts, types=types, schedulers=files, options=others,
        arguments={k: plain(v, inputs) for k, v in given.items() if v is not None and k not in ("output_type", "callback", "callback_steps")},
        picture=place, shape=list(np.shape(image)), expected=[float(f"{x:.6g}") for x in wanted.flatten()], tolerance=tolerance(source),
        reference=[float(f"{x:.7g}") for x in found])
    processor = pipeline.components.get("feature_extractor")
    if processor is not None:
        described["feature_extractor"] = {k: v for k, v in json.loads(processor.to_json_string()).items() if v is not None}
    print(f"{name} {run.method}: diffusers {version('diffusers')} is {abs(found - wanted.flatten()).max():.1e} away, of {described['tolerance']}")
    return described


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    components, inputs, cases = Components(), Inputs(), []
    for name, tests in TESTS.items():
        module = importlib.import_module(f"tests.pipelines.{name}")
        for kind in list(vars(module).values()):
            if not inspect.isclass(kind) or kind.__module__ != module.__name__ or any(word in kind.__name__ for word in OTHERS):
                continue
            for method in tests:
                method = f"test_{method}"
                if not hasattr(kind, method) or "expected_" not in inspect.getsource(getattr(kind, method)):
                    continue
                run = Run(module, kind, method)
                run()
                cases.append(case(name, run, components, inputs))
    tokenizer = CLIPTokenizer.from_pretrained("hf-internal-testing/tiny-random-clip")
    prompts = {""} | {p for c in cases for k, v in c["arguments"].items() if "prompt" in k for p in (v if isinstance(v, list) else [v]) if isinstance(p, str)}
    vocabulary, merges = tokenizer_part(tokenizer, prompts)
    folder = HERE / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in merges))
    marks = dict(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token, unk_token=tokenizer.unk_token)
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        model_max_length=tokenizer.model_max_length, tokenizer_class="CLIPTokenizer", do_lower_case=True, **marks)) + "\n")
    components.write(HERE / "components")
    inputs.write(HERE / "inputs")
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(f"{len(cases)} cases")


main()
