"""Makes optimizers.safetensors, schedules.json and averages.safetensors: what PyTorch's optimisers do in twenty steps, the learning rates of
diffusers' schedules, clipping and averages.

    pip install torch==2.13.0 diffusers==0.42.0 transformers==5.24.0 prodigyopt==1.1.2 safetensors
    python make_optimizers.py

The problem is the same for all optimisers: the gradient of parameter p at step t is scale · (p − goal) + noise_t. It depends on the parameters, as
gradients do, so an error of one step is seen by those that follow. The parameters have the shapes of a vector, a matrix, the zeros that a LoRA
begins with, and a kernel.
"""

import json
import math
import pathlib

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from prodigyopt import Prodigy
from safetensors.torch import save_file
from transformers.optimization import Adafactor

HERE = pathlib.Path(__file__).parent
STEPS = 20
KEPT = (1, 2, 5, 20)
SHAPES = {"vector": (7,), "matrix": (5, 9), "zeros": (6, 2), "kernel": (4, 3, 3, 3)}


def problem():
    generator = torch.Generator().manual_seed(17)
    tensors = {}
    for name, shape in SHAPES.items():
        start = torch.zeros(shape) if name == "zeros" else torch.randn(shape, generator=generator) * 0.5
        tensors[f"start.{name}"] = start
        tensors[f"goal.{name}"] = torch.randn(shape, generator=generator)
        for step in range(STEPS):
            tensors[f"noise{step}.{name}"] = torch.randn(shape, generator=generator) * 0.1
    return tensors


def cases():
    constant, warm = [1e-2] * STEPS, [1e-2 * step / 5 for step in range(5)] + [1e-2] * (STEPS - 5)
    ones, warm_ones = [1.0] * STEPS, [step / 5 for step in range(5)] + [1.0] * (STEPS - 5)
    yield "adamw", "AdamW", {}, constant
    yield "adamw-warm", "AdamW", {"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}, warm
    yield "adamw-plain", "AdamW", {"betas": [0.0, 0.99], "weight_decay": 0.0}, constant
    given = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    yield "adafactor", "Adafactor", given, constant
    yield "adafactor-scaled", "Adafactor", {**given, "scale_parameter": True, "weight_decay": 0.1}, warm
    yield "adafactor-momentum", "Adafactor", {**given, "beta1": 0.9, "weight_decay": 0.01, "clip_threshold": 0.7, "decay_rate": -0.5}, constant
    relative = {"scale_parameter": True, "relative_step": True}
    yield "adafactor-relative", "Adafactor", {**relative, "warmup_init": False}, None
    yield "adafactor-relative-warm", "Adafactor", {**relative, "warmup_init": True}, None
    yield "prodigy", "Prodigy", {}, ones
    yield "prodigy-kohya", "Prodigy", {
        "betas": [0.9, 0.99], "weight_decay": 0.01, "decouple": True, "use_bias_correction": True, "safeguard_warmup": True, "d_coef": 2.0}, warm_ones
    yield "prodigy-coupled", "Prodigy", {"weight_decay": 0.05, "decouple": False, "growth_rate": 2.0, "d0": 1e-3, "beta3": 0.9}, ones
    yield "prodigy-plain", "Prodigy", {"betas": [0.0, 0.999], "d0": 1e-4}, ones


CLASSES = {"AdamW": torch.optim.AdamW, "Adafactor": Adafactor, "Prodigy": Prodigy}


def optimize(tensors, kind, settings, rates):
    parameters = {name: torch.nn.Parameter(tensors[f"start.{name}"].clone()) for name in SHAPES}
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    first = {} if rates is None else {"lr": max(rates)}
    optimizer = CLASSES[kind](list(parameters.values()), **first, **settings)
    kept, estimates = {}, []
    for step in range(STEPS):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        for name, parameter in parameters.items():
            value = parameter.detach()
            parameter.grad = 0.7 * (value - tensors[f"goal.{name}"]) + tensors[f"noise{step}.{name}"]
        optimizer.step()
        estimates.append(optimizer.param_groups[0].get("d", 0.0))
        if step + 1 in KEPT:
            kept.update({f"step{step + 1}.{name}": parameter.detach().clone() for name, parameter in parameters.items()})
    return kept, estimates


def make_optimizers():
    tensors = problem()
    file = {f"problem.{name}": tensor for name, tensor in tensors.items()}
    listed = [{"name": "problem"}]
    for name, kind, settings, rates in cases():
        kept, estimates = optimize(tensors, kind, settings, rates)
        file.update({f"{name}.{key}": tensor for key, tensor in kept.items()})
        case = {"name": name, "optimizer": kind, "settings": settings, "rates": rates or [1.0] * STEPS}
        if kind == "Prodigy":
            case["estimates"] = estimates
        listed.append(case)
    save_file(file, HERE / "optimizers.safetensors", metadata={"cases": json.dumps(listed)})


def make_schedules():
    schedules = []
    for name, rate, warmup, steps, extra in [
        ("constant", 1e-4, 0, 12, {}), ("constant_with_warmup", 3e-4, 5, 12, {}), ("linear", 1e-4, 0, 10, {}), ("linear", 2e-5, 7, 40, {}),
        ("cosine", 1e-4, 0, 10, {}), ("cosine", 1e-3, 6, 33, {}), ("cosine_with_restarts", 1e-4, 0, 24, {"num_cycles": 3}),
        ("cosine_with_restarts", 1e-4, 4, 31, {"num_cycles": 1}), ("cosine_with_restarts", 1.0, 3, 17, {"num_cycles": 4}),
        ("polynomial", 1e-4, 0, 10, {"power": 1.0}), ("polynomial", 5e-6, 4, 30, {"power": 2.5}),
    ]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps, **extra)
        rates = []
        for _ in range(steps + 1):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        schedules.append({"name": name, "rate": rate, "warmup": warmup, "steps": steps, **extra, "rates": rates})
    (HERE / "schedules.json").write_text(json.dumps(schedules, indent=1) + "\n")


