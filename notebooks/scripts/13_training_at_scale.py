# %% [markdown]
# # 13 · Training at scale
#
# **You will build** `course_lib/scale.py` and `course_lib/speed.py`: the same training, faster, and the instruments that
# say how fast it could be. Lower precision, fused passes, larger batches, several processes that equal one; before each
# of them a count or a measurement of what it can bring.
#
# **You need** convolutions and batch normalisation (lesson 05), Adam (04), and the training step of lesson 12.
#
# **Time**: 75 minutes of reading and thinking; the computer needs about a minute.
#
# If a cell says that a name is not known, a cell above it was not run: choose *Run > Run All Above Selected Cell*.
#
# You are in the yellow room of the house; the blue ones are built.
#
# ```mermaid
# block-beta
#   columns 15
#   c00["00 Start here"]:15
#   c15["15 Judging pictures"]:5
#   c16["16 What Imagen really is"]:5
#   c17["17 Errata"]:5
#   c12["12 Training"]:5
#   c13["13 Training at scale"]:5
#   c14["14 Sampling"]:5
#   c09["09 A first generator"]:5
#   c10["10 The adversarial game"]:5
#   c11["11 Listening to text"]:5
#   c06["06 Image encoder"]:5
#   c07["07 Text encoder"]:5
#   c08["08 Text meets image"]:5
#   c01["01 Pictures as tensors"]:3
#   c02["02 Words and pictures"]:3
#   c03["03 Losses"]:3
#   c04["04 Optimisers"]:3
#   c05["05 Convolutions"]:3
#   classDef default fill:#f4f4f4,stroke:#999,color:#222
#   classDef built fill:#cfe6f5,stroke:#0072B2,color:#222
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10,c11,c12 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c13 lit
# ```

# %%
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

# %%
from course_lib import layers, speed
from course_lib.batches import Batch, EmbeddedPictures
from course_lib.checkpoint import CHECKPOINTS
from course_lib.layers import BatchNorm2d
from course_lib.lesson import compare, figure, lines, setup, table
from course_lib.long_recipes import embed, new_trainer
from course_lib.presets import get_preset, override
from course_lib.scale import ALONE, ScaleConfig, ScaledTrainer, World
from course_lib.speed import measure_step, seconds_of, step_flops, work_of
from course_lib.text_encoder import load_text_encoder
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.training import AdversarialTrainer, TrainConfig

device = setup()

# %% [markdown]
# All times below are measured on *your* machine: on one CPU thread, or on a GPU if you begin with `COURSE_DEVICE=cuda`.
# Numbers in the text are those of the logs: `data/logs/scale-cpu.json`, of a server core with units for bfloat16, and
# `scale-cuda.json`, of one H100, a fast GPU that we had for some minutes. Yours will differ.
#
# ## 1 Where the time goes
#
# To time something well, avoid three traps. The first run is slow: memory is fetched, kernels are chosen. Other programs
# take their turns, so one takes the median (`seconds_of`), and on one CPU thread the processor's own clock (`now`). And a
# GPU is told what to do and does it *later*: without waiting for it, one times the asking.
#
# `AdversarialTrainer` sends every pass through `passed` and every update through `update`; a subclass can watch there, with
# any clock that runs forward. Ours are two: one shows seconds, the other **FLOP**, the floating-point operations that
# convolutions and matrix products have done so far. A multiplication and an addition are two. (R1, which has its turn in
# one step of 16, is left out here.)
#
# **Predict.** Which takes longest: G's pass, D's three passes, the slopes for D, the slopes for G, or Adam?


# %%
class Watched(AdversarialTrainer):
    """Adds up what each part of a step takes."""

    def watch(self, name, run):
        started = self.clock()
        result = run()
        spent[name] += self.clock() - started
        return result

    def passed(self, network, *inputs):
        return self.watch(f"{type(network).__name__}, forward", lambda: network(*inputs))

    def update(self, player, optimizer, loss):
        optimizer.zero_grad()
        self.watch(f"backward for {type(player).__name__}", loss.backward)
        self.watch("Adam", optimizer.step)
        return True


# %%
preset = override(get_preset("shapes-32"), {"r1_weight": 0.0})
reader = load_text_encoder(preset.text_encoder, device)
data = embed(replace(preset.data, length=500).dataset(), *reader, device)
trainer = new_trainer(preset, device)
watched = Watched(trainer.generator, trainer.discriminator, preset.train)
spent, shares = defaultdict(float), {}
with speed.WorkCounter() as counter:
    watched.clock = lambda: counter.work.flops
    watched.step(data)
