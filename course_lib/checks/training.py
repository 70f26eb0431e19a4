"""Checks of the exercises of chapter 12: learning rate, weight averaging, lazy R1, and going on bit for bit."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Sequential

from course_lib.checks.core import NUMBERS, Answer, describe, random, same, short
from course_lib.layers import BatchNorm2d, Conv2d
from course_lib.optim import Adam

# ---- 12.1


def check_learning_rate_at(function: Callable[..., float], seed: int = 0) -> None:
    """Exercise 12.1: a learning rate that warms up, stays, and falls along half a cosine.

    Args:
        function: learning_rate_at(step, steps, peak, warmup, constant) -> learning rate of that step, from 0 up.
        seed: chooses the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("learning_rate_at", function)
    steps, peak, warmup, constant = [(20, 0.4, 5, 0.6), (30, 0.2, 4, 0.5)][seed % 100 % 2]
    t = torch.arange(steps, dtype=torch.float64)

    def rates(*settings: Any) -> Tensor:
        told = [answer(step, *settings) for step in range(settings[0])]
        parts = [answer.expect_shape(rate, (), "a learning rate is one number") for rate in told]
        return torch.stack([part.double() for part in parts])

    def schedule(up: Tensor | float, down: Tensor | float, falls_from: float = constant * steps) -> Tensor:
        return peak * torch.where(t < warmup, up, torch.where(t < falls_from, 1.0, down))

    up, begin = (t + 1) / warmup, constant * steps
    over = (t - begin) / (steps - begin)  # share of the fall that is over
    down = (1 + torch.cos(math.pi * over)) / 2
    mistakes = {
        "the warm-up begins at 0, so the first step is lost; it has the rate peak / warmup": schedule(t / warmup, down),
        "the warm-up takes a step too long: step warmup - 1 has the full rate": (
            peak * torch.where(t < begin, ((t + 1) / (warmup + 1)).clamp(max=1), down)
        ),
        "the warm-up is missing": schedule(1.0, down),
        "the rate never falls": schedule(up, 1.0),
        "it falls along a straight line, as in the lesson; take half a cosine": schedule(up, 1 - over),
        "a whole wave of the cosine: the rate comes back up; the angle goes from 0 to pi": (
            schedule(up, (1 + torch.cos(2 * math.pi * over)) / 2)
        ),
        "only a quarter of the wave; the angle goes from 0 to pi": schedule(up, torch.cos(math.pi / 2 * over)),
        "the rate becomes negative, and the run goes uphill; take (1 + cos) / 2": schedule(
            up, torch.cos(math.pi * over)
        ),
        "it starts the fall at 0 and goes up; take (1 + cos) / 2": schedule(up, 1 - down),
        "the fall is measured from the start of the run, so the rate jumps; measure it from where it begins": (
            schedule(up, (1 + torch.cos(math.pi * t / steps)) / 2)
        ),
        "it falls from the end of the warm-up; it stays first, until the share `constant` of the run is over": (
            schedule(up, (1 + torch.cos(math.pi * (t - warmup) / (steps - warmup))) / 2, warmup)
        ),
        "the last step has the rate 0 and is lost: divide by steps - begin, not by one less": (
            schedule(up, (1 + torch.cos(math.pi * (t - begin) / (steps - 1 - begin))) / 2)
        ),
        "the peak is missing": schedule(up, down) / peak,
        "the angle is in degrees; torch and math want radians": (schedule(up, (1 + torch.cos(180 * over)) / 2)),
    }
    found, right = rates(steps, peak, warmup, constant), schedule(up, down)
    if not torch.allclose(found, right, rtol=1e-5):
        for mistake, wrong in mistakes.items():
            if torch.allclose(found, wrong, rtol=1e-5):
                answer.fail(f"for {steps} steps, peak {peak}, warm-up {warmup} and constant {constant}: {mistake}")
        step = int((found - right).abs().gt(1e-5 * right).nonzero()[0])
        part = "warm-up" if step < warmup else "part that stays" if step < begin else "fall"
        told = f"step {step} of {steps} with peak {peak}, warm-up {warmup} and constant {constant}"
        answer.fail(f"the rate of {told} is {found[step]:.4g} and should be something else; it lies in the {part}")
    answer.verify(f"all {steps} rates of a run are right: warm-up, part that stays, half a cosine")
    flat = torch.full((6,), 0.3)
    answer.expect(rates(6, 0.3, 0, 1.0), flat, "the rates without warm-up and fall", hint="All are the peak")
    cosine = 0.3 * (1 + torch.cos(math.pi * torch.arange(6) / 6)) / 2
    answer.expect(rates(6, 0.3, 0, 0.0), cosine, "the rates without warm-up and with constant 0")
    answer.verify("no warm-up and no fall are no 0 / 0")
    answer.passed()


