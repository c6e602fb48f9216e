#!/usr/bin/env python3
"""Writes what stable-diffusion-webui and ComfyUI make of the marks in prompts.

    python make_prompts.py WEBUI COMFYUI      # checkouts of both; lark and torch are needed

cases.json is a list: the text; `webui`, its parts with their weights; `comfy`, the same of ComfyUI; `composition`, the parts between AND with their weights;
`schedule`, the texts of ten steps with the last step that each is for. Some texts are written by hand, some are thrown together of the grammar's marks.
"""

import ast
import importlib.util
import json
import math
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = 10
BY_HAND = [
    "test", "an (important) word", "(unbalanced", "\\(literal\\]", "(unnecessary)(parens)", "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
    "a [b:3]", "a [b: 3]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e", "a [unbalanced", "a [b:.5] c", "a [{b|d{:.5] c",
    "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "", "(", ")", "[]", "()", "(())", "a BREAK b", "aBREAK b", "(a BREAK b)", "BREAK",
    "a\nBREAK\nb c", "a AND b", "a :1.2 AND b : -0.5", "AND", "SAND a ANDb AND  c :.5 ", "a:1. AND b:1.5e3", "(a:-1)", "(a:+.5)", "(a:1.)",
    "(a: 1.2 )", "[a:b:-3]", "[a:b:1e1]", "[a:b:99]", "[a:b:1.5]", "[a::0.5]", "[:a:0.5]", "[:0.5]", "[a:0.5]", "[a:b:c]", "[a:b:c:3]", "a|b", "[a|b",
    "(a|b)", "[a|b:3]", "[(a|b):3]", "[[a|b]:c:5]", "[a\\|b|c]", "a\\", "\\\\", "a\\:b", "[a\\:b:c:2]", "(a:1e9)", "(((((((((( deep ))))))))))",
    "[[[[[[[[[[ deep ]]]]]]]]]]", "🐱 (🐶:1.3) 👩‍👩‍👧", "é (é:1.1)", "(a:0)", "(a:0.0)", "(:1.5)", "(a:1.5", "a:1.5)", "[a:1.5)", "(a:1.5]", "([a:1.5)]",
    "(a)(b:1.1)(c)", "(a:1.1)(b:1.1)", "a, (b, [c, (d:1.4)], e), f", "(masterpiece:1.2), best quality, [blurry]", "(a:1_0)", "(a:1_)", "(a:٣)",
    "[cat:dog:0.25] in [rain|snow|sun], ((hat)) BREAK sky:0.5",
]
MARKS = ["a", "b ", "(", ")", "[", "]", ":", "|", "\\", "3", "0.5", ".5", "-2", " BREAK ", " AND ", " ", "1.2", "é", "(x:1.3)", "[y:z:0.4]", "[u|v]", "\n", "🐱"]


def webui(folder):
    spec = importlib.util.spec_from_file_location("prompt_parser", Path(folder) / "modules" / "prompt_parser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comfyui(folder):
    """Its functions on texts alone: the module needs all of ComfyUI."""
    names = ("parse_parentheses", "token_weights", "escape_important", "unescape_important")
    tree = ast.parse((Path(folder) / "comfy" / "sd1_clip.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    functions = {}
    exec(compile(tree, "sd1_clip", "exec"), functions)
    return functions


def balanced(text):
    """Whether there is one way to read it."""
    open_ = []
    for mark in text.replace("\\\\", "").replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", ""):
        if mark in "([":
            open_.append(mark)
        elif mark in ")]" and (not open_ or open_.pop() != {")": "(", "]": "["}[mark]):
            return False
    return not open_


def main():
    parser, comfy = webui(sys.argv[1]), comfyui(sys.argv[2])
    random.seed(5)
    texts = BY_HAND + ["".join(random.choice(MARKS) for _ in range(random.randint(2, 14))) for _ in range(300)]
    cases = []
    for text in texts:
        try:
            emphasis = parser.parse_prompt_attention(text)
        except ValueError:
            # What looks like a number and is none ends the webui's run.
            continue
        indexes, flat, _ = parser.get_multicond_prompt_list([text])
        parts = [[comfy["unescape_important"](part), weight] for part, weight in comfy["token_weights"](comfy["escape_important"](text), 1.0)]
        if not all(math.isfinite(weight) for _, weight in parts):
            continue
        case = dict(text=text, webui=emphasis, comfy=parts, composition=[[flat[index], weight] for index, weight in indexes[0]])
        if balanced(text) or text in BY_HAND:
            case["schedule"] = [[text, step] for step, text in parser.get_learned_conditioning_prompt_schedules([text], STEPS)[0]]
        cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    print(len(cases), "cases,", sum("schedule" in case for case in cases), "with schedules")


if __name__ == "__main__":
    main()