def make_averages():
    generator = torch.Generator().manual_seed(5)
    shapes = {"a": (9,), "b": (4, 6)}
    file, listed = {}, []
    for name, settings in {
        "plain": {}, "warmup": {"use_ema_warmup": True, "inv_gamma": 1.0, "power": 0.75, "decay": 0.8}, "late": {"update_after_step": 4},
        "bounds": {"use_ema_warmup": True, "inv_gamma": 2.0, "power": 2 / 3, "min_decay": 0.3, "decay": 0.6},
    }.items():
        parameters = {key: torch.nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in shapes.items()}
        file.update({f"{name}.start.{key}": parameter.detach().clone() for key, parameter in parameters.items()})
        average, decays = EMAModel(parameters.values(), **settings), []
        for step in range(12):
            for key, parameter in parameters.items():
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
                file[f"{name}.step{step}.{key}"] = parameter.detach().clone()
            average.step(parameters.values())
            decays.append(average.cur_decay_value)
        file.update({f"{name}.average.{key}": value.clone() for key, value in zip(shapes, average.shadow_params)})
        listed.append({"name": name, "settings": settings, "decays": decays})
    for name, norm in {"clipped": 1.5, "kept": 1e3}.items():
        tensors = [torch.randn(shape, generator=generator) for shape in shapes.values()]
        file.update({f"{name}.before.{key}": tensor.clone() for key, tensor in zip(shapes, tensors)})
        parameters = [torch.nn.Parameter(torch.zeros_like(tensor)) for tensor in tensors]
        for parameter, tensor in zip(parameters, tensors):
            parameter.grad = tensor
        total = torch.nn.utils.clip_grad_norm_(parameters, norm)
        file.update({f"{name}.after.{key}": parameter.grad for key, parameter in zip(shapes, parameters)})
        listed.append({"name": name, "norm": norm, "found": total.item()})
    save_file(file, HERE / "averages.safetensors", metadata={"cases": json.dumps(listed)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert math.isclose(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults["weight_decay"], 0.01)
    make_optimizers()
    make_schedules()
    make_averages()
    for path in sorted(HERE.glob("*")):
        print(path.name, path.stat().st_size, "bytes")