# ---- 12.2


def model_with(seed: int, counted: int) -> Module:
    """A small network with weights, floating-point buffers and a whole-number buffer, all set from the seed."""
    model = Sequential(BatchNorm2d(2), Conv2d(2, 3, 1))
    for i, tensor in enumerate(model.state_dict().values()):
        tensor.copy_(random(seed + i, *tensor.shape).abs() + 0.1 if tensor.is_floating_point() else counted)
    return model


def numbers(tensors: Sequence[Tensor]) -> Tensor:
    """All floating-point numbers of some tensors in one row."""
    return torch.cat([tensor.detach().flatten().clone() for tensor in tensors if tensor.is_floating_point()])


def check_update_average(function: Callable[[Module, Module, float, int], None], seed: int = 0) -> None:
    """Exercise 12.2: a running average of a model that remembers less in the beginning.

    Args:
        function: update_average(average, model, decay, updates); changes `average`.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("update_average", function)

    def both(decay: float, updates: int) -> tuple[Module, Module]:
        average, model = model_with(seed + 50, 3).requires_grad_(False), model_with(seed, 8)
        answer.run(((average, model, decay, updates), {}))
        return average, model

    old, new = model_with(seed + 50, 3), model_with(seed, 8)
    before, now = (numbers([*m.parameters()]) for m in (old, new))

    def mixed(share: float) -> Tensor:
        return share * before + (1 - share) * now

    average, model = both(0.9, 5)  # (1 + 5) / (10 + 5) = 0.4
    if not torch.equal(numbers([*model.parameters(), *model.buffers()]), numbers([*new.parameters(), *new.buffers()])):
        answer.fail("it changes the model that is being trained; only the average may change")
    if any(tensor.requires_grad for tensor in average.parameters()):
        answer.fail("the average has become part of the graph, which grows with every step; use torch.no_grad()")
    mistakes = {
        "nothing has changed; `parameter = ...` gives a name to a new tensor, `copy_` and `lerp_` change the old one": (
            before
        ),
        "these are the model's weights; mix them with those of the average": now,
        "the early updates keep the share `decay`; take (1 + updates) / (10 + updates), the smaller of the two": mixed(
            0.9
        ),
        "the shares are exchanged: that is what the average keeps of itself": mixed(0.6),
        "the shares are exchanged, and `decay` is used from the start": mixed(0.1),
        "`updates` counts those that were made *before*; here one is counted too few": mixed(5 / 14),
        "`updates` counts those that were made before; do not add one": mixed(7 / 16),
        "the shares do not add up to 1: the model's is missing": 0.4 * before + now,
    }
    hint = "With decay 0.9 and 5 updates before, it keeps 6 / 15 of itself"
    answer.expect(numbers([*average.parameters()]), mixed(0.4), "the average of the weights", mistakes, hint=hint)
    average, _ = both(0.9, 1000)
    hint = "1001 / 1010 is more than decay; then the average keeps `decay` of itself"
    answer.expect(numbers([*average.parameters()]), mixed(0.9), "the average after many updates", hint=hint)
    answer.verify("weights move by the right share, early and late")
    before, now = (numbers([*m.buffers()]) for m in (old, new))
    average, _ = both(0.9, 5)
    mistakes = {
        "they have not moved: the buffers are left out, so the average normalises as an untrained model does": before,
        "they are copied; average them as the weights are": now,
        "`decay` is used for them; they move as the weights do": mixed(0.9),
    }
    answer.expect(numbers([*average.buffers()]), mixed(0.4), "the running means and variances (buffers)", mistakes)
    answer.verify("so do floating-point buffers")
    counted = average.state_dict()["0.num_batches_tracked"]
    mistakes = {"it has not changed; copy buffers of whole numbers from the model": torch.tensor(3)}
    hint = "Copy buffers of whole numbers; half a batch cannot be counted"
    answer.expect(counted, torch.tensor(8), "the counter of batches (a whole-number buffer)", mistakes, hint=hint)
    answer.verify("counters are copied")
    average, model = both(0.0, 0)
    kept = numbers([*average.parameters(), *average.buffers()])
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data += 1
    moved = not torch.equal(kept, numbers([*average.parameters(), *average.buffers()]))
    if moved or int(average.state_dict()["0.num_batches_tracked"]) != 8:
        answer.fail("average and model share their memory: when the model is trained on, the average moves too; copy")
    answer.verify("average and model share no memory")
    answer.passed()


# ---- 12.3


def check_lazy_r1(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 12.3: R1 in one step of `every`, with so many times its weight.

    Args:
        function: lazy_r1(D, images, texts, step, every, weight), with D(images, texts) -> (B,) -> ().
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, every, weight = Answer("lazy_r1", function), 4, 0.3
    images, texts, V = random(seed, 3, 3, 2, 2), random(seed + 1, 3, 5), random(seed + 2, 5, 6)
    W, read = random(seed + 3, 12, 6).requires_grad_(), []

    def player(W: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def D(images: Tensor, texts: Tensor) -> Tensor:
            read.append(len(images))
            return (torch.tanh(images.flatten(1) @ W) * (texts @ V)).sum(1)

        return D

    def slopes(of: Callable[[Tensor], Tensor], W: Tensor, by: str = "images") -> Tensor:
        given = {"images": images.clone().requires_grad_(), "texts": texts.clone().requires_grad_()}
        logits = of(player(W)(given["images"], given["texts"]))
        return torch.autograd.grad(logits.sum(), given[by], create_graph=True)[0].flatten(1)

    def original(W: Tensor) -> Tensor:
        return every * weight * slopes(lambda x: x, W).square().sum(1).mean() / 2

    result = answer(player(W), images, texts, 8, every, weight)
    value, right, g = answer.expect_shape(result, (), "a penalty is one number"), original(W), slopes(lambda x: x, W)
    through_sigmoid, of_texts = slopes(torch.sigmoid, W), slopes(lambda x: x, W, "texts")
    mistakes = {
        "the half is missing": 2 * right,
        "it is computed in one step of 4, so it must count 4 times there: the weight times `every` is missing": (
            right / every
        ),
        "the weight is missing": right / weight,
        "it is divided by `every`; multiply": right / every**2,
        "that is the mean over all numbers of the picture; the squared length of a slope is their sum": right / 12,
        "you summed over the batch; take the mean over the pictures": 3 * right,
        "that is half the mean length; it must be squared": every * weight * g.norm(dim=1).mean() / 2,
        "that is the square of the mean length; take the mean of the squares": (
            every * weight * g.norm(dim=1).mean() ** 2 / 2
        ),
        "the slope is that of the mean logit, which is B times smaller for every picture; take that of the sum": (
            right / 9
        ),
        "the slope is that of the probability; take that of the logit": (
            every * weight * through_sigmoid.square().sum(1).mean() / 2
        ),
        "the slope is that by the captions; take that by the pictures": (
            every * weight * of_texts.square().sum(1).mean() / 2
        ),
        "that pulls the length to 1, as in WGAN-GP; R1 pulls it to 0": (
            every * weight * (g.norm(dim=1) - 1).square().mean() / 2
        ),
        "step 8 is one of 0, 4, 8, ..., so there is a penalty": 0.0,
        "the sign is wrong: it is to be minimised": -right,
    }
    answer.expect(value, right, "the penalty in step 8, with every 4 and weight 0.3", mistakes)
    answer.verify("a due step costs every · weight · R1")
    if W.grad is not None:
        answer.fail("it leaves slopes in D's weights, as `backward` does; torch.autograd.grad leaves none")
    answer.verify("and leaves no slopes behind")
    first = answer(player(W), images, texts, 0, every, weight)
    answer.expect(first, right, "the penalty in step 0", {"step 0 is one of 0, 4, 8, ...; it has one too": 0.0})
    for step in (1, 2, 3, 5):
        read.clear()
        found = answer.tensor(answer(player(W), images, texts, step, every, weight))
        what = f"in step {step}, which is none of 0, 4, 8, ...,"
        answer.expect(found, 0.0, f"the penalty {what}", {"there is none": right}, hint="There is none")
        if read:
            answer.fail(f"{what} D reads the pictures all the same; this work is to be saved, so return first")
    answer.verify("the other steps cost nothing, and no work")
    sloped = Answer("lazy_r1", lambda W: function(player(W), images, texts, 8, every, weight))
    what = "the penalty's own slope for D's weights (it is kept with `create_graph=True`)"
    sloped.expect_gradient((W.detach(),), original, what, 1e-4)
    answer.verify("the penalty has a slope for D's weights")
    answer.passed()


# ---- 12.4

LEARNING_RATE, DRAWN = 0.05, 8  # what the exercise asks for


class Sittings:
    """Runs of an answer on a small task, with a note of the rows that every step drew."""

    def __init__(self, answer: Answer, seed: int):
        self.answer, self.seed, self.size = answer, seed, 40
        self.data = random(seed + 5, self.size, 2, 2, 2)
        self.rows: list[list[int]] = []

    def loss(self, model: Module, rows: Tensor) -> Tensor:
        """What a step minimises."""
        return (model(self.data[rows]) - self.data[rows].sum((1, 2, 3))[:, None, None, None]).square().mean()

    def loss_of(self, model: Module, rows: Any) -> Tensor:
        """The same for the answer, with a look at the rows."""
        self.rows.append(torch.as_tensor(rows).tolist())
        return self.loss(model, rows)

    def run(self, model: Module, steps: int, seed: int, checkpoint: Any = None) -> tuple[Any, list[list[int]]]:
        """One sitting: the checkpoint and the rows of its steps."""
        self.rows = []
        made = self.answer.run(((model, self.loss_of, self.size, steps, seed, checkpoint), {}))
        if not isinstance(made, dict):
            self.answer.fail(f"the result is {describe(made)}; return a checkpoint, a dict")
        return made, self.rows

    def replay(self, model: Module, optimizer: Adam, rows: list[list[int]], clear: bool = True) -> Tensor:
        """The weights after steps on these rows."""
        for drawn in rows:
            loss = self.loss(model, torch.tensor(drawn))
            if clear:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return numbers([*model.parameters()])


def fresh(seed: int) -> Module:
    """A network of two layers with first weights of its own."""
    return model_with(seed, 0).train()


def reread(answer: Answer, checkpoint: dict) -> dict:
    """The checkpoint as it would be read from a file: a copy, if it holds nothing but data."""

    def data_only(value: Any) -> bool:
        if isinstance(value, dict | list | tuple):
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            return all(map(data_only, parts))
        return value is None or isinstance(value, (str, *NUMBERS))

    if not data_only(checkpoint):
        answer.fail("the checkpoint holds more than data; only tensors, numbers, lists and dicts can be read safely")
    return copy.deepcopy(checkpoint)


def check_run_until(function: Callable[..., dict], seed: int = 0) -> None:
    """Exercise 12.4: a run that was interrupted ends as if it had not been.

    Args:
        function: run_until(model, loss_of, size, steps, seed, checkpoint) -> checkpoint; trains `model`.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("run_until", function, seconds=20.0)  # torch.optim takes long to load
    sittings, steps, cut = Sittings(answer, seed), 9, 4
    model = fresh(seed)
    _, whole = sittings.run(model, steps, seed)
    expect_a_training(answer, sittings, model, whole, steps)
    end, buffers = numbers([*model.parameters()]), numbers([*model.buffers()])
    early = fresh(seed)
    made, first = sittings.run(early, cut, seed)
    if first != whole[:cut]:
        answer.fail("two runs with one seed draw different rows; all chance must come from seed and step")
    if sittings.run(fresh(seed), 2, seed + 1)[1] == whole[:2]:
        answer.fail("another seed draws the same rows; the seed plays no part")
    answer.verify(f"{steps} steps train with Adam on rows that depend on the seed")
    kept, later = copy.deepcopy(early.state_dict()), fresh(seed + 50)
    saved = reread(answer, made)
    _, second = sittings.run(later, steps, seed, saved)
    expect_the_same_rows(answer, second, whole, cut)
    expect_the_same_weights(answer, sittings, (kept, later, end, buffers), (first, second), seed)
    answer.verify(f"stopped after step {cut}, saved, read and gone on, it ends with the same bits")
    before = copy.deepcopy(made)
    sittings.run(early, steps, seed, made)
    if not same(before, made):
        answer.fail(
            "the checkpoint changes while the run goes on: `state_dict` gives the living tensors, not copies, and so "
            "does `load_state_dict` of torch.optim; copy, so that a checkpoint stays what it was"
        )
    answer.verify("later steps leave the checkpoint as it was")
    checkpoint, rows = None, []
    for until in (2, 5, steps):
        last = fresh(seed if checkpoint is None else seed + until)
        checkpoint, drawn = sittings.run(last, until, seed, checkpoint and reread(answer, checkpoint))
        rows += drawn
    hint = "Does the second checkpoint hold as much as the first, and does it count the steps of both sittings?"
    if rows != whole:
        answer.fail(f"in three sittings it draws other rows than in one. {hint}")
    answer.expect(numbers([*last.parameters()]), end, "the weights after three sittings", hint=hint, tolerance=0.0)
    answer.verify("three sittings do as well")
    answer.passed()


