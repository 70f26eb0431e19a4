"""Checks of the exercises of chapter 04: optimisers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.checks.core import Answer, random, several
from course_lib.optim import Adam, GradientDescent, Momentum, Optimizer, adam_update

# ---- 04.1


def check_momentum_step(function: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 04.1: one step of momentum.

    Args:
        function: momentum_step(parameter, gradient, velocity, lr, momentum), three tensors of one shape and two
            numbers -> (new parameter, new velocity).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names, lr, share = Answer("momentum_step", function), ("parameter", "velocity"), 0.1, 0.8
    w, slope, old = (random(seed + i, 3, 2) for i in range(3))
    parameter, velocity = several(answer, answer(w, slope, old, lr, share), names)
    new = share * old + slope
    mistakes = {
        "the two results are swapped; return the parameter first": w - lr * new,
        "it forgets the old velocity": slope,
        "nothing is forgotten; the old velocity is kept only by the share `momentum`": old + slope,
        "that is Adam's running mean; momentum adds the whole slope": share * old + (1 - share) * slope,
        "`momentum` is the share that is kept, not the one that is lost": (1 - share) * old + slope,
        "the new slope is damped too; only the old velocity is": share * (old + slope),
        "the learning rate is in the velocity; it belongs to the step alone": share * old + lr * slope,
        "the learning rate is in the velocity, with a minus; both belong to the step": share * old - lr * slope,
        "the sign of the slope is wrong": share * old - slope,
        "the velocity is as it was before": old,
    }
    answer.expect(velocity, new, "the new velocity", mistakes)
    mistakes = {
        "it goes uphill": w + lr * new,
        "the learning rate is missing": w - new,
        "it moves by the slope; the velocity plays no part": w - lr * slope,
        "it moves by the velocity from before this step; renew the velocity first": w - lr * old,
        "it looks one step ahead (Nesterov's form); move by the new velocity": w - lr * (slope + share * new),
        "the parameter has not moved": w,
    }
    answer.expect(parameter, w - lr * new, "the new parameter", mistakes)
    answer.verify("velocity and parameter of one step are right")
    theirs = w.clone().requires_grad_()
    original, ours, velocity = Momentum([theirs], lr=0.02, momentum=0.5), w, torch.zeros_like(w)
    for step in range(1, 6):
        theirs.grad = random(seed + step + 10, 3, 2)
        original.step()
        ours, velocity = several(answer, answer(ours, theirs.grad, velocity, 0.02, 0.5), names)
        what = f"the parameter after step {step} with lr 0.02 and momentum 0.5"
        answer.expect(ours, theirs, what, hint="Are `lr` and `momentum` those that were given?")
    answer.verify("five steps equal Momentum's, and so torch.optim.SGD's")
    still, _ = several(answer, answer(w, slope, old, lr, 0.0), names)
    answer.expect(still, w - lr * slope, "the parameter with momentum 0, which is plain descent")
    answer.verify("momentum 0 is plain descent")
    answer.passed()


# ---- 04.2


def adam_states(w: Tensor, gradients: Sequence[Tensor], **settings: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Weight and both means before the first step and after each; torch.optim's Adam would need seconds to load."""
    states = [(w, torch.zeros_like(w), torch.zeros_like(w))]
    for step, gradient in enumerate(gradients, start=1):
        state = tuple(x.clone() for x in states[-1])
        adam_update(state[0], gradient, *state[1:], step, **settings)
        states.append(state)
    return states


