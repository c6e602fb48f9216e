"""Makes objectives.safetensors and autoencoder.safetensors: losses of noise prediction and of autoencoders, with PyTorch's gradients.

    pip install torch==2.13.0 diffusers==0.42.0 safetensors
    python make_objectives.py

The steps of noise prediction are those of diffusers' train_text_to_image.py: noise, its offset, its perturbation and the timesteps are drawn in that
order, and min-SNR weights are computed as there. Debiased estimation is kohya's, Huber's loss that of diffusers' scripts with a scheduled one.
"""

import json
import pathlib

import torch
from diffusers import DDPMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def elements(kind, c, answer, target):
    error = answer - target
    return {
        "l2": lambda: error**2, "l1": lambda: error.abs(), "huber": lambda: 2 * c * (torch.sqrt(error**2 + c**2) - c),
        "smooth_l1": lambda: 2 * (torch.sqrt(error**2 + c**2) - c),
    }[kind]()


def weights(scheduler, timesteps, prediction, weighting, gamma):
    snr = compute_snr(scheduler, timesteps)
    if weighting == "uniform":
        return torch.ones_like(snr)
    if weighting == "min_snr":
        smaller = torch.stack([snr, gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
        return {"epsilon": lambda: smaller / snr, "v_prediction": lambda: smaller / (snr + 1), "sample": lambda: smaller}[prediction]()
    limited = snr.clamp(max=1000)
    return {"epsilon": lambda: 1 / limited.sqrt(), "v_prediction": lambda: 1 / (limited + 1), "sample": lambda: limited.sqrt()}[prediction]()


def objective(name, file, *, prediction="epsilon", weighting="uniform", gamma=0.0, loss="l2", c=0.0, offset=0.0, perturbation=0.0, scheduler=None):
    """One step with the global generator, as the script has it."""
    configuration = {**SCALED, **(scheduler or {}), "prediction_type": prediction}
    scheduler = DDPMScheduler.from_config(configuration)
    seed = sum(name.encode())
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((3, 4, 5, 6), generator=torch.Generator().manual_seed(seed + 1))
    noise = torch.randn(latents.shape, generator=generator)
    if offset:
        noise += offset * torch.randn((3, 4, 1, 1), generator=generator)
    added = noise + perturbation * torch.randn(latents.shape, generator=generator) if perturbation else noise
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (3,), generator=generator)
    sample = scheduler.add_noise(latents, added, timesteps)
    target = {"epsilon": lambda: noise, "sample": lambda: latents, "v_prediction": lambda: scheduler.get_velocity(latents, noise, timesteps)}[prediction]()
    answer = (target + 0.3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed + 2))).requires_grad_()
    each = elements(loss, c, answer, target).mean(dim=[1, 2, 3]) * weights(scheduler, timesteps, prediction, weighting, gamma)
    each.mean().backward()
    for key, tensor in {"latents": latents, "sample": sample, "target": target, "answer": answer.detach(), "gradient": answer.grad}.items():
        file[f"{name}.{key}"] = tensor.clone().contiguous()
    return {
        "name": name, "scheduler": configuration, "seed": seed, "weighting": weighting, "gamma": gamma, "lossType": loss, "c": c,
        "offset": offset, "perturbation": perturbation, "timesteps": timesteps.tolist(), "loss": each.mean().item()}


def make_objectives():
    file, cases = {}, []
    zero = {"rescale_betas_zero_snr": True}
    for prediction in ("epsilon", "v_prediction", "sample"):
        for weighting, gamma in (("uniform", 0.0), ("min_snr", 5.0), ("debiased", 0.0)):
            cases.append(objective(f"{prediction}-{weighting}", file, prediction=prediction, weighting=weighting, gamma=gamma))
    cases.append(objective("offset", file, offset=0.05))
    cases.append(objective("perturbed", file, offset=0.1, perturbation=0.1, prediction="v_prediction", weighting="min_snr", gamma=1.0))
    cases.append(objective("huber", file, loss="huber", c=0.1))
    cases.append(objective("smooth", file, loss="smooth_l1", c=0.2, weighting="min_snr", gamma=5.0))
    cases.append(objective("absolute", file, loss="l1"))
    cases.append(objective("short", file, scheduler={"num_train_timesteps": 3, **zero}, prediction="v_prediction", weighting="min_snr", gamma=5.0))
    save_file(file, HERE / "objectives.safetensors", metadata={"cases": json.dumps(cases)})


def edges(answer, target, scales):
    """The multi-scale loss of differences between neighbours, written with PyTorch's own operations."""
    total = 0
    for scale in range(scales):
        for axis in (2, 3):
            total = total + 0.5 / scales * (answer.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
        if scale + 1 < scales:
            answer, target = (torch.nn.functional.avg_pool2d(picture, 2) for picture in (answer, target))
    return total


def make_autoencoder():
    generator = torch.Generator().manual_seed(23)
    file, cases = {}, []
    for name, shape, scales in (("even", (2, 3, 16, 8), 3), ("odd", (1, 3, 13, 11), 2), ("one", (2, 1, 2, 5), 1)):
        target = torch.rand(shape, generator=generator) * 2 - 1
        answer = (target + 0.2 * torch.randn(shape, generator=generator)).requires_grad_()
        case = {"name": name, "scales": scales}
        for kind, loss in {
            "edges": edges(answer, target, scales), "l1": torch.nn.functional.l1_loss(answer, target),
            "l2": torch.nn.functional.mse_loss(answer, target),
        }.items():
            (gradient,) = torch.autograd.grad(loss, answer)
            file[f"{name}.{kind}"] = gradient
            case[kind] = loss.item()
        file.update({f"{name}.target": target, f"{name}.answer": answer.detach()})
        cases.append(case)
    # The logarithms of the second case lie on and beyond both ends of the range.
    for name, logarithms in {"gaussian": [0.0, 1.0, -2.0, 2.0], "clamped": [-40.0, 25.0, -30.0, 20.0]}.items():
        moments = torch.randn((2, 8, 3, 5), generator=generator)
        moments[0, 4:, 0, 0] = torch.tensor(logarithms)
        moments.requires_grad_()
        distribution = DiagonalGaussianDistribution(moments)
        divergence = distribution.kl().mean()
        (gradient,) = torch.autograd.grad(divergence, moments, retain_graph=True)
        noise, slope = (torch.randn((2, 4, 3, 5), generator=generator) for _ in range(2))
        (sampled,) = torch.autograd.grad(distribution.mean + distribution.std * noise, moments, slope)
        file.update({
            f"{name}.moments": moments.detach(), f"{name}.gradient": gradient, f"{name}.noise": noise, f"{name}.slope": slope,
            f"{name}.sampled": sampled})
        cases.append({"name": name, "divergence": divergence.item()})
    save_file({name: tensor.contiguous() for name, tensor in file.items()}, HERE / "autoencoder.safetensors", metadata={"cases": json.dumps(cases)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_objectives()
    make_autoencoder()
    for path in sorted(HERE.glob("*.safetensors")):
        print(path.name, path.stat().st_size, "bytes")