def expect_a_training(answer: Answer, sittings: Sittings, model: Module, rows: list[list[int]], steps: int) -> None:
    """The whole run makes `steps` steps of Adam on rows that change from step to step."""
    if len(rows) != steps:
        answer.fail(f"asked for {steps} steps from the start, it computes the loss {len(rows)} times")
    for drawn in rows:
        if not isinstance(drawn, list) or len(drawn) != DRAWN or not all(type(row) is int for row in drawn):
            answer.fail(f"a step draws {DRAWN} rows, whole numbers from 0 to size - 1; here it gives {drawn}")
    if all(drawn == rows[0] for drawn in rows):
        answer.fail("every step draws the same rows; the dice must depend on the step as well as on the seed")
    found = numbers([*model.parameters()])

    def after(lr: float = LEARNING_RATE, clear: bool = True) -> Tensor:
        copied = fresh(sittings.seed)
        return sittings.replay(copied, Adam(copied.parameters(), lr), rows, clear)

    mistakes = {
        "the slopes of earlier steps are still in it; nobody cleared them": after(clear=False),
        "the model has not moved; `model` itself is to be trained": numbers([*fresh(sittings.seed).parameters()]),
        "that is Adam's usual learning rate; the exercise asks for 0.05": after(lr=1e-3),
    }
    hint = "Each step: draw rows, loss, clear the slopes, backward, a step of Adam with a learning rate of 0.05"
    answer.expect(found, after(), f"the weights after {steps} steps", mistakes, hint=hint)


