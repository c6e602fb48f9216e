#!/usr/bin/env python3
"""Writes what compel makes of prompts: of their marks, and with the tiny text encoders of ../models.

    python make_compel.py             # compel, diffusers, transformers and safetensors are needed
    python make_compel.py grammar     # the marks alone

compel.json is a list: the text; `parts`, what stands side by side, each [blend, weight], where a blend is a list of [texts, share] and texts are a list of
[text, weight]; `loras`, each [name, weight]. `error` says why there is nothing of it: `raised` where compel raises, and what this package refuses because
compel leaves it out without a word: `swap`, `behind` (what follows .and()), `lora` (one alone among prompts side by side), and
`empty` (a blend with a prompt of nothing).
compel-states.json is a list: the model, the layers that are skipped, the texts of one batch, and the names of `states` and `pooled` in
compel-MODEL.safetensors. compel-pictures.json is a list of requests; compel-pictures.safetensors has `NUMBER`, the last latents of diffusers' pipeline that is
given compel's states, for each. Pinned: compel 2.5.1, pyparsing 3.3, torch 2.13 (CPU), transformers 5, diffusers 0.42.
"""

import importlib.util
import json
import math
import random
import re
import sys
from pathlib import Path

import pyparsing


def compel_parser():
    """Its module alone: compel itself imports all of diffusers."""
    folder = Path(importlib.util.find_spec("compel").origin).parent
    spec = importlib.util.spec_from_file_location("prompt_parser", folder / "prompt_parser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
BY_HAND = [
    "test", "", "   ", "a cat", "a cat+", "cat++", "cat-", "cat---", "a red+ cat--", "(a cat)+", "(a cat)1.3", "(a cat)0.5", "(a cat).5", "(a cat)1.",
    "(a cat)2", "(a cat)0", "(a cat) 1.3", "(a cat) +", "a +cat", "a + b", "a+b", "a+b+", "a-b", "a-b-", "-cat", "a - b", "(a - b)", "(a)-1.5", "(a)+1.5",
    "(a)1e9", "(a)nan", "(a)inf", "(a)٣.٥", "(a)٣", "((a)+ b)+", "((a)1.2 b)0.5 c", "(((a)+ b)+ c)+", "((((a)+)+)+)+", "(a (b)1.5)0.8 (c)1.1", "((((deep))))",
    "(unbalanced", "unbalanced)", ")(", "((a)+", "(a))+", "()", "()+", "( )", "(())", "(a, b. c)+", "(a,b)+", "a,b", "a,,b", "a, b", "a ,b,", ",", "a,", "a.b.c",
    "(a.b)+", "a.b+", "a.+", "(a=b)+", "a=b", "(a\\=b)+", "[a|b]", "[a:b:0.5]", "{a|b}", "(a:1.3)", "<lora:name:0.8>", "a AND b", "a\nb", "a\tb", "(a\nb)+",
    "\"a cat\"+", "\"a cat\"1.3", "\"a cat\"", "\"a (cat)+\"0.5", "\"\"", "\"\"+", "\" \"+ a", "a \"b", "\"a\" \"b\"", "\"a\nb\"+", "\"a\\\"b\"+", "\"a\\\"", "\"a\\nb\"+",
    "\"a\\fb\"+", "\"\\the\"+", "a\\(b\\)", "\\(a\\)+", "(\\(a\\))+", "\\\"a\\\"", "(\\\"a\\\")+", "a\\\\(b", "(a\\\\(b)+", "(a \\\\\\(b \\\\\\(c)+", "a\\+", "(a\\+)+", "(a\\-b)1.2",
    "a\\,b", "(a\\,b)+", "(a\\.b)+", "\\", "a\\", "(a\\)+", "(a)\\+", "a (b)+, (c)-. d", "(a)+(b)-", "(a)+b", "(a)b", "x(a)+", "(a)++--", "a+++--", "a+-", "a-+",
    "(a).attend(1.5)", "a.attend(++)", "\"a b\".attend(-)", "(a).attend( 0.5 )", "(a) .attend(1.2)", "(a).attend(-1)", "(a).attend()", "(a).attend(1.2",
    "cat.swap(dog)", "a cat.swap(big dog) sits", "(a cat).swap(dog, s_start=0.3)", "a \"cat\".swap(\"dog\")+", "cat.swap()", "cat.swap(dog", "cat.swap(a.b)",
    "(cat.swap(dog))+", "cat .swap( (b)+ , t_end=1, shape_freedom=0.5)", "cat.swap(b.swap(c))",
    "withLora(name)", "a withLora(name, 0.8)", "useLora(some-name_2,1) a cat", "a withLora(n, 0.5) b useLora(m)", "(a withLora(n, 0.5))+", "withLora(n)+ a", "withLora()",
    "withLora(a.b)", "withLora(n, -0.5)", "withLora(n,)", "withLora(n, x)", "withlora(n)", "withLora (n , 2)", "xwithLora(n)", "a,withLora(n)b", "\"a withLora(n)\"1.2",
    "withLora(n) (\"a\", \"b\").blend(1, 1)", "(\"a\", \"b\").blend(1, 1) withLora(n)", "(\"a withLora(n)\", \"b\").blend(1, 1)", "(\"a\", \"withLora(n)\").and()",
    "(\"a\", \"b\").blend(1, 0.5)", "(\"a cat\", \"a dog\").blend(0.7, 0.3)", "(\"a\", \"b\").blend()", "(\"a\", \"b\", \"c\").blend(1,2,3)", "(\"a\", \"b\").blend(1)",
    "(\"a\", \"b\").blend(1, -0.5)", "(\"a\", \"b\").blend(1, 0.5, no_normalize)", "(\"a\", \"b\").blend(no_normalize)", "(\"a\", \"b\").blend(no_normalize, 1)",
    "(\"a\", \"b\").blend(1, x)", "(\"a\", \"b\").blend(1, nan)", "(\"a\", \"b\").blend(1, 1e9)", "(\"a\", \"b\").blend(a=1, b=2)", "(a, b).blend(1, 1)", "(a+, b).blend(1, 1)",
    "((a)+, b).blend(1, 1)", "((a b)+, (c)-).blend(1, 1)", "((a (b)+), (c)).blend(1, 1)", "(\"a (b)1.3\", \"c- d\").blend(0.5, 1)", "(\"a\").blend(1)", "().blend(1)",
    "(\"a\", ).blend(1)", "(\"a\", \"\").blend(1, 1)", "(\"a\", ()).blend(1, 1)", "(\"a\", \"b\") .blend (1, 1)", "(\"a\",\"b\").blend(1,1) c", "c (\"a\", \"b\").blend(1, 1)",
    "(\"a\", \"b\").blend(1, 1).blend(1)", "(\"a + b = c\", \"d\").blend(1, 1)", "(\"a\", \"(unbalanced\").blend(1, 1)", "(\"a\", \"b.swap(c)\").blend(1, 1)", " (\"a\", \"b\").blend(1, 1)",
    "(\"a\", \"b\").blend(.5, 0.5.)", "(\"a\", \"b\").blend(+0.5, -.5)", "(\"a\", \"b\").blend(+1, 1)",
    "(\"a\", \"b\").and()", "(\"a cat\", \"a dog\").and(1, 0.5)", "(\"a\", \"b\").add(1, 2)", "(\"a\").and()", "(\"a\", \"b\").and(1)", "(\"a\", \"b\").and(1, x)", "(\"a\", \"b\").and() c",
    "(\"a\", \"b\").and() ", "c (\"a\", \"b\").and()", "(a, b).and()", "(\"a (b)++\", \"(c)0.3 d\").and(0.5, 1.5)", "(\"a\", \"\").and()", "((), \"a\").and(2, 1)", "(\"a\", \"b\").and(0, 0)",
    "(\"a\", \"b\").and(no_normalize, 1)", "((\"a\", \"b\").blend(1, 1), \"c\").and()", "a\u000bb", "a\u000cb", "a\u00a0b+", "🐱+ (🐶)1.3 👩‍👩‍👧-", "é+ (é)1.1", "日本語+ (猫)0.5",
    "masterpiece, best quality, (a cat)1.3 sitting on a (red+ car)0.8, blurry--", "a (man)0.8 on a \"red (horse)+\"1.2, (snow, rain)-", "a photo of a cat" + "+" * 40,
    "(a)" + "9" * 400, "a" + "+" * 9000,
]
MARKS = ["a", "b ", " c", "(", ")", "(d)", "+", "-", "++", "\"", "\\", "1.2", "0.5", ".", ",", " ", " ", "=", "é", "(x y)1.3", "\"q r\"0.7", "(u)-", "v+", "\\(", "\n", "()"]


def nodes(prompt):
    for child in prompt.children:
        if type(child).__name__ == "CrossAttentionControlSubstitute":
            raise Refused("swap")
    return [[child.text, child.weight] for child in prompt.children]


class Refused(Exception):
    pass


def parsed(parser, text):
    conjunction = parser.parse_conjunction(text)
    spaced = re.sub(r",(\S)", r", \1", text)
    if spaced.strip():
        try:
            (parser.conjunction + pyparsing.StringEnd()).parse_string(spaced)
        except pyparsing.ParseException:
            raise Refused("behind")
    if ".and(" in text and len(conjunction.prompts) < text.count('"') // 2 and conjunction.lora_weights:
        raise Refused("lora")
    parts = []
    for prompt, weight in zip(conjunction.prompts, conjunction.weights):
        if type(prompt).__name__ == "Blend":
            total = sum(prompt.weights) if prompt.normalize_weights else 1
            blend = [[nodes(one), share / total] for one, share in zip(prompt.prompts, prompt.weights)]
        else:
            blend = [[nodes(prompt), 1.0]]
        parts.append([blend, float(weight)])
    return dict(parts=parts or [[[[[["", 1.0]], 1.0]], 1.0]], loras=[[lora.model, float(lora.weight)] for lora in conjunction.lora_weights])


def finite(value):
    return all(finite(item) for item in value) if isinstance(value, list) else not isinstance(value, float) or math.isfinite(value)


def make_grammar():
    parser = compel_parser().PromptParser()
    random.seed(6)
    drawn = ["".join(random.choice(MARKS) for _ in range(random.randint(2, 12))) for _ in range(400)]
    # compel takes four times as long with each bracket inside another.
    texts = BY_HAND + [text for text in drawn if text.count("(") < 4]
    cases = []
    for text in texts:
        case = dict(text=text)
        try:
            case.update(parsed(parser, text))
            if not finite(case["parts"]):
                case = dict(text=text, error="raised")
        except Refused as refused:
            case["error"] = str(refused)
        except Exception as error:
            case["error"] = "empty" if "mismatched prompts/weights" in str(error) and ("()" in text or "withLora" in text) else "raised"
        cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "compel.json").write_text(f"[\n{lines}\n]\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "with errors")


LONG = "a photo of the cat, a dog and a red house by the sea, in the sun with snow and rain on it, old trees, birds, and a boat"
TEXTS = [
    ["a photo of a cat"], [""], ["a photo++ of a cat"], ["a (photo)1.3 of a cat-"], ["a (cat)0.5 and a (dog)0.2"], ["a (cat)0"], ["((a cat)1.2 and a (dog)0.5)0.8"],
    ["a (red (cat)+ by the sea)- in \"the (sun)--\"1.5"], ["(a cat)0.9 (a cat)0.5 a cat"], [LONG], [LONG.replace("red", "(red)1.5")],
    ["(" + LONG + ")0.6"], ["the cat and a dog by the sea in the sun with rain on it and (old trees and birds and snow)0.4 (red)0.3"],
    ["(\"a cat\", \"a dog\").blend(1, 0.5)"], ["(\"a (red)++ cat\", \"a dog by the (sea)-\", \"\").blend(1, -0.5, 0.8)"], ["(\"a cat\", \"snow\").blend(0.7, 0.6, no_normalize)"],
    ["(\"a cat\", \"a dog\").and()"], ["(\"a (cat)0.7\", \"the sea+\", \"old trees\").and(1, 0.5, 1.4)"], [" "],
    # Texts of one batch get the length of the longest.
    ["(\"a cat\", \"a dog\", \"snow\").and()", "(rain)1.2", ""], ["a cat+", "rain and snow-"], ["(a cat)1.2 by the sea"],
]
SKIPPED = {2: 1, 4: 1, 21: 1}


def make_states():
    import torch
    from compel import Compel, ReturnedEmbeddingsType
    from safetensors.torch import save_file
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.set_num_threads(1)
    cases = []
    for name in ("sd1", "sd2", "sdxl"):
        is_xl, tensors, towers = name == "sdxl", {}, []
        for suffix in ["", "_2"] if is_xl else [""]:
            config = json.loads((MODELS / name / f"text_encoder{suffix}/config.json").read_text())
            kind = CLIPTextModelWithProjection if "WithProjection" in config["architectures"][0] else CLIPTextModel
            model = kind.from_pretrained(MODELS / name / f"text_encoder{suffix}").float().eval()
            if not hasattr(model, "text_model"):
                # As transformers 4 has it, for the states of fewer layers.
                object.__setattr__(model, "text_model", model)
            towers.append((CLIPTokenizer.from_pretrained(MODELS / name / f"tokenizer{suffix}"), model))
        for number, texts in enumerate(TEXTS):
            skipped = 0 if is_xl else SKIPPED.get(number, 0)
            returned = (ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if is_xl
                        else ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED if skipped
                        else ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED)
            readers = [Compel(tokenizer, model, returned_embeddings_type=returned) for tokenizer, model in towers]
            key = f"{name}.{number}"
            tensors[f"{key}.states"] = torch.cat([reader(texts) for reader in readers], dim=-1)
            if is_xl:
                # As with requires_pooled, which cannot weigh prompts side by side.
                with torch.no_grad():
                    tensors[f"{key}.pooled"] = readers[-1].conditioning_provider.get_pooled_embeddings(texts)
            cases.append(dict(model=name, skipped=skipped, texts=texts, key=key))
        save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"compel-{name}.safetensors")
    (HERE / "compel-states.json").write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
    print(len(cases), "batches of states")