shares["FLOP"] = dict(spent)
spent.clear()
watched.clock = lambda: speed.now(device)
for _ in range(8):
    watched.step(data)
shares["time"] = dict(spent)

# %%
alt = "Two bars for each part of a step: its share of the FLOP and of the time. The slopes for G are longest."
with figure("A training step, taken apart", alt, size=(8, 3.6)) as axis:
    for shift, (name, amounts) in zip((-0.2, 0.2), shares.items(), strict=True):
        percent = [100 * amount / sum(amounts.values()) for amount in amounts.values()]
        axis.barh([i + shift for i in range(len(percent))], percent, 0.38, label=name)
    axis.set_yticks(range(len(shares["time"])), list(shares["time"]))
    axis.set(xlabel="share of the step (%)", ylabel="part")
    axis.invert_yaxis()
    axis.legend()

# %% [markdown]
# The slopes for the generator: they go back through D *and* through G. The time follows the FLOP rather well, but for Adam,
# which multiplies no matrices and takes its share all the same. Could all of it be faster? Sections 2 to 4 try; section 6
# says how fast it could be.
#
# ### FLOP by hand
#
# D's second layer makes 64 channels of 8 x 8 pixels out of 32 channels of 16 x 16, with windows of 4 x 4, for 48 pictures.
# Each number that comes out is a sum of $32 \cdot 4 \cdot 4$ products.
#
# **Predict.** How many FLOP is that? And with the slopes, how many times as many?

# %% tags=["nbval-check-output"]
layer = trainer.discriminator.downs[1]
seen = torch.randn(48, 32, 16, 16).to(device).requires_grad_()
by_hand = 2 * (48 * 64 * 8 * 8) * (32 * 4 * 4)
forward, both = (work_of(run).flops for run in (lambda: layer(seen), lambda: layer(seen).sum().backward()))
print(f"by hand {by_hand / 1e6:.1f} million FLOP, counted {forward / 1e6:.1f} million")
print(f"with slopes: {both / forward:.0f} times as many")
with_r1 = new_trainer(get_preset("shapes-32"), device)
print(f"a step without R1: {step_flops(trainer, data) / 1e9:.2f} billion FLOP")
print(f"a step with R1:    {step_flops(with_r1, data) / 1e9:.2f} billion FLOP")

# %% [markdown]
# Three times: the pass, the slope of the input, the slope of the weights; each costs as much as the pass. That is why
# lesson 12 switches D's own slopes off in G's turn. `WorkCounter` sees every operation that PyTorch calls; `work_of` returns
# a `Work`: FLOP, operations, and the bytes that they read and write; `step_flops` is for a step. Read them in `speed.py`.
#
# ## 2 Which number lies next to which
#
# Memory is a line; a picture has three dimensions. Take one of 2 channels with 2 x 2 pixels, 0 to 3 in the first channel,
# 4 to 7 in the second. Usually one channel comes after the other. In **channels last** all channels of a pixel lie
# together. Shape and numbers stay the same; only the **strides** change, how far it is to the next.
#
# A convolution adds up over channels: in channels last, it reads what lies side by side. **Predict.** The same numbers, the
# same FLOP: how much can the order matter, for a convolution, one that up-samples, a batch normalisation?

# %% tags=["nbval-check-output"]
x = torch.arange(8.0).view(1, 2, 2, 2)
for name, layout in (("usual", torch.contiguous_format), ("channels last", torch.channels_last)):
    y = x.contiguous(memory_format=layout)
    in_memory = torch.as_strided(y, (8,), (1,)).int().tolist()
    print(f"{name:>13}: in memory {in_memory}; to the next channel, row, column: {y.stride()[1:]}")
    assert torch.equal(x, y)

# %%
kinds = layers.Conv2d(64, 64, 4, 2, 1), layers.ConvTranspose2d(64, 64, 4, 2, 1), layers.BatchNorm2d(64)
x, rows = torch.randn(16, 64, 32, 32).to(device), []
for layer in kinds:
    times = []
    for layout in (torch.contiguous_format, torch.channels_last):
        layer.to(device, memory_format=layout)
        y = x.contiguous(memory_format=layout)
        times.append(1000 * seconds_of(lambda layer=layer, y=y: layer(y), device))
    row = {"layer": type(layer).__name__, "usual (ms)": times[0], "channels last (ms)": times[1]}
    rows.append(row | {"usual / channels last": times[0] / times[1]})
table(rows)

