"""Dumps trajectories of diffusers' schedulers, step by step: KIND.json (cases) and KIND.f32 (samples, little-endian float32).

Made with diffusers 0.42.1, torch 2.13.0 (CPU), numpy 2.x, scipy 1.17, torchsde 0.2.6, k-diffusion 0.1.1 (without its dependencies):
    python make_trajectories.py [KIND…]

Samples have the shape [2, 4, 2, 3] (NCHW). The predictor is a formula, the noise a Weyl sequence in place of a random generator, so
that whatever compares against these files can make both itself. For each case KIND.f32 holds, from `offset` (in floats) on: the
sample that the loop starts from, the sample after each step, and where `hasOriginal` the predicted clean sample of the last step.
"""

import importlib
import json
import pathlib
import sys

import diffusers
import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
SHAPE = (2, 4, 2, 3)
# Of torch's global generator, from which a Brownian path's seed is drawn where nobody gives one.
SEED = 11
COUNT = int(np.prod(SHAPE))


def weyl(step, count, start=0):
    """Evenly spread numbers with mean 0 and variance 1: the fractions of multiples of an irrational number."""
    fractions = np.modf((np.arange(start, start + count, dtype=np.float64) + 1) * step)[0]
    return torch.from_numpy(((fractions - 0.5) * np.sqrt(12.0)).astype(np.float32))


NOISE = weyl(0.6180339887498949, COUNT).reshape(SHAPE)
DATA = weyl(0.7548776662466927, COUNT).reshape(SHAPE)
PATTERN = weyl(0.5698402909980532, COUNT).reshape(SHAPE)


def round_correctly():
    """PyTorch's square roots, logarithms and exponentials are off in the last bit on some processors and not on others. Where a sampler subtracts numbers
    that are nearly equal, or asks a Brownian path for an increment between multiples of 1e-6, that bit counts: here they are rounded correctly."""
    power = torch.Tensor.__pow__
    torch.Tensor.log = lambda x: x.double().log_().to(x.dtype)
    torch.Tensor.exp = lambda x: x.double().exp_().to(x.dtype)
    torch.Tensor.__pow__ = lambda x, y: x.double().sqrt_().to(x.dtype) if isinstance(y, float) and y == 0.5 else power(x, y)


class Drawn:
    """Stands in for randn_tensor."""

    def __init__(self):
        self.position = 0

    def __call__(self, shape, **_):
        count = int(np.prod(tuple(shape)))
        self.position += count
        return weyl(0.8191725133961645, count, self.position - count).reshape(tuple(shape))


def predict(x, t):
    return x * 0.5 + PATTERN * (t.to(torch.float32) * 0.001) * 0.5


# What a network that learned its variance says of it: above 0, and as a place between two variances within their ends and beyond.
VARIANCE = PATTERN * 0.5 + 0.9


STABLE_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SPACINGS = ["linspace", "leading", "trailing"]


def sd(**changes):
    return {**STABLE_DIFFUSION, **changes}


def common(predictions=("epsilon", "v_prediction", "sample"), rescales=True, alphas=False):
    """Cases that every scheduler passes through: (configuration, steps, keywords)."""
    cases = [(sd(prediction_type=p, timestep_spacing=s), 10, {}) for p in predictions for s in SPACINGS]
    cases += [(sd(), steps, {}) for steps in (1, 2, 4, 7, 20, 50)]
    cases += [(sd(timestep_spacing="trailing"), steps, {}) for steps in (1, 7, 30)]
    cases += [(sd(timestep_spacing="linspace"), steps, {}) for steps in (1, 2, 7)]
    cases += [({}, 5, {}), ({"_class_name": "DDIMScheduler", "unknown_key": [1]}, 6, {})]
    cases += [(sd(), 10, {"begin": b}) for b in (1, 3, 9)] + [(sd(timestep_spacing="trailing"), 20, {"begin": 14})]
    cases += [(sd(beta_schedule="linear", num_train_timesteps=100), 8, {})]
    cases += [(sd(beta_schedule="squaredcos_cap_v2"), 8, {})]
    betas = [round(0.01 * (i + 1), 2) for i in range(20)]
    cases += [(sd(trained_betas=betas, num_train_timesteps=20), 6, {})]
    if rescales:
        zero = sd(rescale_betas_zero_snr=True, prediction_type="v_prediction")
        cases += [({**zero, "timestep_spacing": s}, 6, {}) for s in ("trailing", "leading")]
    return cases


