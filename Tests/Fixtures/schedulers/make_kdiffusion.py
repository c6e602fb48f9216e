"""Dumps trajectories of k-diffusion's own functions, in the format of `make_trajectories.py`, which see.

    pip install torch==2.13.0 diffusers==0.42.1 scipy torchsde==0.2.6 torchdiffeq tqdm
    pip install --no-deps k-diffusion==0.1.1.post1
    python make_kdiffusion.py [KIND…]

Samples are those that the model is asked about, and the last. Spacings that k-diffusion does not have are computed here from their definitions.
"""

import importlib
import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import diffusers
import numpy as np
import scipy.stats
import torch

import make_trajectories as common

# The package's own __init__ wants much that sampling does not need.
place = Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
package = types.ModuleType("k_diffusion")
package.__path__ = [str(place)]
sys.modules["k_diffusion"] = package
utils = types.ModuleType("k_diffusion.utils")
utils.append_dims = lambda x, count: x[(...,) + (None,) * (count - x.ndim)]
sys.modules["k_diffusion.utils"] = package.utils = utils
sampling = importlib.import_module("k_diffusion.sampling")

common.round_correctly()
CONFIG = common.sd()
BETAS = torch.linspace(CONFIG["beta_start"] ** 0.5, CONFIG["beta_end"] ** 0.5, 1000, dtype=torch.float32) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)
TABLE = ((1 - ALPHAS) / ALPHAS) ** 0.5
LOGS = TABLE.log()


def timestep(sigma):
    """`DiscreteSchedule.sigma_to_t` without rounding."""
    log = math.log(float(sigma))
    low = int(np.clip(np.searchsorted(LOGS.numpy(), log, side="right") - 1, 0, 998))
    weight = min(max((float(LOGS[low]) - log) / float(LOGS[low] - LOGS[low + 1]), 0), 1)
    return (1 - weight) * low + weight * (low + 1)


def sigma_at(t):
    """`DiscreteSchedule.t_to_sigma`."""
    low = min(int(t), 998)
    return math.exp((1 - (t - low)) * float(LOGS[low]) + (t - low) * float(LOGS[low + 1]))


def loglinear(values, count):
    if len(values) == count:
        return values
    logs = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(values)), np.log(values[::-1]))
    return np.exp(logs)[::-1]


def close(sigmas, single):
    assert np.allclose(sigmas, single[:-1].numpy(), rtol=1e-5), (sigmas, single)
    return sigmas