# %% [markdown]
# Up-sampling and batch normalisation gain most, a factor of two to four. Without channels last a whole step takes 15 %
# longer on a CPU (log of section 4). The library asks for it in every trainer, generator and batch; the results
# are the same.
#
# ## 3 Sixteen bits
#
# A float of 32 bits has a sign, 8 bits for the exponent and 23 for the digits. **bfloat16** keeps sign and exponent and
# throws away all but 7 bits of the digits (with the leading one, that makes 8). **float16** keeps more digits and less
# exponent.
#
# **Predict.** What is 1 + 1/256 in bfloat16? And where does counting 0 + 1 + 1 + 1 ... end, if we add a thousand ones?

# %% tags=["nbval-check-output"]
rows = []
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    one, total = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    for _ in range(1000):
        total += 1
    row = {"format": str(dtype).removeprefix("torch."), "largest": f"{torch.finfo(dtype).max:.0e}"}
    row |= {"1 + 1/128": (one + 1 / 128).item(), "1 + 1/256": (one + 1 / 256).item()}
    rows.append(row | {"a thousand ones": total.item(), "0.75 - 0.001": (0.75 * one - 0.001).item()})
table(rows)

# %% [markdown]
# 1 + 1/256 is 1: above 1, bfloat16 goes in steps of 1/128. The count ends at 256, where the next number is 258. And the
# last column is why **weights stay in float32**: Adam's steps are about as long as the learning rate, 0.001, and a weight
# of 0.75 would never move. But bfloat16 reaches as far as float32; float16 ends at 65504, and small slopes become 0, so its
# users have to scale their losses.
#
# Inside a product, sums are kept in 32 bits. So `ScaledTrainer` lets PyTorch's **autocast** round what goes *into*
# convolutions and matrix products; what a pass returns is float32 again. Losses are means of many numbers, and R1 squares
# small slopes: those stay in float32, R1 with its whole pass.
#
# **Predict.** Will the losses of the first steps agree? And is your machine faster with bfloat16: in a large product, in a
# step? (`matrix_rate` and `memory_rate` are the two numbers that describe a machine; section 6 needs both.)

# %%
low = new_trainer(preset, device, ScaleConfig("bfloat16"))
plain = new_trainer(preset, device)
images, texts = data.batch(48, 0.0, 0.0, torch.Generator().manual_seed(0))[:2]
with torch.autocast(device.type, torch.bfloat16):
    inside = low.discriminator.downs[0](images)
after = low.passed(low.discriminator, images, texts)
kept = next(low.discriminator.parameters())
print(f"weights {kept.dtype}, first layer {inside.dtype}, after passed {after.dtype}")
rows = []
for step in range(6):
    one, other = plain.step(data), low.step(data)
    rows.append({"step": step, "loss_d, float32": one["loss_d"], "loss_d, bfloat16": other["loss_d"]})
    assert abs(one["loss_d"] - other["loss_d"]) < 0.3
table(rows)


# %% tags=["lib:speed.matrix_rate", "lib:speed.memory_rate"]
def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP a second in a large matrix product; a multiplication and an addition are two."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size).to(device, dtype)
    return 2 * size**3 / seconds_of(lambda: a @ b, device)


def memory_rate(device: torch.device) -> float:
    """Bytes a second that are read or written while a large tensor is copied."""
    source = torch.zeros(2**26, device=device)  # 256 MiB: more than caches hold
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)