def check_adam_step(function: Callable[..., tuple[Tensor, Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 04.2: one step of Adam, with the correction of the bias.

    Args:
        function: adam_step(parameter, gradient, exp_avg, exp_avg_sq, step, lr, betas, eps), four tensors of one shape,
            the number of the step from 1 up and three settings -> (new parameter, new exp_avg, new exp_avg_sq).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("adam_step", function), ("parameter", "exp_avg", "exp_avg_sq")
    slopes = [random(seed + i, 4) * 10.0 ** (i - 1) for i in range(4)]
    betas = b1, b2 = 0.6, 0.9
    states = adam_states(random(seed + 9, 4), slopes, lr=0.1, betas=betas)
    (w, m, v), g, (new_w, new_m, new_v) = states[2], slopes[2], states[3]  # the third step
    w2, m2, v2 = several(answer, answer(w, g, m, v, 3, 0.1, betas, 1e-8), names)
    mistakes = {
        "`beta` is the share that is kept; you gave it to the new slope": (1 - b1) * m + b1 * g,
        "the two betas are swapped": b2 * m + (1 - b2) * g,
        "that is momentum's velocity; the new slope has the share 1 - beta1": b1 * m + g,
        "you keep the corrected mean; the correction is for the step alone": new_m / (1 - b1**3),
        "it has not changed": m,
        "the results are in another order; return the parameter, exp_avg, exp_avg_sq": new_w,
    }
    answer.expect(m2, new_m, "exp_avg, the mean of the slopes", mistakes)
    mistakes = {
        "`beta` is the share that is kept; you gave it to the new square": (1 - b2) * v + b2 * g**2,
        "the two betas are swapped": b1 * v + (1 - b1) * g**2,
        "it needs the square of the slope": b2 * v + (1 - b2) * g,
        "that is the mean of the slopes' size; it needs their squares": b2 * v + (1 - b2) * g.abs(),
        "you squared the mean; take the mean of the squares": b2 * v + (1 - b2) * new_m**2,
        "you keep the corrected mean; the correction is for the step alone": new_v / (1 - b2**3),
        "the share 1 - beta2 is missing": b2 * v + g**2,
        "it has not changed": v,
    }
    answer.expect(v2, new_v, "exp_avg_sq, the mean of the squared slopes", mistakes)
    answer.verify("both running means are right")

    def moved(correction1: float, correction2: float, m: Tensor = new_m, v: Tensor = new_v) -> Tensor:
        return w - 0.1 * (m / correction1) / ((v / correction2).sqrt() + 1e-8)

    mistakes = {
        "the bias correction is missing, as in the article: the first step is 3.16 times too long": moved(1, 1),
        "exp_avg is corrected, exp_avg_sq is not": moved(1 - b1**3, 1),
        "exp_avg_sq is corrected, exp_avg is not": moved(1, 1 - b2**3),
        "the correction counts steps from 0; `step` is 1 for the first, take it as it is": moved(1 - b1**2, 1 - b2**2),
        "the correction is one step ahead; take `step` as it is": moved(1 - b1**4, 1 - b2**4),
        "the correction is that of the first step; beta is to the power of `step`": moved(1 - b1, 1 - b2),
        "the betas of the two corrections are swapped": moved(1 - b2**3, 1 - b1**3),
        "you multiply by the correction; divide by it": moved(1 / (1 - b1**3), 1 / (1 - b2**3)),
        "it divides by the mean square; the root is missing": (
            w - 0.1 * (new_m / (1 - b1**3)) / (new_v / (1 - b2**3) + 1e-8)
        ),
        "the correction is outside of the root; v is corrected first, then comes the root": (
            w - 0.1 * (new_m / (1 - b1**3)) / (new_v.sqrt() / (1 - b2**3) + 1e-8)
        ),
        "it goes uphill": 2 * w - new_w,
        "the learning rate is missing": w + 10 * (new_w - w),
        "it moves by the slope itself; its running mean says which way": moved(1, 1 - b2**3, m=g),
        "it moves by the means from before this step; renew them first": moved(1 - b1**3, 1 - b2**3, m, v),
        "the parameter has not moved": w,
    }
    answer.expect(w2, new_w, "the parameter after the third step", mistakes, hint="Look at the fraction once more")
    answer.verify("so is the third step")
    first = states[0]
    w2, *_ = several(answer, answer(first[0], slopes[0], *first[1:], 1, 0.1, betas, 1e-8), names)
    hint = "1 - beta to the power of 0 is 0; is the first step's number 1?"
    answer.expect(w2, states[1][0], "the parameter after the first step", hint=hint)
    answer.verify("the first step moves every weight by lr")
    w, m, v = first[0], torch.zeros(4), torch.zeros(4)
    right = adam_states(w, slopes, lr=0.01)
    for step, slope in enumerate(slopes, start=1):
        w, m, v = several(answer, answer(w, slope, m, v, step, 0.01, (0.9, 0.999), 1e-8), names)
        what = f"the parameter after step {step} with lr 0.01 and the betas 0.9 and 0.999"
        answer.expect(w, right[step][0], what, hint="Are lr and betas those that were given?")
    answer.verify("four steps equal those of Adam, and so torch.optim.Adam's")
    try_eps(answer, names, seed)
    answer.passed()


def try_eps(answer: Answer, names: Sequence[str], seed: int) -> None:
    """Where slopes are as small as eps, its place matters; where they are 0, it saves the division."""
    w, g, eps = random(seed, 3), 0.01 * random(seed + 1, 3), 0.02
    right = adam_states(w, [g], lr=0.1, eps=eps)[1][0]
    found, *_ = several(answer, answer(w, g, 0 * w, 0 * w, 1, 0.1, (0.9, 0.999), eps), names)
    mistakes = {
        "eps is inside the root; it is added to the root": w - 0.1 * g / (g**2 + eps).sqrt(),
        "eps is added before the root is corrected; correct exp_avg_sq first": (
            w - 0.1 * g / ((0.001 * g**2).sqrt() + eps) * 0.001**0.5
        ),
        "eps is missing, or another than the one that was given": w - 0.1 * g.sign(),
        "eps stands above the line": w - 0.1 * (g + eps) / g.abs(),
        "eps is squared inside the root; it is added to the root": w - 0.1 * g / (g**2 + eps**2).sqrt(),
    }
    answer.expect(found, right, "the parameter where slopes are smaller than eps", mistakes)
    nothing = torch.zeros(3)
    found, *_ = several(answer, answer(w, nothing, nothing, nothing, 1, 0.1, (0.9, 0.999), 1e-8), names)
    answer.expect(found, w, "the parameter where the slope is 0", hint="0 / 0: is eps outside of the root, and added?")
    answer.verify("eps is in its place")


# ---- 04.3


class Counted(GradientDescent):
    """Gradient descent that counts its steps."""

    counted = 0

    def step(self) -> None:
        self.counted += 1
        super().step()


def check_step_in_pieces(function: Callable[..., None], seed: int = 0) -> None:
    """Exercise 04.3: the mended step for a batch that comes in pieces.

    Args:
        function: step_in_pieces(weights, pieces, optimizer, loss_of); changes `weights` by one step of the optimiser.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, sizes = Answer("step_in_pieces", function), (5, 3, 2)
    start, batch, lr = random(seed, 3), random(seed + 1, sum(sizes), 3), 0.1
    pieces, given = list(batch.split(sizes)), []

    def loss_of(weights: Tensor, piece: Tensor) -> Tensor:
        given.append(len(piece))
        return ((piece @ weights - 1) ** 2).mean()

    def slope_at(weights: Tensor, piece: Tensor) -> Tensor:
        leaf = weights.clone().requires_grad_()
        return torch.autograd.grad(((piece @ leaf - 1) ** 2).mean(), leaf)[0]

    def run(optimizer_of: Callable[[list[Tensor]], Optimizer], old: Tensor, times: int) -> tuple[Tensor, Optimizer]:
        weights = start.clone().requires_grad_()
        weights.grad, optimizer = old.clone(), optimizer_of([weights])
        for _ in range(times):
            answer.run(((weights, list(pieces), optimizer, loss_of), {}))
        return weights.detach(), optimizer

    slopes, old = [slope_at(start, piece) for piece in pieces], random(seed + 2, 3)
    whole, total, one_by_one = slope_at(start, batch), sum(slopes), start
    for piece in pieces:
        one_by_one = one_by_one - lr * slope_at(one_by_one, piece)
    moved, optimizer = run(lambda params: Counted(params, lr), old, 1)
    mistakes = {
        "only the last piece counts: what the others added is cleared before the step": start - lr * slopes[-1],
        "only the first piece counts": start - lr * slopes[0],
        "every piece counts like a whole batch; give each the share of the batch that it is": start - lr * total,
        "a small piece counts as much as a large one; give each the share of the batch that it is": (
            start - lr * total / len(pieces)
        ),
        "the slopes from before are still in it; nobody cleared them": start - lr * (whole + old),
        "the slopes from before are still in it, and every piece counts like a whole batch": start - lr * (total + old),
        "a step follows every piece; one step follows all of them": one_by_one,
        "nothing moved: are the slopes cleared before the step, or is the step missing?": start,
        "it moves by the slopes from before alone": start - lr * old,
        "you divided by the number of pictures; each loss is a mean already": start - lr * total / len(batch),
        "each piece counts by how many pictures it has; divide by the size of the whole batch": (
            start - lr * sum(len(piece) * slope for piece, slope in zip(pieces, slopes, strict=True))
        ),
    }
    hint = "Every piece must have the share that it is of the batch, and nothing else may be in the slope"
    answer.expect(moved, start - lr * whole, "the weights after a step in pieces of 5, 3 and 2", mistakes, hint=hint)
    if optimizer.counted != 1:
        answer.fail(f"the optimiser made {optimizer.counted} steps; one step follows all pieces")
    answer.verify("pieces of 5, 3 and 2 move the weights like the whole batch of 10, in one step")
    answer.verify("old slopes are cleared")
    if max(given) > max(sizes):
        answer.fail("it puts the pieces together again; the whole batch does not fit into memory, go piece by piece")
    answer.verify("the batch is never put together")
    moved, _ = run(lambda params: Adam(params, lr), torch.zeros(3), 3)
    right = start.clone().requires_grad_()
    original = Adam([right], lr)
    for _ in range(3):
        right.grad = slope_at(right.detach(), batch)
        original.step()
    answer.expect(
        moved, right, "the weights after three steps of Adam", hint="Do you use the optimiser that you were given?"
    )
    answer.verify("with Adam too")
    answer.passed()


# ---- 04.4


def check_running_average(function: Callable[[Tensor, float], Tensor], seed: int = 0) -> None:
    """Exercise 04.4: a running average whose bias is corrected.

    Args:
        function: running_average(weights, decay), (T, N) and a number in [0, 1) -> (T, N).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, decay = Answer("running_average", function), 0.8
    weights = random(seed, 6, 2) + 3
    t = torch.arange(1, 7)[:, None]  # (6, 1)

    def averages(start: Tensor, share: float, first: int = 0) -> Tensor:
        rows, now = [start] if first else [], start
        for row in weights[first:]:
            now = share * now + (1 - share) * row
            rows.append(now)
        return torch.stack(rows)

    zeros = averages(torch.zeros(2), decay)  # not corrected
    right = zeros / (1 - decay**t)
    fed_back, now = [], torch.zeros(2)
    for step, row in enumerate(weights, start=1):
        now = (decay * now + (1 - decay) * row) / (1 - decay**step)
        fed_back.append(now)
    hint = "one average for every step: as many rows as were given"
    found = answer.expect_shape(answer(weights, decay), tuple(weights.shape), hint)
    mistakes = {
        "the correction is missing: it starts at 0, and is too small at first": zeros,
        "it starts as a copy of the first weights, as WeightAverage does, and remembers them too long": (
            averages(weights[0], decay, 1)
        ),
        "`decay` is the share that is kept; you gave it to the new weights": (
            averages(torch.zeros(2), 1 - decay) / (1 - (1 - decay) ** t)
        ),
        "that is the plain mean of all steps so far, which forgets nothing": weights.cumsum(0) / t,
        "the corrected average goes into the next step; keep the uncorrected one for that": torch.stack(fed_back),
        "the correction is one step ahead; it is 1 - decay for the first": zeros / (1 - decay ** (t + 1)),
        "you multiply by the correction; divide by it": zeros * (1 - decay**t),
        "the correction is that of the first step; decay is to the power of the step": zeros / (1 - decay),
        "these are the weights themselves": weights,
        "the share 1 - decay is missing": right / (1 - decay),
    }
    hint = "At the first step, 1 - decay**0 would be 0; the first step is number 1"
    answer.expect(found, right, "the average of 6 steps with decay 0.8", mistakes, hint=hint)
    answer.verify("six averages are right, the first is the first weights")
    even = torch.full((50, 1), 7.0)
    answer.expect(
        answer(even, 0.99), even, "the average of weights that never change", hint="It must not change either"
    )
    answer.verify("what never changes has itself as average")
    answer.expect(answer(weights, 0.0), weights, "the average with decay 0, which remembers one step only")
    answer.verify("decay 0 gives the weights")
    answer.passed()
