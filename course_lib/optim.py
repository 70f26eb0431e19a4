"""Optimisers: how a gradient becomes a step. Built in chapter 04.

Gradient descent, momentum and Adam, each a few lines over one small base class, equal to `torch.optim` number for
number; then the running average of a model's weights that draws the pictures. All parameters are stepped together
by torch's `_foreach` operations: one call for a whole list of tensors instead of a Python loop over them.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor
from torch.nn import Module


class Optimizer:
    """The list of parameters, their state and the bookkeeping around `update`, which each optimiser writes.

    Args:
        params: the tensors to be trained, already on their device.
        lr: learning rate, 0 or more; may be changed between steps.
    Raises:
        ValueError: there is nothing to train, or lr is negative.
    """

    state_names: tuple[str, ...] = ()  # what `update` remembers of each parameter, in tensors of its shape

    def __init__(self, params: Iterable[Tensor], lr: float):
        self.params, self.lr = list(params), lr
        if not self.params:
            raise ValueError("params is empty; give model.parameters()")
        if not lr >= 0:
            raise ValueError(f"lr={lr} is not a learning rate; use a number from 0 up")
        self.steps = [0] * len(self.params)
        self.state = {
            name: [torch.zeros_like(p, requires_grad=False) for p in self.params] for name in self.state_names
        }

    def zero_grad(self) -> None:
        """Forgets the gradients; without it `backward` adds to those of the step before."""
        for parameter in self.params:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        rows = [row for row, parameter in enumerate(self.params) if parameter.grad is not None]
        if not rows:
            return
        for row in rows:
            self.steps[row] += 1
        params, gradients = [self.params[row] for row in rows], [self.params[row].grad for row in rows]
        state = [[tensors[row] for row in rows] for tensors in self.state.values()]
        self.update(params, gradients, [self.steps[row] for row in rows], *state)

    def update(self, params: list[Tensor], gradients: list[Tensor], steps: list[int], *state: list[Tensor]) -> None:
        """Changes params and state in place; steps[i], from 1 up, counts the updates of params[i]."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        """The state by name: "step" (P,) int64 and, say, "exp_avg.0" for the first of the P parameters."""
        tensors = {f"{name}.{i}": x for name, state in self.state.items() for i, x in enumerate(state)}
        return {"step": torch.tensor(self.steps), **tensors}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes over the state of an optimiser of the same kind and parameters; lr is not part of it.

        Raises:
            ValueError: another optimiser's names, another number of parameters, or other shapes; nothing is changed.
        """
        own = self.state_dict()
        if own.keys() != state_dict.keys():
            names = ", ".join(sorted(own.keys() ^ state_dict.keys())[:4])
            raise ValueError(f"state_dict is of another optimiser or model; on one side only: {names}")
        for name, tensor in own.items():
            if tensor.shape != state_dict[name].shape:
                shapes = f"{tuple(state_dict[name].shape)}, the parameter needs {tuple(tensor.shape)}"
                raise ValueError(f'state_dict["{name}"] has the shape {shapes}; load the state of the same model')
        self.steps = state_dict["step"].tolist()
        for name, tensor in own.items():
            tensor.copy_(state_dict[name])


class GradientDescent(Optimizer):
    """Straight downhill: parameter -= lr * gradient. Source: Cauchy 1847."""

    def update(self, params, gradients, steps):
        torch._foreach_add_(params, gradients, alpha=-self.lr)


class Momentum(Optimizer):
    """Downhill like a heavy ball: the velocity keeps the share `momentum` of itself and adds the gradient.

    Equal to torch.optim.SGD(params, lr, momentum).

    Source: Polyak 1964, in the form of Sutskever et al. 2013.
    """

    state_names = ("momentum_buffer",)

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.9):
        super().__init__(params, lr)
        self.momentum = momentum

    def update(self, params, gradients, steps, velocities):
        torch._foreach_mul_(velocities, self.momentum)
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(params, velocities, alpha=-self.lr)