def expect_the_same_rows(answer: Answer, second: list[list[int]], whole: list[list[int]], cut: int) -> None:
    """The second sitting draws what the uninterrupted run drew after the cut."""
    left = len(whole) - cut
    if second == whole:
        answer.fail("with a checkpoint it begins again at step 0; how many steps are done stands in the checkpoint")
    if len(second) != left:
        answer.fail(
            f"from a checkpoint of step {cut} it makes {len(second)} steps more, where {left} are missing to "
            f"{len(whole)}; `steps` counts those before the checkpoint too"
        )
    if second == whole[:left]:
        answer.fail(
            "the dice begin again with the first throw: after the break it draws the rows of steps 0, 1, 2, ..."
        )
    if second[1:] == whole[cut : len(whole) - 1] or second[:-1] == whole[cut + 1 :]:
        answer.fail("the dice are one step off: one throw is missing, or made twice")
    if second != whole[cut:]:
        answer.fail("after the break it draws other rows than the run without a break; is the state of chance lost?")


def expect_the_same_weights(
    answer: Answer,
    sittings: Sittings,
    models: tuple[dict[str, Tensor], Module, Tensor, Tensor],
    rows: tuple[list[list[int]], list[list[int]]],
    seed: int,
) -> None:
    """The second sitting ends with the bits of the uninterrupted run; else, what was forgotten?

    Args:
        models: state at the cut, model after the second sitting, weights and buffers of the uninterrupted run.
        rows: of the first and of the second sitting.
    """
    kept, later, end, buffers = models
    found = numbers([*later.parameters()])

    def forgetful(*names: str, load: bool = True) -> Tensor:
        one, two = fresh(seed), fresh(seed + 50)
        optimizer = Adam(one.parameters(), LEARNING_RATE)
        sittings.replay(one, optimizer, rows[0])
        if load:
            two.load_state_dict(kept)
        state = {key: 0 * x if key.partition(".")[0] in names else x for key, x in optimizer.state_dict().items()}
        other = Adam(two.parameters(), LEARNING_RATE)
        other.load_state_dict(state)
        return sittings.replay(two, other, rows[1])

    means = ("exp_avg", "exp_avg_sq")
    if not torch.equal(found, end):
        mistakes = {
            "the optimiser has forgotten everything; its state belongs in the checkpoint": forgetful("step", *means),
            "Adam's count of its steps is lost: it corrects the bias as in its first step": forgetful("step"),
            "Adam's running means are lost; only its count of steps is there": forgetful(*means),
            "Adam's mean of the slopes (exp_avg) is lost": forgetful("exp_avg"),
            "Adam's mean of the squared slopes (exp_avg_sq) is lost": forgetful("exp_avg_sq"),
            "the weights are not loaded; it goes on with those of the new model": forgetful(load=False),
            "neither weights nor optimiser are loaded; it goes on with a new model": (
                forgetful("step", *means, load=False)
            ),
        }
        what = "the difference between the weights with and without a break"
        hint = "Something that training changes is not in the checkpoint"
        answer.expect(found - end, 0 * end, what, {m: w - end for m, w in mistakes.items()}, tolerance=1e-7, hint=hint)
        answer.fail(f"{what} is {short((found - end).abs().max())}; they must be equal to the last bit")
    if not torch.equal(numbers([*later.buffers()]), buffers):
        answer.fail("weights agree, buffers (running means) do not; save model.state_dict(), which holds both")
