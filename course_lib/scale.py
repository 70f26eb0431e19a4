"""The same training, faster: lower precision, compiled passes, several processes. Built in chapter 13.

`AdversarialTrainer` sends every pass of a network through `passed` and every update through `update`. `ScaledTrainer`
changes these two and nothing else, so the recipe stays one. Several processes are equal to one: all know the whole
batch (chance in step t comes from (seed, t) alone), each sends its own rows through the networks, and what comes out is
put together again; then every process computes the loss of the whole batch, and the gradients of all are added up.
"""

import atexit
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module

from course_lib.batches import EmbeddedPictures
from course_lib.errors import CourseError, nearest
from course_lib.image_encoder import ImageEncoder
from course_lib.layers import BatchNorm2d
from course_lib.text_gan import Discriminator, Generator
from course_lib.training import AdversarialTrainer, TrainConfig

PRECISIONS = ("float32", "bfloat16")
COMPILES = {"no": None, "yes": "default", "cuda-graph": "reduce-overhead"}  # -> torch.compile's mode
WAIT = timedelta(minutes=5)  # for a process that does not answer


@dataclass(frozen=True)
class ScaleConfig:
    """How to compute what `TrainConfig` says.

    Args:
        precision: of convolutions and matrix products; "bfloat16" by autocast, with losses and R1 still in float32.
        compile: "yes" fuses each pass by `torch.compile`; "cuda-graph" also replays it without Python. R1's passes stay
            plain: compiled code has no second derivative.
    """

    precision: str = "float32"
    compile: str = "no"

    def __post_init__(self):
        for name, known in (("precision", PRECISIONS), ("compile", COMPILES)):
            if (value := getattr(self, name)) not in known:
                raise CourseError(f'{name}="{value}" is unknown; {nearest(str(value), known)}')


PLAIN = ScaleConfig()


class World(NamedTuple):
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    def own(self, batch_size: int) -> slice:
        """The rows of a batch that are this process's.

        Raises:
            CourseError: they can't be shared out evenly.
        """
        if batch_size % self.size:
            raise CourseError(f"batch_size={batch_size} can't be shared by {self.size} processes; use a multiple of it")
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)


ALONE = World()


def join_world(device: torch.device) -> tuple[World, torch.device]:
    """Meet the other processes that `torchrun` has started; alone if there are none.

    Returns:
        This process's place, and its own device.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return ALONE, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        store, rank, size = next(dist.rendezvous("env://", timeout=WAIT))
        # the store outlives a restart, with the addresses of the dead: each attempt has a shelf of its own
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT)
        atexit.register(dist.destroy_process_group)  # else its threads outlive the program and end it with a crash
    return World(dist.get_rank(), dist.get_world_size()), device


class AllSum(Function):
    """The sum over all processes. Its gradient is the sum of theirs, because each used the result in its own loss."""

    @staticmethod
    def forward(context, input: Tensor) -> Tensor:
        total = input.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return AllSum.forward(context, gradient)


def gathered(rows: Tensor, world: World) -> Tensor:
    """This process's rows with those of all others around them; only the own ones carry a gradient.

    Args:
        rows: (B / processes, ...).
    Returns:
        (B, ...) in the order of the processes.
    """
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world.size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[world.rank] = rows
    whole = torch.cat(parts)
    return whole.contiguous(memory_format=torch.channels_last) if whole.dim() == 4 else whole


class SynchronisedBatchNorm2d(BatchNorm2d):
    """Batch normalisation by the mean and variance of the whole batch, wherever its rows are."""

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
            self.bias[:, None, None], result, self.weight[:, None, None]
        )  # fmt: skip


def synchronise_(network: Module) -> Module:
    """Every batch normalisation of a network becomes a synchronised one, with the same weights and statistics."""
    for layer in network.modules():
        if type(layer) is BatchNorm2d:
            layer.__class__ = SynchronisedBatchNorm2d  # only `forward` differs; optimisers keep their parameters
    return network


def no_numbers(scale: ScaleConfig, device: torch.device) -> bool:
    """True, and said, where compiled code is known to compute gradients that are no numbers: in bfloat16 on a CPU.

    Seen with PyTorch 2.13 in the generator, with 48 pictures a step; the same pass uncompiled, or in float32, is fine.
    """
    if scale.precision != "bfloat16" or device.type != "cpu":
        return False
    print("On a CPU, compiled code in bfloat16 gives gradients that are no numbers; going on without compiling.")
    return True


class ScaledTrainer(AdversarialTrainer):
    """`AdversarialTrainer`, in another precision, compiled, or as one of several processes.

    Args:
        scale: how to compute; world: which process this is. The others as for `AdversarialTrainer`; every process
            starts from the same weights.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        config: TrainConfig,
        image_encoder: ImageEncoder | None = None,
        scale: ScaleConfig = PLAIN,
        world: World = ALONE,
    ):
        super().__init__(generator, discriminator, config, image_encoder)
        self.scale, self.world = scale, world
        self.own = world.own(config.batch_size)
        self.compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}
        self.cannot_compile = scale.compile != "no" and no_numbers(scale, next(generator.parameters()).device)
        if world.size > 1:
            synchronise_(generator)

    def step(self, data: EmbeddedPictures) -> dict[str, float]:
        """As `AdversarialTrainer.step`; the memory that recorded passes have left their results in is free again."""
        if self.scale.compile == "cuda-graph":  # else a player's second pass would overwrite what the first one keeps
            torch.compiler.cudagraph_mark_step_begin()
        return super().step(data)

    def passed(self, network: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """This process's rows through the network, at the speed that was asked for; the result is the whole batch's."""
        for_r1 = any(x is not None and x.is_leaf and x.requires_grad for x in inputs)  # its slope is asked for
        if self.world.size > 1:
            inputs = tuple(x if x is None else x[self.own] for x in inputs)
        low = self.scale.precision == "bfloat16" and not for_r1
        with torch.autocast(inputs[0].device.type, torch.bfloat16) if low else nullcontext():
            result = network(*inputs) if for_r1 else self.swift(network, *inputs)
        result = result.float() if low else result
        return gathered(result, self.world) if self.world.size > 1 else result

    def swift(self, network: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """A pass of the compiled network; where this machine can't compile, of the network as it is, said once."""
        mode = COMPILES[self.scale.compile]
        if mode is None or self.cannot_compile:
            return network(*inputs)
        if network not in self.compiled:
            self.compiled[network] = torch.compile(network, mode=mode, dynamic=False)
        try:
            return self.compiled[network](*inputs)
        except torch.OutOfMemoryError:  # of which not compiling is no cure
            raise
        except Exception as error:  # no C++ compiler, no Triton, an operation it can't translate: many kinds
            told = " ".join(str(error).split())[:120]
            print(f"torch.compile is not possible here ({type(error).__name__}: {told}); going on without it.")
            self.cannot_compile = True
            return network(*inputs)

    def share(self, gradients: list[Tensor]) -> None:
        """Add up what the processes have found, each from its own rows."""
        if self.world.size == 1:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of many
        dist.all_reduce(together)
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