STEPS, SCALE, SEED = 6, 5.0, 20
PICTURES = [
    dict(model="sd1", prompt="a red++ cat by the (sea)0.5", negative="rain+ and (snow)0.8", scheduler="euler"),
    dict(model="sd1", prompt="(\"a (red)1.3 cat\", \"the sea\", \"old trees-\").and(1, 0.7, 1.2)", negative="rain", scheduler="euler"),
    dict(model="sd1", prompt="(\"a cat\", \"a dog\").blend(1, 0.6)", negative=None, scheduler="euler-a"),
    dict(model="sdxl", prompt="(\"a cat+\", \"the (sea)0.6\").and()", negative=None, scheduler="euler"),
    dict(model="sdxl", prompt="a (cat)1.2", negative="(\"rain\", \"snow--\").and()", scheduler="euler"),
]


def make_pictures():
    import torch
    from compel import Compel, ReturnedEmbeddingsType
    from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    results = {}
    for number, case in enumerate(PICTURES):
        is_xl = case["model"] == "sdxl"
        pipe = (StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline).from_pretrained(MODELS / case["model"], safety_checker=None)
        kind = EulerDiscreteScheduler if case["scheduler"] == "euler" else EulerAncestralDiscreteScheduler
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
        texts = [case["prompt"]] + ([] if case["negative"] is None and is_xl else [case["negative"] or ""])
        given = {}
        if is_xl:
            readers = [Compel(tokenizer, encoder, returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED)
                       for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))]
            states = torch.cat([reader(texts) for reader in readers], dim=-1)
            with torch.no_grad():
                pooled = readers[1].conditioning_provider.get_pooled_embeddings(texts)
            given = dict(pooled_prompt_embeds=pooled[:1], **(dict(negative_pooled_prompt_embeds=pooled[1:]) if len(texts) > 1 else {}))
        else:
            states = Compel(pipe.tokenizer, pipe.text_encoder)(texts)
        given |= dict(prompt_embeds=states[:1], **(dict(negative_prompt_embeds=states[1:]) if len(texts) > 1 else {}))
        results[str(number)] = pipe(
            **given, num_inference_steps=STEPS, guidance_scale=SCALE, generator=torch.Generator().manual_seed(SEED), height=32, width=32,
            output_type="latent").images.contiguous()
    save_file(results, HERE / "compel-pictures.safetensors")
    cases = [dict(case, profile="compel", steps=STEPS, guidance=SCALE, seed=SEED) for case in PICTURES]
    (HERE / "compel-pictures.json").write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
    print(len(cases), "pictures", [float(latents.std()) for latents in results.values()])


if __name__ == "__main__":
    make_grammar()
    if sys.argv[1:] != ["grammar"]:
        make_states()
        make_pictures()