def adam_update(
    parameter: Tensor, gradient: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: int,
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, bias_correction: bool = True,
) -> None:  # fmt: skip
    """One step of Adam for one tensor, to be read; `Adam` does the same for all tensors at once.

    Args:
        parameter, gradient, exp_avg, exp_avg_sq: of one shape; all but the gradient are changed in place.
        step: 1 for the first.
        lr, betas, eps: as for `Adam`.
        bias_correction: False shows what happens without: both averages start at 0 and are too small at first, the
            squared one more so, and the first step is (1 - beta1) / sqrt(1 - beta2) = 3.16 times too long.
    Source: Kingma & Ba 2015, algorithm 1, arXiv:1412.6980.
    """
    exp_avg.lerp_(gradient, 1 - betas[0])  # running mean of the gradient: which way
    exp_avg_sq.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])  # and of its square: how large it is
    correction1, correction2 = (1 - beta**step if bias_correction else 1.0 for beta in betas)
    parameter -= lr * (exp_avg / correction1) / ((exp_avg_sq / correction2).sqrt() + eps)


class Adam(Optimizer):
    """Every number gets its own step length: `adam_update` for all tensors at once. Equal to torch.optim.Adam.

    Args:
        params: the tensors to be trained.
        lr: about the length of a step in each coordinate.
        betas: how much the running means of gradient and squared gradient keep of themselves, each in [0, 1).
        eps: keeps the division finite where gradients are 0.
        weight_decay: adds this share of the parameter to its gradient.
    Raises:
        ValueError: a beta outside [0, 1), or a negative lr, eps or weight_decay.
    Source: Kingma & Ba 2015, algorithm 1, arXiv:1412.6980.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0,
    ):  # fmt: skip
        super().__init__(params, lr)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} must both lie in [0, 1); (0.9, 0.999) is usual")
        if not (eps >= 0 and weight_decay >= 0):
            raise ValueError(f"eps={eps} and weight_decay={weight_decay} must be 0 or more")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, params, gradients, steps, exp_avgs, exp_avg_sqs):
        beta1, beta2 = self.betas
        if self.weight_decay:
            gradients = torch._foreach_add(gradients, params, alpha=self.weight_decay)
        torch._foreach_lerp_(exp_avgs, gradients, 1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, gradients, gradients, value=1 - beta2)
        divisors = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_div_(divisors, [math.sqrt(1 - beta2**step) for step in steps])
        torch._foreach_add_(divisors, self.eps)
        torch._foreach_addcdiv_(params, exp_avgs, divisors, [-self.lr / (1 - beta1**step) for step in steps])


class WeightAverage:
    """A copy of a model whose weights are the running average of the model's: its pictures are steadier.

    Args:
        model: is copied; the copy, `.model`, is in eval mode and takes no gradients.
        decay: in [0, 1], the share of itself that the average keeps at each update; 0.99 averages about 100 steps.
    Raises:
        ValueError: decay is out of range.
    Source: Polyak & Juditsky 1992; exponential, for GANs, Yazici et al. 2019.
    """

    def __init__(self, model: Module, decay: float = 0.99):
        if not 0 <= decay <= 1:
            raise ValueError(f"decay={decay} is out of range; use 0 to 1, such as 0.99")
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: Module) -> None:
        """Moves weights and floating-point buffers towards the model's; whole-number buffers are copied."""
        averages, currents = ([*chain(m.parameters(), m.buffers())] for m in (self.model, model))
        pairs = list(zip(averages, currents, strict=True))
        floating = [(average, current) for average, current in pairs if average.is_floating_point()]
        torch._foreach_lerp_(*(list(tensors) for tensors in zip(*floating, strict=True)), 1 - self.decay)
        for average, current in pairs:
            if not average.is_floating_point():
                average.copy_(current)