# %%
rates = {dtype: matrix_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
steps = {dtype: measure_step(t, data).seconds for dtype, t in zip(rates, (plain, low), strict=True)}
rows = [
    {"format": str(d)[6:], "product (10^9 FLOP/s)": rates[d] / 1e9, "step (ms)": 1000 * steps[d]}
    for d in rates
]
table(rows)

logs = CHECKPOINTS.parent / "logs"
log = json.loads((logs / "scale-cpu.json").read_text(encoding="utf-8"))
units = {"all it has": log["time_beside_float32"]["bfloat16"], **log["bfloat16_beside_float32_with_units"]}
product = log["rates"]["matrix_flops"]
print(f"in the log, products are {product['bfloat16'] / product['float32']:.1f} times as fast in bfloat16;")
print("a step in bfloat16 takes, beside one in float32, if the processor may use these units:")
table([{"units": name, "time": ratio} for name, ratio in units.items()])

# %% [markdown]
# The losses stay close, and do not agree: training with bfloat16 is another run.
#
# The last table is from a log, `data/logs/scale-cpu.json`. Its processor has a unit for matrices of bfloat16 (AMX), so
# products are six times as fast. Yet the step still takes 0.7 of the time: only a part of it is products.
# Then its units were switched off, one after the other (the variable `ONEDNN_MAX_CPU_ISA` does that). Without AMX
# bfloat16 is already slower than float32; without any bfloat16 instructions 2.6 times; with AVX2, as in many laptops, 12
# times. Halved numbers are no gain where the machine cannot multiply them.
#
# ## 4 Fewer trips, fewer calls
#
# After each convolution comes a chain of small operations: scale, shift, bend. Each reads a whole tensor from memory and
# writes one back. `torch.compile` looks at the chain first. Usually it then writes one loop for all; here we only look.
#
# **Predict.** The chain below has six operations on 6.3 MB. How many bytes go to and fro, and how many must?


# %%
def chain(x, scale, shift):
    y = x * scale + shift
    y = torch.where(y > 0, y, 0.2 * y)
    return torch.tanh(y)


def look(graph, inputs):
    print([node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"])
    return graph.forward


x, scale = torch.randn(48, 32, 32, 32).to(device), torch.randn(48, 32, 1, 1).to(device)
torch.compile(chain, backend=look)(x, scale, scale)
plainly, least = work_of(lambda: chain(x, scale, scale)).bytes, 2 * x.nbytes + 2 * scale.nbytes
print(f"one after the other {plainly / 1e6:.1f} MB, in one loop {least / 1e6:.1f} MB")

# %% [markdown]
# Six times as much as needed. The second saving is in the *calls*. Each operation is a call from Python; on a GPU each
# starts a **kernel**, which takes some microseconds, however little there is to do. A **CUDA graph** records the calls of
# a pass once and replays them all with a single one.
#
# `ScaledTrainer` does both if you ask for it, and says so if a machine cannot: below, one without a compiler. Compiling takes
# minutes on a CPU, so both tables are from logs: `python tests/measure_scale.py` writes the first anew, and with `--device
# cuda` the second. All ways took turns, and what counts is the median of each way's time beside that of float32 in the same
# round.
#
# **Predict.** How many operations has one training step? And which of these ways will make it faster on the H100?

# %%
work, one = work_of(lambda: plain.step(data)), torch.ones((), device=device)
call = seconds_of(lambda: [one + one for _ in range(1000)], device) / 1000
print(f"{work.operations} operations a step; a call with hardly any work takes {1e6 * call:.1f} microseconds")
print(
    f"together {1000 * work.operations * call:.1f} ms of the {1000 * steps[torch.float32]:.1f} ms of a step"
)


def no_compiler(*inputs):
    raise RuntimeError("no C++ compiler")


with patch.object(torch, "compile", lambda network, **how: no_compiler):
    new_trainer(preset, device, ScaleConfig(compile="yes")).step(data)

# %%
for path in sorted(logs.glob("scale-*.json")):
    record = json.loads(path.read_text(encoding="utf-8"))
    print(f"{record['machine']}: {1000 * record['seconds_a_step']:.0f} ms a step in float32")
    table([{"way": way, "time": ratio} for way, ratio in record["time_beside_float32"].items()])
    print(*record.get("notes", ()), sep="\n")
if device.type == "cuda":
    ways = {way: ScaleConfig("bfloat16", way) for way in ("no", "yes", "cuda-graph")}
    trainers = {name: new_trainer(preset, device, way) for name, way in ways.items()}
    table([{"compile": name, **measure_step(t, data)._asdict()} for name, t in trainers.items()])
else:
    print('With COURSE_DEVICE=cuda this cell also times compile="yes" and "cuda-graph" on your GPU.')

# %% [markdown]
# On a CPU, calls are a small part of a step. On the H100 they are nearly all of it. A step has $9.6 \cdot 10^9$ FLOP, and a
# large product reached $51 \cdot 10^{12}$ a second there in float32: 0.2 ms. The step takes 16 ms, 34 microseconds for each
# of its 474 operations, and most of that is Python's and PyTorch's time, not the GPU's. So neither the layout nor bfloat16
# nor fused loops make it faster; bfloat16 makes it *slower*, since each rounding is one more call. What helps is not to call:
# with CUDA graphs a step takes 0.7 of the time here, and half of it for the larger `emoji-64`.
#
# On the CPU, compiling saves 11 % in float32. In bfloat16 it would save more, since the roundings go into the fused loops
# too; but on a CPU it gave gradients that are no numbers (PyTorch 2.13), and `no_numbers` forbids it. A compiler can be wrong:
# that is one reason why `update` looks at every gradient. R1's passes stay plain: compiled code has no second derivative.
#
# ## 5 Larger batches
#
# **Predict.** Twice the pictures in a step: twice the time?

# %%
sizes = (2, 8, 24, 48, 96) if device.type == "cpu" else (8, 64, 512, 4096)
trainers = [new_trainer(override(preset, {"batch_size": size}), device) for size in sizes]
speeds = [size / measure_step(t, data, 3).seconds for size, t in zip(sizes, trainers, strict=True)]
lines(
    sizes,
    {"pictures a second": speeds},
    "What a larger batch buys",
    ("pictures in a step", "pictures a second"),
    alt="Pictures a second against the batch size: it climbs steeply at first and then flattens.",
    xscale="log",
    xticks=sizes,
    xticklabels=sizes,
    ylim=(0, 1.1 * max(speeds)),
)

# %% [markdown]
# Not at first: Adam, the dice and the calls cost the same for two pictures as for a hundred. In the log a step with 8
# pictures took 1.4 times as long as one with 2; but one with 192 took 4 times as long as one with 48. There, products and
# traffic are all that counts.
#
# The H100 comes to that point much later. Its log counts 3,000 pictures a second with 48 in a step, and 92,000 with 3,072:
# 64 times the pictures in twice the time. A large GPU wants large batches, or large networks, before anything else.
#
# A larger batch is not the same training made faster. For the same number of pictures there are fewer steps, and Goyal and
# others (2017) had to raise the learning rate with the batch. We have measured our recipe with 48 only.
#
# ## 6 The roofline
#
# How fast *could* a step be? With $F$ FLOP and $M$ bytes it takes at least as long as each of the two alone:
#
# $$\mathrm{FLOP/s} \le \min(\mathrm{matrix\ rate},\ \tfrac{F}{M} \cdot \mathrm{memory\ rate})$$
#
# $F / M$ is the **intensity**: how often a byte is used once it is there. Drawn with two logarithmic axes, the bound looks
# like a roof (Williams and others 2009). Left of its ridge memory is the limit, right of it the multipliers are.
#
# **Predict.** Where are a matrix product, a ReLU, Adam, and our whole step? The H100 multiplies 5,000 times as
# fast as the log's processor (bfloat16 beside float32), and moves 260 times as many bytes. How much of it can our step use?

# %%
bandwidth, points = memory_rate(device), {}


def point(name, run, flops=None):
    work = work_of(run)
    flops = flops or work.flops
    points[name] = flops / work.bytes, flops / seconds_of(run, device)


matrices = torch.randn(2, 1024, 1024).to(device)
picture = torch.randn(48, 64, 16, 16).to(device).contiguous(memory_format=torch.channels_last)
numbers = sum(p.numel() for p in plain.discriminator.parameters())
point("matrix product", lambda: matrices[0] @ matrices[1])
point("G's last up-sampling", lambda: plain.generator.ups[-1](picture))
point("ReLU", lambda: x.relu(), flops=x.numel())
point("Adam", plain.discriminator_optimizer.step, flops=12 * numbers)  # about 12 for each weight
point("a training step", lambda: plain.step(data))

# %%
alt = (
    "FLOP a second against FLOP for each byte: a roof. ReLU and Adam are far left and low, the product right."
)
with figure("The roofline of this machine, float32", alt, size=(8, 4)) as axis:
    intensity = torch.logspace(-1.5, 3, 100)
    axis.plot(intensity, (intensity * bandwidth).clamp(max=rates[torch.float32]) / 1e9, label="roof")
    for (name, (at, reached)), mark in zip(points.items(), "osv^*", strict=True):
        axis.plot(at, reached / 1e9, mark, markersize=10, label=name)
    axis.set(xlabel="intensity (FLOP for each byte)", ylabel="10^9 FLOP a second", xscale="log", yscale="log")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
at, reached = points["a training step"]
print(f"ridge at {rates[torch.float32] / bandwidth:.0f} FLOP a byte, a step has {at:.1f}", end="; ")
print(f"it reaches {100 * reached / rates[torch.float32]:.0f} % of the matrix rate")
half = work_of(lambda: low.step(data))
print(f"a step in bfloat16 has {half.intensity:.1f} FLOP a byte, and {half.operations} operations")

# %% [markdown]
# ReLU and Adam use each byte hardly once: no multiplier helps them, only fewer bytes. The matrix product is at the
# roof by definition. (A point above the slope got its bytes from a cache.) The step's 16.4 is a mean of both kinds; it
# is right of the ridge here, but its many small operations are far left, and their time adds up. Fusing saves that time.
#
# The H100's data sheet says $989 \cdot 10^{12}$ FLOP/s in bfloat16 and $3.35 \cdot 10^{12}$ bytes a second: a ridge at 295. In
# bfloat16 our step has 19, so at most 19 / 295 = 6 % of those FLOP/s can be used, whatever the program. And bfloat16 has not
# halved the bytes: each rounding is an operation that reads and writes. What helps is fusing, and larger networks.
#
# ## 7 Several processes
#
# Eight GPUs can share a batch: each process sends its own rows through the networks. What must come out is the training
# that *one* process would do. `World` says which of how many a process is; its method `own`, which rows are its own.
#
# ### Two halves by hand
#
# One process plays both. The model has two weights, the batch eight rows. The usual way: each half computes its own mean
# loss, and the gradients are averaged. **Predict.** Equal to the whole batch? And if the mean is taken over *some* rows,
# as with the wrong captions of lesson 12: here `wrong` marks four rows of the first half and one of the second.

# %% tags=["nbval-check-output"]
weight, x, y = torch.tensor([1.0, -2.0], requires_grad=True), torch.arange(16.0).view(8, 2) / 8, torch.ones(8)
halves, whole = [World(rank, 2).own(8) for rank in range(2)], slice(0, 8)
wrong = torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0])


def slope(rows, counts):
    errors = (x[rows] @ weight - y[rows]) ** 2
    return torch.autograd.grad((errors * counts[rows]).sum() / counts[rows].sum(), weight)[0]


rows = []
for name, counts in {"all": torch.ones(8), "only the wrong": wrong}.items():
    averaged = sum(slope(half, counts) for half in halves) / 2
    rows.append({"rows that count": name, "whole batch": slope(whole, counts), "mean of halves": averaged})
table(rows)

# %% [markdown]
# Means of equally many rows may be averaged. Others may not: the one row of the second half gets the weight of four.
# Losses that compare rows with each other (mode seeking, contrastive, relativistic) fare worse still. So we go another
# way: what comes *out* of the networks is put together, every process computes the loss of the whole batch, but only its
# own rows carry a slope. The slopes are then *added*.

# %% tags=["nbval-check-output"]
parts = []
for half in halves:
    errors = (x @ weight - y) ** 2
    seen = errors.detach().clone()  # all rows, as mere numbers
    seen[half] = errors[half]  # the own ones, with a slope
    parts.append(torch.autograd.grad((seen * wrong).sum() / wrong.sum(), weight)[0])
compare({"only the wrong: sum of both": (sum(parts), slope(whole, wrong))})

# %% [markdown]
# ### Batch normalisation looks at its neighbours
#
# One layer sees other rows *inside* the network. Four pictures of one pixel: 1, 3, 9, 11.
#
# **Predict.** What does batch normalisation make of them, all together and in two halves?


# %% tags=["nbval-check-output"]
pixels = torch.tensor([1.0, 3, 9, 11]).view(4, 1, 1, 1)
together = BatchNorm2d(1)(pixels).flatten()
apart = torch.cat([BatchNorm2d(1)(half).flatten() for half in pixels.chunk(2)])
for name, result in {"together": together, "in halves": apart}.items():
    print(f"{name:>9}:", [round(number, 2) for number in result.tolist()])

# %% [markdown]
# In halves, 1 and 9 become the same. The mean must be that of the whole batch, and so must the variance, taken around
# *that* mean: two sums over all processes, with slopes that go back through both. `AllSum` gives them, and `synchronise_`
# gives every batch normalisation of a network the class below. (`gathered` is what we did by hand.)


# %% tags=["lib:scale.AllSum", "lib:scale.gathered"]
class AllSum(Function):  # the sum over all processes; its gradient is the sum of theirs
    @staticmethod
    def forward(context, input: Tensor) -> Tensor:
        total = input.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return AllSum.forward(context, gradient)


def gathered(rows: Tensor, world: World) -> Tensor:  # (B / processes, ...) -> (B, ...)
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world.size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[world.rank] = rows
    whole = torch.cat(parts)
    return whole.contiguous(memory_format=torch.channels_last) if whole.dim() == 4 else whole


# %% tags=["lib:scale.SynchronisedBatchNorm2d"]
class SynchronisedBatchNorm2d(BatchNorm2d):  # by the mean and variance of the whole batch
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self.num_batches_tracked += 1
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean = AllSum.apply(input.sum((0, 2, 3))) / count  # (C,)
        centred = input - mean[:, None, None]
        variance = AllSum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        result = centred * (variance + self.eps).rsqrt()[:, None, None]
        return result if self.weight is None else torch.addcmul(
            self.bias[:, None, None], result, self.weight[:, None, None])  # fmt: skip


# %% [markdown]
# ### Two real processes
#
# `ScaledTrainer` puts it together: its `passed` sends the own rows through a network and gathers, its `share` adds up the
# slopes, one message for each player; `join_world` finds the others. Dice are no trouble: every process throws the same
# ones for the whole batch, because chance comes from seed and step alone (lesson 12).
#
# The first cell is what each process does, once in float32, once in float64; the second writes it into a file, the third
# starts the file. `torchrun` does no more than that: it starts the same program several times, with variables that say
# who it is and where to meet. (On a GPU each process would take its own; these two stay on the CPU.)
#
# **Predict.** Will the losses of one and of two processes be equal?


# %%
def first_losses(world, dtype):
    cpu = torch.device("cpu")
    preset = override(get_preset("shapes-32"), {"batch_size": 16})
    data = embed(replace(preset.data, length=64).dataset(), *load_text_encoder(preset.text_encoder), cpu)
    torch.set_default_dtype(dtype)
    trainer, draw = new_trainer(preset, cpu, world=world), data.batch
    data.batch = lambda *how: Batch(*(x.to(dtype) if x.is_floating_point() else x for x in draw(*how)[:4]))
    losses = [trainer.step(data)["loss_d"] for _ in range(8)]
    torch.set_default_dtype(torch.float32)
    return losses


# %%
IMPORTS = """
import json
from dataclasses import replace
import torch
from course_lib.batches import Batch
from course_lib.long_recipes import embed, new_trainer
from course_lib.presets import get_preset, override
from course_lib.scale import join_world
from course_lib.text_encoder import load_text_encoder
"""
MAIN = """
torch.set_num_threads(1)
world, _ = join_world(torch.device("cpu"))
print(json.dumps([first_losses(world, dtype) for dtype in (torch.float32, torch.float64)]))
"""


# %%
def start(job, count):
    with socket.socket() as free:  # a port that nobody uses
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    runs = []
    for rank in range(count):
        who = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(job)]
        runs.append(
            subprocess.Popen(command, env=os.environ | where | who, stdout=subprocess.PIPE, text=True)
        )
    return [json.loads(run.communicate(timeout=500)[0].splitlines()[-1]) for run in runs]