def spaced(name, steps):
    """σ of each step, without the last 0."""
    high, low = float(TABLE[-1]), float(TABLE[0])
    if name is None:
        # As diffusers' samplers have it, whose only step would start at the table's first timestep.
        return np.interp(np.linspace(0, 999, steps, dtype=np.float32)[::-1], np.arange(1000), TABLE.numpy())
    if steps == 1 and name in ("karras", "exponential", "polyexponential", "beta"):
        return np.array([low if name != "polyexponential" else high])
    # In double precision, since a Brownian path is sensitive to the last bit of σ. k-diffusion's own are the same to single precision.
    if name == "karras":
        sigmas = (high ** (1 / 7) + np.linspace(0, 1, steps) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
        return close(sigmas, sampling.get_sigmas_karras(steps, low, high))
    if name == "exponential":
        sigmas = np.exp(np.linspace(math.log(high), math.log(low), steps))
        return close(sigmas, sampling.get_sigmas_exponential(steps, low, high))
    if name == "polyexponential":
        sigmas = np.exp(np.linspace(1, 0, steps) * (math.log(high) - math.log(low)) + math.log(low))
        return close(sigmas, sampling.get_sigmas_polyexponential(steps, low, high))
    if name == "beta":
        return np.array([low + scipy.stats.beta.ppf(1 - u, 0.6, 0.6) * (high - low) for u in np.linspace(0, 1, steps)])
    if name == "kl-optimal":
        u = np.linspace(0, 1, steps)
        return np.tan(u * math.atan(low) + (1 - u) * math.atan(high))
    if name == "sgm-uniform":
        return np.array([sigma_at(t) for t in np.linspace(999, 0, steps + 1)[:-1]])
    if name == "simple":
        return np.array([float(TABLE[-(1 + int(i * 1000 / steps))]) for i in range(steps)])
    if name == "ddim-uniform":
        return np.array([float(TABLE[i]) for i in range(1, 1000, max(1000 // steps, 1))][::-1])
    if name == "linear-quadratic":
        if steps == 1:
            return np.array([high])
        linear, threshold = steps // 2, 0.025
        first = [i * threshold / linear for i in range(linear)]
        difference, rest = linear - threshold * steps, steps - linear
        square = difference / (linear * rest**2)
        slope = threshold / linear - 2 * difference / rest**2
        then = [square * i * i + slope * i + square * linear**2 for i in range(linear, steps)]
        return np.array([(1 - x) * high for x in first + then])
    if name == "gits":
        # Numbers of ComfyUI's table for the coefficient 1.2, those of 20 steps for all above.
        levels = GITS.get(steps, GITS[20])
        return np.array(loglinear(levels, steps + 1)[:-1])
    tables = diffusers.schedulers.AysSchedules
    table = {
        "align-your-steps": tables["StableDiffusionSigmas"][:-1] + [0.029],
        "align-your-steps-xl": tables["StableDiffusionXLSigmas"][:-1] + [0.029],
        "align-your-steps-svd": tables["StableDiffusionVideoSigmas"][:-1] + [0.002],
    }[name]
    return np.array(loglinear(table, steps + 1)[:-1])


GITS = {
    4: [14.61464119, 2.36326075, 0.92192322, 0.36617002, 0.02916753],
    20: [14.61464119, 7.49001646, 4.65472794, 3.07277966, 2.19988537, 1.61558151, 1.24153244, 0.95350921, 0.74807048, 0.59516323, 0.50118381, 0.41087446,
         0.34370604, 0.29807833, 0.25053367, 0.22545385, 0.19894916, 0.17026083, 0.13792117, 0.09824532, 0.02916753],
}  # fmt: skip
SPACINGS = [
    None, "karras", "exponential", "polyexponential", "beta", "kl-optimal", "sgm-uniform", "simple", "ddim-uniform", "linear-quadratic",
    "align-your-steps", "align-your-steps-xl", "align-your-steps-svd",
]  # fmt: skip


class Model:
    """The predictor in Karras' form, which writes down what it is asked."""

    def __init__(self, kind):
        self.kind, self.samples, self.timesteps, self.denoised = kind, [], [], None

    def __call__(self, x, sigma):
        self.samples.append(x)
        sigma = sigma[0]
        t = torch.tensor(timestep(sigma))
        self.timesteps.append(float(t))
        output = common.predict(x / (sigma**2 + 1) ** 0.5, t)
        if self.kind == "epsilon":
            self.denoised = x - sigma * output
        else:
            self.denoised = output * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)
        return self.denoised


def res_multistep(model, x, sigmas, noise_sampler, eta=0.0, s_noise=1.0, disable=None):
    """The definition of ComfyUI's `res_multistep`, in double precision: k-diffusion has none."""
    one, before, reached = x.new_ones([x.shape[0]]), None, None
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * one)
        sigma, end = float(sigmas[i]), float(sigmas[i + 1])
        down, up = (float(v) for v in sampling.get_ancestral_step(sigmas[i].double(), sigmas[i + 1].double(), eta))
        if down == 0 or before is None:
            x = x + (x - denoised) / sigma * (down - sigma)
        else:
            h = math.log(sigma / down)
            place = math.log(reached / float(sigmas[i - 1])) / h
            first = math.expm1(-h) / -h
            second = (first - 1) / -h
            x = math.exp(-h) * x + h * ((first - second / place) * denoised + second / place * before)
        if end > 0 and eta > 0:
            x = x + noise_sampler() * (s_noise * up)
        before, reached = denoised, down
    return x


def er_sde(model, x, sigmas, noise_sampler, s_noise=1.0, disable=None):
    """The definition of ComfyUI's `er_sde`, in double precision: k-diffusion has none."""
    phi = lambda sigma: sigma * (np.exp(sigma**0.3) + 10)
    one, past, values = x.new_ones([x.shape[0]]), [], [float(s) for s in sigmas]
    for i in range(len(values) - 1):
        denoised = model(x, sigmas[i] * one)
        past.append(denoised)
        if values[i + 1] == 0:
            x = denoised
            continue
        ratio, change = phi(values[i + 1]) / phi(values[i]), values[i + 1] - values[i]
        x = ratio * x + (1 - ratio) * denoised
        places = values[i + 1] + np.arange(200) * (-change / 200)
        if i > 0:
            slope = (past[i] - past[i - 1]) / (values[i] - values[i - 1])
            x = x + (change + float(np.sum(1 / phi(places))) * (-change / 200) * phi(values[i + 1])) * slope
        if i > 1:
            older = (past[i - 1] - past[i - 2]) / (values[i - 1] - values[i - 2])
            bend = (slope - older) / ((values[i] - values[i - 2]) / 2)
            integral = float(np.sum((places - values[i]) / phi(places))) * (-change / 200)
            x = x + (change**2 / 2 + integral * phi(values[i + 1])) * bend
        x = x + noise_sampler() * (s_noise * math.sqrt(max(values[i + 1] ** 2 - (values[i] * ratio) ** 2, 0)))
    return x


def karras(high, low, count):
    return (high ** (1 / 7) + np.linspace(0, 1, count) * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def restart(model, x, sigmas, noise_sampler, disable=None):
    """The definition of the webui's `restart_sampler` without a list, in double precision: k-diffusion has none."""
    one, values = x.new_ones([x.shape[0]]), [float(s) for s in sigmas]
    steps = len(values) - 1
    way = list(zip(values, values[1:]))
    if steps >= 20:
        length, times = (9, 1) if steps < 36 else (steps // 4, 2)
        values = [*karras(values[0], values[-2], steps - length * times), 0.0]
        bottom, top = (int(np.argmin(np.abs(np.array(values) - s))) for s in (0.1, 2.0))
        way = list(zip(values, values[1:]))
        again = karras(values[top], values[bottom], length + 1)
        assert top < bottom
        way[bottom:bottom] = list(zip(again, again[1:])) * times
    assert len(way) == steps
    before = None
    for sigma, end in way:
        if before is not None and before < sigma - 1e-9:
            x = x + noise_sampler() * math.sqrt(sigma**2 - before**2)
        slope = (x - model(x, sigma * one)) / sigma
        reached = x + slope * (end - sigma)
        if end > 0:
            slope = (slope + (reached - model(reached, end * one)) / end) / 2
            reached = x + slope * (end - sigma)
        x, before = reached, end
    return x


def heunpp2(model, x, sigmas, noise_sampler, disable=None):
    """The definition of ComfyUI's `heunpp2` without churn, in double precision: k-diffusion has none."""
    one, values = x.new_ones([x.shape[0]]), [float(s) for s in sigmas]
    for i in range(len(values) - 1):
        ahead = [s for s in values[i : i + 3] if s > 0]
        slopes, reached = [], x
        for k, sigma in enumerate(ahead):
            slopes.append((reached - model(reached, sigma * one)) / sigma)
            if k + 1 < len(ahead):
                reached = reached + slopes[k] * (ahead[k + 1] - sigma)
        weights = [s / (len(ahead) * values[0]) for s in ahead[1:]]
        slope = (1 - sum(weights)) * slopes[0] + sum(w * s for w, s in zip(weights, slopes[1:]))
        x = x + slope * (values[i + 1] - values[i])
    return x


def run(function, spacing, steps, kind="epsilon", begin=0, **options):
    sigmas = torch.from_numpy(np.concatenate([spaced(spacing, steps), [0.0]]).astype(np.float32))
    torch.manual_seed(common.SEED)
    drawn = common.Drawn()
    if function is sampling.sample_dpmpp_3m_sde:
        extra = {}
    else:
        extra = {"noise_sampler": lambda *_: drawn(common.SHAPE)}
    x = common.NOISE * sigmas[0]
    model = Model(kind)
    last = function(model, x, sigmas, disable=True, **extra, **options)
    case = {
        "config": {**CONFIG, "prediction_type": kind}, "steps": steps, "begin": begin, "spacing": spacing, **options,
        "timesteps": common.short(model.timesteps), "initialNoiseScale": common.short([float(sigmas.max())])[0], "hasOriginal": True,
    }  # fmt: skip
    return case, torch.stack(model.samples + [last, model.denoised]).numpy()


def main():
    kinds = {
        "dpmpp-2s-a": sampling.sample_dpmpp_2s_ancestral, "dpmpp-3m-sde": sampling.sample_dpmpp_3m_sde, "res-multistep": res_multistep,
        "er-sde": er_sde, "restart": restart, "heunpp2": heunpp2,
    }  # fmt: skip
    for name in sys.argv[1:] or kinds:
        function = kinds[name]
        # k-diffusion's third order needs a step before the one to nothing.
        counts = (2, 3, 7, 10) if name == "dpmpp-3m-sde" else (1, 2, 3, 7, 10)
        results = [run(function, None, n, kind) for n in counts for kind in ("epsilon", "v_prediction")]
        results += [run(function, spacing, n) for spacing in SPACINGS for n in counts if n != 7]
        if function is heunpp2:
            results += [run(function, "gits", n) for n in (4, 20, 24)]
        if function is restart:
            # Its spacing is Karras', and shows itself from 20 steps up.
            results = [run(function, None, n, kind) for n in (1, 2, 7, 20, 25, 36) for kind in ("epsilon", "v_prediction")]
            results += [run(function, "karras", n) for n in (1, 2, 3, 7, 19, 20, 36)]
        options = [{"eta": eta, "s_noise": s} for eta in (0.0, 0.5, 1.0) for s in (1.0, 1.003)]
        if function in (er_sde, restart, heunpp2):
            options = [{"s_noise": 1.003}] if function is er_sde else []
        results += [run(function, "karras", 8, **keys) for keys in options]
        offset = 0
        for case, samples in results:
            assert np.isfinite(samples).all(), case
            case["offset"] = offset
            offset += samples.size
        here = Path(__file__).parent
        (here / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(case) for case, _ in results) + "\n]\n")
        (here / f"{name}.f32").write_bytes(np.concatenate([s.astype("<f4").ravel() for _, s in results]).tobytes())
        print(name, len(results), "cases")


if __name__ == "__main__":
    main()
