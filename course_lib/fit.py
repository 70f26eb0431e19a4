"""The plain training loop of chapters 06 to 09, and a learning rate that rises, then falls. Chapter 06 builds it."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import Module
from tqdm import tqdm


def fit(
    model: Module,
    batch: Callable[[int], tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    optimizer,
    steps: int,
    *,
    on_step: Callable[[int, float], None] | None = None,
    learning_rate: Callable[[int], float] | None = None,
    progress: str | None = None,
) -> list[float]:
    """Train a model: `steps` times take a batch, compute the loss, follow its gradient.

    Args:
        model: what is trained; put into training mode.
        batch: step -> the tensors of its batch.
        loss: (model, *batch) -> () tensor.
        optimizer: one of `course_lib.optim` (or `torch.optim`, without a `learning_rate`), over the model's parameters.
        steps: how many.
        on_step: called after each step with its number and its loss.
        learning_rate: step -> learning rate of that step; default: the optimizer's own.
        progress: what the progress bar says; default: no bar.
    Returns:
        The loss of each step.
    Raises:
        FloatingPointError: the loss is not finite; the weights are those of the step before.
    """
    model.train()
    losses = []
    bar = tqdm(range(steps), desc=progress, disable=progress is None)
    for step in bar:
        if learning_rate is not None:
            optimizer.lr = learning_rate(step)
        value = loss(model, *batch(step))
        losses.append(require_finite(value.item(), step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
        if on_step is not None:
            on_step(step, losses[-1])
    return losses


def require_finite(loss: float, step: int) -> float:
    """The loss itself, or a FloatingPointError that says at which step it went wrong and what helps."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} at step {step}; a smaller learning rate or a warm-up helps")
    return loss


def warmup_cosine(peak: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """A learning rate that rises in a straight line to `peak`, then falls along half a cosine to 0.

    Args:
        peak: the highest learning rate, reached at step `warmup`.
        steps: how many steps in all; the rate reaches 0 just after the last.
        warmup: in [0, steps).
    Returns:
        step -> learning rate, above 0 for 0 <= step < steps.
    Raises:
        ValueError: warmup is out of range.
    Source: Loshchilov & Hutter 2017, eq. 5 (cosine); Goyal et al. 2017, section 2.2 (warm-up).
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} is not from 0 to steps - 1 = {steps - 1}")

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    return rate