# %%
with tempfile.TemporaryDirectory() as room:
    job = Path(room) / "job.py"
    job.write_text(IMPORTS + inspect.getsource(first_losses) + MAIN, encoding="utf-8")
    two, other = start(job, 2)
one = [first_losses(ALONE, dtype) for dtype in (torch.float32, torch.float64)]
assert two == other, "both processes know the loss of the whole batch"
rows = []
for step, (a, b, c, d) in enumerate(zip(one[0], two[0], one[1], two[1], strict=True)):
    row = {"step": step, "float32: one process": f"{a:.6f}", "two": f"{b:.6f}"}
    rows.append(
        row | {"float64: one process": f"{c:.6f}", "two ": f"{d:.6f}", "difference": f"{abs(c - d):.0e}"}
    )
table(rows)
assert all(abs(c - d) < 1e-6 for c, d in zip(one[1], two[1], strict=True))
assert abs(one[0][0] - two[0][0]) < 1e-3

# %% [markdown]
# In float64 yes, to a dozen digits: two processes *are* one. In float32 the first loss agrees to 6 digits; then the
# difference grows, on the machine this was written on to the second digit. Nothing is wrong: sums in another order are rounded otherwise, and where a
# slope should be 0, only the rounding is left; Adam divides it by its own size and makes a step of full length. (Compare
# within a pair: in float64 other noise is drawn.) The library's test compares 50 steps, and all weights, in float64.
#
# ## 8 What a large run costs
#
# `estimate` gives hours, kilowatt-hours and money; that is arithmetic. What matters is what one puts in.
#
# Two data sets that papers train on: **CUB-200-2011**, 11,788 photographs of birds with 10 captions each, and **COCO**
# (2014, training part), 82,783 photographs with 5 captions each. AttnGAN's published settings show the birds 600 times
# and COCO 120 times. We take our own two networks at 256 x 256 pixels, twice as wide, and count the FLOP of a picture.
#
# What we *assume*: your machine keeps the FLOP/s of the step above, with 10 W for a core and 0.30 for a kWh. A rented H100
# reaches 30 TFLOP/s, 3 % of the data sheet's (ours had 20 in float32, with 256 pictures of 128 x 128), draws 700 W and costs
# 3 an hour. (Put in your own numbers, above all if a GPU of yours made the steps.) **Predict.** How long on one core?

