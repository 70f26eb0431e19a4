"""How fast a machine is, how much work a training step is, and what a long run will take. Built in chapter 13.

A machine is described by two numbers, how many operations and how many bytes a second it manages; code is described by
how many of each it needs. Machines are timed, work is counted, and the two together say what to expect.
"""

import time
import weakref
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from course_lib.batches import EmbeddedPictures
from course_lib.training import AdversarialTrainer

WARM_UP = (
    3  # steps that are not timed: memory is fetched, kernels are chosen, compiled passes are compiled and recorded
)


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has finished what it was asked for.

    With one CPU thread it is the clock of the processor, which stands still while other programs have their turn.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds_of(run: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median time of some code in seconds, after one run that does not count."""
    run()
    times = []
    for _ in range(repeats):
        started = now(device)
        run()
        times.append(now(device) - started)
    return median(times)


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in a large matrix product; a multiplication and an addition are two."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size).to(device, dtype)
    return 2 * size**3 / seconds_of(lambda: a @ b, device)


def memory_rate(device: torch.device) -> float:
    """Bytes a second that are read or written while a large tensor is copied."""
    source = torch.zeros(2**26, device=device)  # 256 MiB: more than caches hold
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)


class Work(NamedTuple):
    """What some code has to do, counted.

    Args:
        flops: floating-point operations of convolutions and matrix products; all others are few beside them.
        bytes: that all operations together read and write, if nothing stays in a cache between two of them.
        operations: how many they are. Each is a call of PyTorch's; on a GPU most are a kernel that has to be started.
    """

    flops: int
    bytes: int
    operations: int

    @property
    def intensity(self) -> float:
        """Operations for each byte, FLOP / B."""
        return self.flops / self.bytes


class WorkCounter(TorchDispatchMode):
    """Within it the work of every operation of PyTorch is added up, that of gradients too.

    Source: FLOP by the formulas of `torch.utils.flop_counter`.
    """

    def __init__(self):
        super().__init__()
        self.work = Work(0, 0, 0)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if operation.is_view:  # it moves nothing
            return result
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        moved = sum(x.numel() * x.element_size() for x in tensors)
        formula = flop_registry.get(operation.overloadpacket)
        flops = formula(*args, **kwargs, out_val=result) if formula else 0
        self.work = Work(self.work.flops + flops, self.work.bytes + moved, self.work.operations + 1)
        return result


def work_of(run: Callable[[], Any]) -> Work:
    """Run some code once, and count what it does."""
    with WorkCounter() as counter:
        run()
    return counter.work


class MemoryCounter(TorchDispatchMode):
    """Within it the memory of all new tensors is added up, and taken off again when they are gone."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.keep(tensor.untyped_storage())
        return result

    def keep(self, storage: torch.UntypedStorage) -> None:
        """Count a piece of memory, once for all tensors that share it."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.release, key, size)

    def release(self, key: int, size: int) -> None:
        """It is gone."""
        self.known.discard(key)
        self.now -= size


def peak_bytes_of(run: Callable[[], Any]) -> int:
    """Run some code once; the most memory that tensors made by it hold at one time, in bytes."""
    with MemoryCounter() as counter:
        run()
    return counter.peak


def step_flops(trainer: AdversarialTrainer, data: EmbeddedPictures) -> int:
    """Floating-point operations of the trainer's next step, which is done; one with R1 has more than the others."""
    return work_of(lambda: trainer.step(data)).flops


class StepTime(NamedTuple):
    """Of a training step: seconds (median), and the most memory that a GPU held, in bytes; None on a CPU."""

    seconds: float
    peak_bytes: int | None


def measure_step(trainer: AdversarialTrainer, data: EmbeddedPictures, steps: int = 8) -> StepTime:
    """Time a trainer's next steps.

    Args:
        trainer: makes `WARM_UP` steps more, which are not timed.
        data: what it learns from; steps: how many are timed.
    """
    device = next(trainer.generator.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP - 1):
        trainer.step(data)
    seconds = seconds_of(lambda: trainer.step(data), device, steps)
    return StepTime(seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None)


class Estimate(NamedTuple):
    """What a training takes: hours, kilowatt-hours, and money in the unit of the price."""

    hours: float
    kwh: float
    cost: float


def estimate(pictures: int, passes: float, pictures_per_second: float, watts: float, price_per_hour: float) -> Estimate:
    """What a training will take on one device or on several.

    Args:
        pictures: in the data set; passes: how often each is shown.
        pictures_per_second: of all devices together; watts: likewise, while they train.
        price_per_hour: of all devices together, in any currency.
    """
    hours = pictures * passes / pictures_per_second / 3600
    return Estimate(hours, hours * watts / 1000, hours * price_per_hour)