def shapes(minima=True):
    """Karras' sigmas and the others."""
    keys = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]
    cases = [(sd(**{key: True}), steps, {}) for key in keys for steps in (1, 2, 10)]
    cases += [(sd(**{key: True}, timestep_spacing="trailing", prediction_type="v_prediction"), 12, {}) for key in keys]
    cases += [(sd(**{key: True}, beta_schedule="squaredcos_cap_v2"), 6, {}) for key in keys]
    cases += [(sd(**{key: True}, sigma_min=0.05, sigma_max=12.0), 6, {}) for key in keys]
    cases += [(sd(use_karras_sigmas=True), 12, {"begin": 5})]
    if minima:
        cases += [(sd(**{key: True}, final_sigmas_type="sigma_min"), 5, {}) for key in keys]
        cases += [(sd(final_sigmas_type="sigma_min"), 5, {})]
    return cases


THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.87, "sample_max_value": 1.5}


def clipped():
    cases = [(sd(clip_sample=True, prediction_type=p), 6, {}) for p in ("epsilon", "v_prediction")]
    cases += [(sd(clip_sample=True, clip_sample_range=0.7), 6, {})]
    return cases


def thresholded():
    return [(sd(**THRESHOLD, prediction_type=p), 6, {}) for p in ("epsilon", "v_prediction")] + [
        (sd(thresholding=True, sample_max_value=0.5), 6, {})
    ]


LEARNED = ("learned", "learned_range")


def ddpm():
    cases = common() + clipped() + thresholded()
    cases += [(sd(variance_type=v), 6, {}) for v in ("fixed_small", "fixed_small_log", "fixed_large")]
    cases += [(sd(beta_schedule=s), 6, {}) for s in ("sigmoid", "laplace")]
    cases += [(sd(variance_type=v, prediction_type=p), n, {}) for v in LEARNED for p in ("epsilon", "v_prediction") for n in (1, 6)]
    cases += [(sd(variance_type=v, timestep_spacing="trailing", **THRESHOLD), 8, {"begin": 3}) for v in LEARNED]
    return cases


def ddim():
    cases = common() + clipped() + thresholded()
    cases += [(sd(set_alpha_to_one=a), 6, {"eta": e}) for a in (False, True) for e in (0.0, 0.5, 1.0)]
    cases += [(sd(prediction_type="v_prediction"), 6, {"eta": 1.0, "begin": 2})]
    return cases


def pndm():
    cases = common(predictions=("epsilon", "v_prediction"), rescales=False)
    # Its own defaults warm up, which takes four steps.
    warm = {k: v for k, v in STABLE_DIFFUSION.items() if k != "skip_prk_steps"}
    cases += [({**warm, "timestep_spacing": s}, n, {}) for s in SPACINGS for n in (4, 5, 10)]
    cases += [({**warm, "prediction_type": "v_prediction"}, 12, {}), ({**warm, "set_alpha_to_one": True}, 8, {})]
    cases += [(warm, 8, {"begin": 2})]
    return cases


def lms():
    return common(rescales=False) + shapes(minima=False)


def euler():
    cases = common() + shapes()
    cases += [(sd(interpolation_type="log_linear"), 6, {})]
    cases += [(sd(timestep_type="continuous", prediction_type="v_prediction", sigma_min=0.002, sigma_max=700.0), 6, {})]
    return cases


def euler_a():
    return common(predictions=("epsilon", "v_prediction")) + [(sd(use_karras_sigmas=True), 5, {})]


def heun():
    cases = [c for c in common(rescales=False) if c[1] != 50] + shapes(minima=False) + clipped()
    return cases + [(sd(beta_schedule="exp", beta_start=0.0001), 6, {})]