# %%
sizes = {"image_size": 256, "text_size": 384, "width": 64}
players = Generator(GeneratorConfig(**sizes)), Discriminator(DiscriminatorConfig(**sizes))
big = ScaledTrainer(*(player.to(device) for player in players), TrainConfig(batch_size=2, r1_weight=0.0))
blank = torch.zeros(2, 3, 256, 256, dtype=torch.uint8, device=device)
two = EmbeddedPictures(blank, torch.randn(2, 384).to(device), torch.zeros(384).to(device))
flops = step_flops(big, two) / 2
print(f"{flops / 1e9:.1f} billion FLOP a picture, {flops / (work.flops / 48):.0f} times those at 32 pixels")
machines = {"this machine": (work.flops / steps[torch.float32], 10, 0.003), "a GPU": (30e12, 700, 3)}
rows = []
for name, pictures, passes in (("CUB", 11_788, 600), ("COCO", 82_783, 120)):
    for machine, (rate, watts, price) in machines.items():
        cost = speed.estimate(pictures, passes, rate / flops, watts, price)
        row = {"data": name, "on": machine, "hours": f"{cost.hours:.1f}"}
        rows.append(row | {"kWh": f"{cost.kwh:.1f}", "cost": f"{cost.cost:.2f}"})
table(rows)

