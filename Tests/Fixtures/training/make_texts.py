"""Makes texts.safetensors: training that goes through text encoders, on the tiny models `sd1` and `sdxl`, with given latents, noise and timesteps.

    pip install -r ../models/requirements.txt peft
    python make_texts.py

`word.MODEL` learns a word of two vectors as diffusers' `textual_inversion.py` and `textual_inversion_sdxl.py` do, that of SDXL for both text encoders: the
gradients of the first step, in float64, then the losses and the vectors of three steps in float32, as the scripts compute. `lora` has the gradients of low-rank
changes of the text encoder and the U-Net, in float64: of each factor the root mean square, and the values at the indices i * count // n.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent / "models"
STEPS, BATCH, SAMPLES, SIDE = 3, 2, 5, 32
WORD, FIRST, VECTORS, RATE = "<cat-toy>", "the", 2, 5e-3
PROMPTS = ["a photo of {}", "the {} and a {}"]
ENCODERS = {"sd1": ["text_encoder"], "sdxl": ["text_encoder", "text_encoder_2"]}

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(17)
latents = torch.randn(BATCH, 4, 8, 8, generator=generator)
noise = torch.randn(STEPS, BATCH, 4, 8, 8, generator=generator)
timesteps = torch.randint(0, 1000, (STEPS, BATCH), generator=generator)
tensors = {"latents": latents, "noise": noise, "timesteps": timesteps.float()}


class Model:
    """A model's networks, its tokenizers by the names of the text encoders, and its loss."""

    def __init__(self, name, dtype):
        folder = MODELS / name
        self.dtype, self.scheduler = dtype, DDPMScheduler.from_pretrained(folder / "scheduler")
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype).requires_grad_(False)
        self.encoders, self.tokenizers = {}, {}
        for part in ENCODERS[name]:
            kind = CLIPTextModelWithProjection if part.endswith("_2") else CLIPTextModel
            self.encoders[part] = kind.from_pretrained(folder / part, dtype=dtype).requires_grad_(False)
            self.tokenizers[part] = CLIPTokenizer.from_pretrained(folder / part.replace("text_encoder", "tokenizer"))

    def conditioning(self, prompts):
        outputs = []
        for part, encoder in self.encoders.items():
            tokenizer = self.tokenizers[part]
            ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
            outputs.append(encoder(ids, output_hidden_states=True))
        if len(outputs) == 1:
            return dict(encoder_hidden_states=outputs[0].last_hidden_state)
        time_ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]], dtype=self.dtype).repeat(len(prompts), 1)
        return dict(encoder_hidden_states=torch.cat([output.hidden_states[-2] for output in outputs], -1),
                    added_cond_kwargs=dict(text_embeds=outputs[-1].text_embeds, time_ids=time_ids))

    def loss(self, prompts, step):
        given, drawn = latents.to(self.dtype), noise[step].to(self.dtype)
        noisy = self.scheduler.add_noise(given, drawn, timesteps[step])
        return F.mse_loss(self.unet(noisy, timesteps[step], **self.conditioning(prompts)).sample, drawn)


def learn(name, dtype, steps):
    """Diffusers' loop; returns the first step's gradients, and the losses and vectors of all steps."""
    model, rows = Model(name, dtype), {}
    words = [WORD] + [f"{WORD}_{i}" for i in range(1, VECTORS)]
    for part, encoder in model.encoders.items():
        tokenizer = model.tokenizers[part]
        first = tokenizer.encode(FIRST, add_special_tokens=False)
        assert len(first) == 1 and tokenizer.add_tokens(words) == VECTORS
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        rows[part] = tokenizer.convert_tokens_to_ids(words)
        table = encoder.get_input_embeddings().requires_grad_(True).weight
        with torch.no_grad():
            table[rows[part]] = table[first[0]].clone()
    tables = {part: encoder.get_input_embeddings().weight for part, encoder in model.encoders.items()}
    before = {part: table.detach().clone() for part, table in tables.items()}
    optimizer = torch.optim.AdamW(tables.values(), lr=RATE, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    prompts, losses, vectors, gradients = [prompt.replace("{}", " ".join(words)) for prompt in PROMPTS], [], [], {}
    for step in range(steps):
        loss = model.loss(prompts, step)
        loss.backward()
        losses.append(loss.item())
        gradients = gradients or {part: table.grad[rows[part]].float() for part, table in tables.items()}
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for part, table in tables.items():
                # Other words stay as they are.
                others = torch.ones(len(table), dtype=torch.bool)
                others[rows[part]] = False
                table[others] = before[part][others]
        vectors.append({part: table.detach()[rows[part]].float().clone() for part, table in tables.items()})
    return gradients, losses, vectors


def formula(shape, seed):
    i = torch.arange(torch.Size(shape).numel()) + 131 * seed
    return ((i * 7919 % 1000).double() / 500 - 1).reshape(shape)


def low_rank():
    model, trained = Model("sd1", torch.float64), {}
    parts = {"text_encoder": (model.encoders["text_encoder"], ["q_proj", "k_proj", "v_proj", "out_proj"]),
             "unet": (model.unet, ["to_k", "to_q", "to_v", "to_out.0"])}
    for part, (network, targets) in parts.items():
        inject_adapter_in_model(LoraConfig(r=3, lora_alpha=5, target_modules=targets), network)
        for key, value in network.named_parameters():
            if value.requires_grad:
                # transformers 4 writes `text_model.` before its keys, transformers 5 does not.
                key = key.removeprefix("text_model.").replace(".default", "")
                value.data = 0.1 * formula(value.shape, len(key))
                trained[f"{part}.{key}"] = value
    loss = model.loss([prompt.format("cat", "cat") for prompt in PROMPTS], 0)
    loss.backward()
    tensors["lora.loss"] = loss.detach().float().reshape(1)
    for key, value in trained.items():
        flat = value.grad.flatten()
        n = min(len(flat), SAMPLES)
        tensors[f"lora.{key}"] = torch.cat([flat.pow(2).mean().sqrt().reshape(1), flat[[i * len(flat) // n for i in range(n)]]]).float()
    print("lora", len(trained), "factors, loss", loss.item())


for name in ENCODERS:
    gradients, _, _ = learn(name, torch.float64, 1)
    _, losses, vectors = learn(name, torch.float32, STEPS)
    tensors[f"word.{name}.losses"] = torch.tensor(losses)
    for part, gradient in gradients.items():
        tensors[f"word.{name}.{part}.gradient"] = gradient
        tensors[f"word.{name}.{part}.vectors"] = torch.stack([step[part] for step in vectors])
    print(name, "losses", losses)
low_rank()
path = HERE / "texts.safetensors"
save_file({key: value.contiguous() for key, value in tensors.items()}, path)
assert path.stat().st_size < 200_000, path.stat().st_size
print(path.name, path.stat().st_size, "bytes")