def dpmpp_2m():
    cases = common() + shapes() + thresholded()
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                if algorithm == "sde-dpmsolver" and order == 3:
                    continue
                keys = dict(algorithm_type=algorithm, solver_type=solver, solver_order=order, final_sigmas_type="sigma_min")
                cases += [(sd(**keys), 7, {})]
    cases += [(sd(algorithm_type="sde-dpmsolver++", prediction_type="v_prediction"), 16, {"begin": 3})]
    cases += [(sd(algorithm_type="dpmsolver", final_sigmas_type="sigma_min", prediction_type="sample", **THRESHOLD), 5, {})]
    cases += [(sd(solver_order=3, lower_order_final=low), 8, {}) for low in (True, False)]
    cases += [(sd(solver_order=3, final_sigmas_type="sigma_min", euler_at_final=e), 16, {}) for e in (True, False)]
    cases += [(sd(use_lu_lambdas=True, prediction_type=p), 8, {}) for p in ("epsilon", "v_prediction")]
    cases += [(sd(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, timestep_spacing=s), 8, {}) for s in SPACINGS]
    cases += [(sd(solver_type="bh2", algorithm_type="deis", final_sigmas_type="sigma_min"), 6, {})]
    return cases


def unipc():
    cases = common() + shapes() + thresholded()
    for solver in ("bh1", "bh2"):
        for order in (1, 2, 3, 4):
            # With bh1 diffusers multiplies 0 by infinity in a last step to σ = 0.
            final = {"final_sigmas_type": "sigma_min"} if solver == "bh1" else {}
            cases += [(sd(solver_type=solver, solver_order=order, **final), 8, {})]
            cases += [(sd(solver_type=solver, solver_order=order, final_sigmas_type="sigma_min", predict_x0=False), 8, {})]
    cases += [(sd(solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min"), 8, {})]
    cases += [(sd(solver_order=3, disable_corrector=[0, 1, 4]), 8, {}), (sd(solver_order=3), 20, {"begin": 8})]
    cases += [(sd(solver_type="midpoint", predict_x0=False, final_sigmas_type="sigma_min", prediction_type="v_prediction"), 6, {})]
    return cases


def lcm():
    # Its teacher's 50 steps need a table at least as long.
    cases = [c for c in common() if c[0].get("num_train_timesteps", 1000) > 20] + clipped() + thresholded()
    cases += [(sd(), n, {}) for n in (3, 8)] + [(sd(), 4, {"strength": s}) for s in (0.3, 0.5, 0.77)]
    cases += [(sd(original_inference_steps=100, timestep_scaling=1.0), 4, {})]
    return cases


def dpm2():
    cases = [c for c in common(predictions=("epsilon", "v_prediction"), rescales=False) if c[1] != 50]
    return cases + shapes(minima=False)


def dpm2_a():
    # Where σ is beyond 100, rounding makes a square root of a negative number of the reference's σ_down.
    return [c for c in dpm2() if c[0].get("beta_schedule") != "squaredcos_cap_v2"]


def sde():
    """Noise is torchsde's own here. A seed that nobody gives is drawn from torch's global generator."""
    cases = [c for c in dpm2() if c[1] < 15]
    cases += [(sd(noise_sampler_seed=s, prediction_type=p), 6, {}) for s in (0, 7, 2**40 + 3) for p in ("epsilon", "v_prediction")]
    return cases


def singlestep():
    # The class has no timestep_spacing, and its third order needs three steps.
    cases = [c for c in common(rescales=False) if "timestep_spacing" not in c[0]] + shapes() + thresholded()
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                for steps in (6, 7, 8):
                    keys = dict(algorithm_type=algorithm, solver_type=solver, solver_order=order, final_sigmas_type="sigma_min")
                    cases += [(sd(**keys), steps, {})]
    cases += [(sd(solver_order=o, lower_order_final=low), n, {}) for o in (2, 3) for low in (True, False) for n in (3, 9, 12)]
    cases += [(sd(solver_order=3), 9, {"begin": b}) for b in (1, 2, 4)]
    cases += [(sd(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1), 8, {})]
    return cases


def deis():
    cases = common(rescales=False) + shapes(minima=False) + thresholded()
    cases += [(sd(solver_order=o, lower_order_final=low), 8, {}) for o in (1, 2, 3) for low in (True, False)]
    cases += [(sd(solver_order=3), 20, {"begin": 6}), (sd(solver_order=3, use_karras_sigmas=True), 16, {})]
    return cases


def sa():
    cases = [c for c in common(rescales=False) if c[1] < 15] + thresholded()
    # The class adds noise by the table's timesteps, which Karras' σ lie between.
    cases += [c for c in shapes(minima=False) if "begin" not in c[2]]
    for algorithm in ("data_prediction", "noise_prediction"):
        for predictor, corrector in ((1, 1), (2, 2), (3, 3), (2, 3), (3, 2)):
            cases += [(sd(algorithm_type=algorithm, predictor_order=predictor, corrector_order=corrector), 8, {})]
    cases += [(sd(lower_order_final=False), 8, {}), (sd(predictor_order=3, corrector_order=3), 12, {"begin": 4})]
    return cases


def tcd():
    cases = [c for c in common() if c[0].get("num_train_timesteps", 1000) > 20]
    cases += [(sd(set_alpha_to_one=True), n, {"eta": e}) for e in (0.0, 0.3, 0.8, 1.0) for n in (1, 2, 3, 8)]
    return cases + [(sd(original_inference_steps=100, prediction_type="v_prediction"), 4, {"eta": 0.5})]


def edm_euler():
    cases = [({}, n, {}) for n in (1, 2, 3, 10, 25)]
    for keys in ({"prediction_type": "v_prediction"}, {"sigma_schedule": "exponential"}, {"sigma_data": 1.0, "rho": 5.0}, {"sigma_min": 0.01, "sigma_max": 40.0}, {"final_sigmas_type": "sigma_min"}):
        # With one step the reference begins at the least σ, or ends at the largest.
        cases += [(keys, n, {}) for n in (2, 7)]
    cases += [({"num_train_timesteps": 100}, 8, {"begin": b}) for b in (1, 5)]
    cases += [({}, 8, {"churn": c}) for c in ({"s_churn": 1.0}, {"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 50.0, "s_noise": 1.003})]
    return cases


def edm_dpm():
    cases = [c for c in edm_euler() if "churn" not in c[2]]
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                if algorithm == "dpmsolver++" or order < 3:
                    cases += [(dict(algorithm_type=algorithm, solver_type=solver, solver_order=order), 8, {})]
    cases += [({**THRESHOLD}, 6, {}), ({"solver_order": 3, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 16, {})]
    return cases


def ipndm():
    cases = [({}, n, {}) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50)]
    return cases + [(sd(), 10, {}), ({"trained_betas": [1.0, 0.9, 0.5, 0.25, 0.0]}, 4, {}), ({"num_train_timesteps": 100}, 9, {})]


def cm():
    cases = [({}, n, {}) for n in (1, 2, 3, 4, 7, 10, 20, 40)]
    for keys in ({"sigma_data": 1.0}, {"rho": 3.0}, {"sigma_min": 0.01, "sigma_max": 20.0}, {"s_noise": 0.5}, {"clip_denoised": False}, {"num_train_timesteps": 18}):
        cases += [(keys, n, {}) for n in (2, 5)]
    return cases


def ddim_inverse():
    cases = [c for c in common(predictions=("epsilon", "v_prediction")) + clipped() if c[0].get("timestep_spacing") != "linspace"]
    # The class has no `add_noise`.
    cases = [c for c in cases if "begin" not in c[2] and not (c[0].get("rescale_betas_zero_snr") and c[0].get("timestep_spacing") == "trailing")]
    return cases + [(sd(set_alpha_to_one=a, prediction_type=p), n, {}) for a in (False, True) for p in ("epsilon", "v_prediction") for n in (3, 12)]


def dpm_inverse():
    # Its table begins where hardly any noise is, and the class has no `begin_index`.
    cases = [c for c in common(rescales=False) if "begin" not in c[2]]
    cases += [c for c in shapes(minima=False) if "begin" not in c[2] and "sigma_min" not in c[0]] + thresholded()
    # The class leaves out timesteps that occur twice, which other classes keep.
    cases = [c for c in cases if not (c[0].get("beta_schedule") == "squaredcos_cap_v2" and c[0].get("use_karras_sigmas"))]
    for algorithm in ("dpmsolver++", "dpmsolver"):
        for solver in ("midpoint", "heun"):
            cases += [(sd(algorithm_type=algorithm, solver_type=solver, solver_order=o), 7, {}) for o in (1, 2, 3)]
    return cases + [(sd(solver_order=3), 16, {}), (sd(solver_order=3, euler_at_final=True), 16, {})]


KINDS = {
    "ddpm": (diffusers.DDPMScheduler, ddpm),
    "ddim": (diffusers.DDIMScheduler, ddim),
    "pndm": (diffusers.PNDMScheduler, pndm),
    "lms": (diffusers.LMSDiscreteScheduler, lms),
    "euler": (diffusers.EulerDiscreteScheduler, euler),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, euler_a),
    "heun": (diffusers.HeunDiscreteScheduler, heun),
    "dpmpp-2m": (diffusers.DPMSolverMultistepScheduler, dpmpp_2m),
    "unipc": (diffusers.UniPCMultistepScheduler, unipc),
    "lcm": (diffusers.LCMScheduler, lcm),
    "dpm2": (diffusers.KDPM2DiscreteScheduler, dpm2),
    "dpm2-a": (diffusers.KDPM2AncestralDiscreteScheduler, dpm2_a),
    "dpmpp-sde": (diffusers.DPMSolverSDEScheduler, sde),
    "dpmpp-singlestep": (diffusers.DPMSolverSinglestepScheduler, singlestep),
    "deis": (diffusers.DEISMultistepScheduler, deis),
    "sa-solver": (diffusers.SASolverScheduler, sa),
    "tcd": (diffusers.TCDScheduler, tcd),
    "edm-euler": (diffusers.EDMEulerScheduler, edm_euler),
    "edm-dpmpp-2m": (diffusers.EDMDPMSolverMultistepScheduler, edm_dpm),
    "ipndm": (diffusers.IPNDMScheduler, ipndm),
    "cm": (diffusers.CMStochasticIterativeScheduler, cm),
    "ddim-inverse": (diffusers.DDIMInverseScheduler, ddim_inverse),
    "dpmpp-2m-inverse": (diffusers.DPMSolverMultistepInverseScheduler, dpm_inverse),
}


ROUNDED = ("dpm2-a", "dpmpp-sde")


def short(values):
    """Float32 numbers with as many digits as they need; null where one is infinite."""
    return [float(str(np.float32(v))) if np.isfinite(v) else None for v in values]


def run(cls, config, steps, keywords):
    scheduler = cls.from_config(dict(config))
    module = importlib.import_module(cls.__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = Drawn()
    if "strength" in keywords:
        scheduler.set_timesteps(steps, strength=keywords["strength"])
    else:
        scheduler.set_timesteps(steps)
    begin = keywords.get("begin", 0) * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    x = NOISE * scheduler.init_noise_sigma if begin == 0 else scheduler.add_noise(DATA, NOISE, timesteps[:1])
    samples = [x]
    extra = {"eta": keywords["eta"]} if "eta" in keywords else {}
    extra |= keywords.get("churn", {})
    torch.manual_seed(SEED)
    for t in timesteps:
        output = predict(scheduler.scale_model_input(x, t), t)
        if config.get("variance_type") in LEARNED:
            output = torch.cat([output, VARIANCE], dim=1)
        result = scheduler.step(output, t, x, **extra)
        x = result.prev_sample
        samples.append(x)
    original = getattr(result, "pred_original_sample", getattr(result, "denoised", None))
    if original is not None:
        samples.append(original)
    case = {
        "config": config,
        "steps": steps,
        "begin": begin,
        **{k: v for k, v in keywords.items() if k != "begin"},
        "timesteps": short(scheduler.timesteps.tolist()),
        "initialNoiseScale": short([float(scheduler.init_noise_sigma)])[0],
        "hasOriginal": original is not None,
    }
    if hasattr(scheduler, "sigmas"):
        case["sigmas"] = short(scheduler.sigmas.tolist()[: len(scheduler.timesteps) + 1])
    return case, torch.stack(samples).numpy()


def main():
    wanted = sys.argv[1:] or KINDS
    for name in sorted(wanted, key=lambda name: name in ROUNDED):
        cls, make = KINDS[name]
        if name in ROUNDED:
            round_correctly()
        cases, blocks, offset, seen = [], [], 0, set()
        for config, steps, keywords in make():
            if cls is diffusers.PNDMScheduler and steps < 4 and not config.get("skip_prk_steps"):
                continue
            key = json.dumps([config, steps, keywords], sort_keys=True)
            if key in seen:
                continue
            seen.add(key)
            case, samples = run(cls, config, steps, keywords)
            assert np.isfinite(samples).all(), (name, config, steps)
            case["offset"] = offset
            offset += samples.size
            cases.append(case)
            blocks.append(samples.astype("<f4").ravel())
        (HERE / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
        (HERE / f"{name}.f32").write_bytes(np.concatenate(blocks).tobytes())
        print(name, len(cases), "cases")


if __name__ == "__main__":
    main()