# %% [markdown]
# On the machine this was written on: two to three months on one core, three to four hours on the GPU, which also needs
# about a seventh of the energy. The networks of papers are often larger, and the runs that failed before are not in
# any table: lesson 17 has the energy of larger trainings.
#
# The command for a machine with eight GPUs:
#
# ```
# torchrun --nproc-per-node=8 --max-restarts=3 -m course_lib train --preset coco-256 \
#     --data train2014 --captions annotations/captions_train2014.json \
#     --out runs/coco --batch_size 512 --precision bfloat16 --compile cuda-graph
# ```
#
# Each process gets 64 of the 512 pictures. If one dies, all begin anew from the last checkpoint. The presets `cub`,
# `flowers` and `coco`, each for 64, 128 and 256 pixels, read any English captions by MiniLM. `--dry-run` instead of
# beginning counts hours, and memory by a `MemoryCounter` (`peak_bytes_of`). Without a GPU the command trains on the CPU, slowly.
#
# ## What changed in the library
#
# Two rooms are furnished: `scale.py`, the faster ways (`ScaleConfig` holds the choice, `ScaledTrainer` follows it), and
# `speed.py`, the instruments (`measure_step` gives a `StepTime`, `estimate` an `Estimate`). `course train` takes
# `--precision` and `--compile`, and `torchrun` may start it.
#
# ## Three questions
#
# 1. A program reaches 5 % of its GPU's FLOP/s. Is it badly written?
#
# <details><summary>Answer</summary>
#
# Ask for its intensity first. If that is far left of the ridge, 5 % may be all that memory allows; then fuse operations,
# or use each byte more often. If it lies right of the ridge, look for gaps: calls, waiting for data.
#
# </details>
#
# 2. Four processes average the gradients of their own means. The batch is 48, and no row is masked. Is the result that of
# one process?
#
# <details><summary>Answer</summary>
#
# Yes, if no layer and no loss lets rows see each other: four means of 12 rows average to the mean of 48. With batch
# normalisation in G, or with mode seeking, no.
#
# </details>
#
# 3. bfloat16 halves the bytes of a number. Why did the bytes of our step not halve?
#
# <details><summary>Answer</summary>
#
# Autocast keeps weights in float32 and rounds them on the way into each product: that is reading, writing, and one more
# operation. Everything that is no product (losses, Adam) goes on with 32 bits.
#
# </details>
#
# ## Papers
#
# - Samuel Williams, Andrew Waterman and David Patterson (2009), *Roofline: An Insightful Visual Performance Model for
#   Multicore Architectures*. [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785)
# - Paulius Micikevicius and others (2017), *Mixed Precision Training*: float16, weights kept in float32, and losses that
#   are scaled. [arXiv:1710.03740](https://arxiv.org/abs/1710.03740)
# - Dhiraj Kalamkar and others (2019), *A Study of BFLOAT16 for Deep Learning Training*.
#   [arXiv:1905.12322](https://arxiv.org/abs/1905.12322)
# - Priya Goyal and others (2017), *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*.
#   [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)
# - Shen Li and others (2020), *PyTorch Distributed: Experiences on Accelerating Data Parallel Training*.
#   [arXiv:2006.15704](https://arxiv.org/abs/2006.15704)
# - Tao Xu and others (2018), *AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial
#   Networks*. [arXiv:1711.10485](https://arxiv.org/abs/1711.10485)
#
# Next: lesson 14 draws with what was trained.
