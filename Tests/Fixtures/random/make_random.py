"""Makes torch.json, numpy.json and philox.json: what the original generators draw.

    pip install torch==2.13.0 numpy==2.4.6
    pip install nvidia-curand-cu12==10.3.10.19 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-nvcc-cu12==12.9.86 \
        nvidia-cuda-cccl-cu12==12.9.27
    python make_random.py NVIDIA

NVIDIA is the folder `nvidia` in site-packages; only headers are needed of it, and no GPU. A C++ compiler is.

A case is a seed and draws made one after the other by one generator. A draw has its kind (integers, uniform, normal), its count, bit
patterns of values, and for all of its values a sum: of bits modulo 2^64 with weights 1, 3, 5 … where they must be equal, of normals
with weights 1 … 7, 1 … 7 …. Of large draws only the values at `at` are kept.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch

HERE = pathlib.Path(__file__).parent
SEEDS = [0, 1, 42, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
MIXED = [
    ("normal", 3), ("normal", 16), ("normal", 1), ("normal", 17), ("normal", 2), ("uniform", 5), ("normal", 0), ("normal", 1),
    ("integers", 6), ("normal", 40), ("normal", 15), ("normal", 1), ("normal", 31), ("uniform", 33), ("normal", 7), ("normal", 300),
]
LARGE = [1000, 4096, 16384, 16391, 100003, 1000001]


def record(kind, values):
    """A draw as it is stored."""
    count = len(values)
    bits = values.view(numpy.uint64 if values.dtype == numpy.float64 else numpy.uint32).astype(numpy.uint64)
    places = numpy.arange(count)
    draw = {"kind": kind, "count": count}
    if count > 400:
        places = numpy.unique(numpy.concatenate([places[:20], places[-20:], numpy.arange(0, count, count // 37)]))
        draw["at"] = places.tolist()
    draw["bits"] = bits[places].tolist()
    if kind == "normal":
        draw["weightedSum"] = float((values.astype(numpy.float64) * (numpy.arange(count) % 7 + 1)).sum())
    else:
        draw["checksum"] = int((bits * (2 * numpy.arange(count, dtype=numpy.uint64) + 1)).sum(dtype=numpy.uint64))
    return draw


def torch_case(seed, draws):
    generator = torch.Generator().manual_seed(seed)

    def draw(kind, count):
        if kind == "integers":  # 64 bits at a time, the upper half drawn first
            pairs = torch.empty(count // 2, dtype=torch.int64).random_(-(2**63), None, generator=generator)
            return pairs.numpy().view(numpy.uint32).reshape(-1, 2)[:, ::-1].reshape(-1)
        return (torch.rand if kind == "uniform" else torch.randn)(count, generator=generator).numpy()

    return {"seed": seed, "draws": [record(kind, numpy.ascontiguousarray(draw(kind, count))) for kind, count in draws]}


def numpy_case(seed, draws):
    generator = numpy.random.RandomState(seed)

    def draw(kind, count):
        if kind == "integers":
            return numpy.frombuffer(generator.bytes(4 * count), dtype=numpy.uint32)
        return generator.random_sample(count) if kind == "uniform" else generator.randn(count).astype(numpy.float32)

    return {"seed": seed, "draws": [record(kind, draw(kind, count)) for kind, count in draws]}


def philox_case(program, seed, draws, threads=None):
    arguments = [text for kind, count in draws for text in (kind[0], str(count))]
    output = subprocess.run([program, str(seed), str(threads or 0), *arguments], check=True, capture_output=True).stdout
    case, start = {"seed": seed, "residentThreads": threads, "draws": []}, 0
    for kind, count in draws:
        values = numpy.frombuffer(output, numpy.uint32 if kind == "integers" else numpy.float32, count, start)
        case["draws"].append(record(kind, values))
        start += 4 * count
    assert start == len(output)
    return case


def build_philox(nvidia, folder):
    program = folder / "philox"
    parts = ["curand", "cuda_runtime", "cuda_nvcc", "cuda_cccl"]
    # A GPU fuses a multiplication and the addition that follows it.
    subprocess.run(
        ["g++", "-std=c++17", "-O2", "-mfma", "-ffp-contract=fast", *[f"-I{nvidia}/{part}/include" for part in parts],
         HERE / "philox.cpp", "-o", program], check=True)
    return program


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text(f'{{"cases":[\n{lines}\n]}}\n')
    print(name, (HERE / name).stat().st_size, "bytes")


def main():
    torch.set_num_threads(1)
    every_count = range(1, 41)
    write("torch.json",
          [torch_case(42, [("normal", count)]) for count in every_count]
          + [torch_case(2**63 + 7, [("normal", count) for count in every_count])]
          + [torch_case(seed, MIXED) for seed in SEEDS]
          + [torch_case(7, [("normal", count)]) for count in LARGE]
          + [torch_case(7, [("uniform", 100003), ("integers", 100002), ("normal", 100003), ("normal", 1)])])
    write("numpy.json",
          [numpy_case(42, [("normal", count)]) for count in every_count]
          + [numpy_case(seed, MIXED) for seed in SEEDS if seed < 2**32]
          + [numpy_case(7, [("normal", count)]) for count in LARGE]
          + [numpy_case(7, [("uniform", 100003), ("integers", 100002), ("normal", 100003), ("normal", 1)])])
    with tempfile.TemporaryDirectory() as folder:
        program = build_philox(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(folder))
        t4, rtx_4090, a100, h100 = 40 * 1024, 128 * 1536, 108 * 2048, 132 * 2048
        write("philox.json",
              [philox_case(program, 42, [("normal", count)]) for count in every_count]
              + [philox_case(program, seed, MIXED) for seed in SEEDS]
              + [philox_case(program, 7, [("normal", count)]) for count in LARGE]
              + [philox_case(program, 7, [("uniform", 100003), ("integers", 100002), ("normal", 100003), ("normal", 1)])]
              # Four waves of threads to fill one draw, and then more than one draw.
              + [philox_case(program, 11, [("integers", 2000), ("uniform", 1500), ("normal", 1025), ("normal", 9)], threads)
                 for threads in (256, 512)]
              + [philox_case(program, 2**40 + 3, [("normal", 16384), ("normal", 65536), ("normal", 1000001), ("uniform", 700001),
                                                 ("integers", 1100000), ("normal", 5)], threads)
                 for threads in (t4, rtx_4090, a100, h100)])


main()
