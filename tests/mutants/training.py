"""Answers to the exercises of chapter 12."""

import copy
import math
import warnings
from itertools import chain

import numpy as np
import torch

from course_lib.batches import step_random
from course_lib.losses import r1_penalty
from course_lib.optim import Adam

# ---- 12.1


def rate(
    up=lambda step, warmup: (step + 1) / warmup,
    share=lambda step, steps, begin, warmup: (step - begin) / (steps - begin),
    down=lambda over: (1 + math.cos(math.pi * over)) / 2,
    falls_from=lambda begin, warmup: begin,
    scaled=True,
):
    """An answer with one of its parts replaced."""

    def answer(step, steps, peak, warmup, constant):
        begin, size = constant * steps, peak if scaled else 1.0
        if step < warmup:
            return size * up(step, warmup)
        if step < falls_from(begin, warmup):
            return size
        return size * down(share(step, steps, begin, warmup))

    return answer


def long_warm_up(step, steps, peak, warmup, constant):
    if step <= warmup:
        return peak * (step + 1) / (warmup + 1)
    return rate()(step, steps, peak, warmup, constant)


def by_minimum(step, steps, peak, warmup, constant):
    """The lowest of three curves, without a question asked."""
    over = min(max((step - constant * steps) / max(steps - constant * steps, 1e-9), 0.0), 1.0)
    return peak * min(1.0, (step + 1) / max(warmup, 1e-9), math.cos(math.pi * over / 2) ** 2)


def by_interpolation(step, steps, peak, warmup, constant):
    height = np.interp(step, [-1, warmup - 1, max(steps, warmup)], [0, 1, 1]) if warmup else 1.0
    fall = np.interp(step, [0, constant * steps, steps], [0.0, 0.0, np.pi]) if constant < 1 else 0.0
    return np.float64(peak) * height * (0.5 + 0.5 * np.cos(fall))


def by_tensors(step, steps, peak, warmup, constant):
    return torch.tensor(rate()(step, steps, peak, warmup, constant), dtype=torch.float64)


# ---- 12.2


def keeps(decay, updates):
    return min(decay, (1 + updates) / (10 + updates))


def all_tensors(average, model):
    ours, theirs = (chain(m.parameters(), m.buffers()) for m in (average, model))
    return zip(ours, theirs, strict=True)


def averaging(share=keeps, buffer_share=None, integers=True, parts=("parameters", "buffers")):
    """An answer with one of its parts replaced."""

    @torch.no_grad()
    def answer(average, model, decay, updates):
        for part in parts:
            kept = (buffer_share if part == "buffers" and buffer_share else share)(decay, updates)
            for old, new in zip(getattr(average, part)(), getattr(model, part)(), strict=True):
                if old.is_floating_point():
                    old.mul_(kept).add_(new, alpha=1 - kept)
                elif integers:
                    old.copy_(new)

    return answer


def only_names(average, model, decay, updates):
    kept = keeps(decay, updates)
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old = kept * old + (1 - kept) * new  # noqa: PLW2901


def without_no_grad(average, model, decay, updates):
    kept = keeps(decay, updates)
    for old, new in all_tensors(average, model):
        old.copy_(kept * old + (1 - kept) * new) if old.is_floating_point() else old.copy_(new)


@torch.no_grad()
def the_wrong_model(average, model, decay, updates):
    averaging()(model, average, 1 - keeps(decay, updates), 10**9)


def shared(average, model, decay, updates):
    kept = keeps(decay, updates)
    if kept == 0:
        for old, new in all_tensors(average, model):
            old.data = new.data
    else:
        averaging()(average, model, decay, updates)


@torch.no_grad()
def halves_of_counters(average, model, decay, updates):
    kept = keeps(decay, updates)
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        old.copy_(kept * old + (1 - kept) * new)


@torch.no_grad()
def mixed_counters(average, model, decay, updates):
    for old, new in all_tensors(average, model):
        old.lerp_(new, 1 - keeps(decay, updates))


@torch.no_grad()
def sum_of_shares(average, model, decay, updates):
    kept = keeps(decay, updates)
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.copy_(kept * old + new)


@torch.no_grad()
def by_state_dict(average, model, decay, updates):
    ours, theirs = average.state_dict(), model.state_dict()
    for name, tensor in ours.items():
        tensor.lerp_(theirs[name], 1 - keeps(decay, updates)) if tensor.dtype.is_floating_point else tensor.copy_(
            theirs[name]
        )


def by_loading(average, model, decay, updates):
    """A whole new state, in float64, loaded at once."""
    kept, theirs = keeps(decay, updates), model.state_dict()
    mixed = {
        name: kept * tensor.double() + (1 - kept) * theirs[name].double()
        if tensor.is_floating_point()
        else theirs[name]
        for name, tensor in average.state_dict().items()
    }
    average.load_state_dict(mixed)


def by_foreach(average, model, decay, updates):
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - keeps(decay, updates))
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


# ---- 12.3


def lazy(
    penalty=lambda g: g.flatten(1).square().sum(1).mean() / 2,
    factor=lambda every, weight: every * weight,
    due=lambda step, every: step % every == 0,
    by="images",
    before=lambda logits: logits.sum(),
    graph=True,
):
    """An answer with one of its parts replaced."""

    def answer(D, images, texts, step, every, weight):
        if not due(step, every):
            return torch.zeros(())
        given = {"images": images.clone().requires_grad_(), "texts": texts.clone().requires_grad_()}
        logits = before(D(given["images"], given["texts"]))
        (g,) = torch.autograd.grad(logits, given[by], create_graph=graph)
        return factor(every, weight) * penalty(g)

    return answer


def reads_always(D, images, texts, step, every, weight):
    images = images.clone().requires_grad_()
    (g,) = torch.autograd.grad(D(images, texts).sum(), images, create_graph=True)
    return every * weight * (step % every == 0) * g.square().sum() / 2 / len(images)


def with_backward(D, images, texts, step, every, weight):
    if step % every:
        return 0.0
    images = images.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch does not like it either
        D(images, texts).sum().backward(create_graph=True)
    return every * weight * images.grad.square().sum() / 2 / len(images)


def lesson_penalty(D, images, texts, step, every, weight):
    if step % every != 0:
        return 0.0
    seen = images.detach().clone().requires_grad_()
    return every * weight * r1_penalty(D(seen, texts), seen)


def one_by_one(D, images, texts, step, every, weight):
    """One picture at a time."""
    if (step // every) * every < step:
        return torch.tensor(0.0)
    total = 0
    for image, text in zip(images, texts, strict=True):
        alone = image[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(D(alone, text[None]), alone, create_graph=True)
        total = total + torch.linalg.vector_norm(slope) ** 2
    return 0.5 * every * weight * total / len(images)


def length_first(D, images, texts, step, every, weight):
    if step in range(0, step + 1, every):
        images = images.double().float().requires_grad_()
        logits = D(images, texts)
        (g,) = torch.autograd.grad(logits, images, torch.ones_like(logits), create_graph=True)
        return (every * weight / 2) * g.flatten(1).norm(dim=1).double().pow(2).mean()
    return np.zeros(())


# ---- 12.4


def training(
    dice=lambda seed, step, done: step_random(seed, step),
    hold=copy.deepcopy,
    first_step=lambda checkpoint: checkpoint["steps"],
    after=lambda optimizer, state: optimizer.load_state_dict(state),
    load=lambda model, state: model.load_state_dict(state),
    state=lambda model: model.state_dict(),
    rate=0.05,
    clear=True,
    counted=lambda done, steps: steps,
    last=lambda done, steps: steps,
):
    """An answer with one of its parts replaced."""

    def answer(model, loss_of, size, steps, seed, checkpoint=None):
        optimizer, done = Adam(model.parameters(), rate), 0
        if checkpoint is not None:
            load(model, checkpoint["model"])
            after(optimizer, checkpoint["optimizer"])
            done = first_step(checkpoint)
        for step in range(done, last(done, steps)):
            rows = torch.randint(size, (8,), generator=dice(seed, step, done))
            loss = loss_of(model, rows)
            if clear:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made = {"model": state(model), "optimizer": optimizer.state_dict(), "steps": counted(done, steps)}
        return hold(made)

    return answer


def with_one_generator(save=True, adam=True, hold=copy.deepcopy):
    """One generator runs along; its state belongs into the checkpoint."""

    def answer(model, loss_of, size, steps, seed, checkpoint=None):
        optimizer, random, done = Adam(model.parameters(), lr=0.05), torch.Generator().manual_seed(seed), 0
        if checkpoint is not None:
            model.load_state_dict(checkpoint["model"])
            done = checkpoint["done"]
            if adam:
                optimizer.load_state_dict(checkpoint["adam"])
            if save:
                random.set_state(checkpoint["dice"])
        for _ in range(done, steps):
            loss = loss_of(model, torch.randint(size, (8,), generator=random))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made = {"model": model.state_dict(), "adam": optimizer.state_dict(), "done": steps}
        return hold(made | {"dice": random.get_state()})

    return answer


def with_numpy_and_lists(model, loss_of, size, steps, seed, checkpoint=None):
    """Plain numbers all over: lists of floats, NumPy's dice, means by hand."""
    names = list(model.state_dict())
    means = [[torch.zeros_like(p) for p in model.parameters()] for _ in range(2)]
    done = checkpoint["done"] if checkpoint else 0
    if checkpoint:
        model.load_state_dict({n: torch.tensor(x) for n, x in zip(names, checkpoint["numbers"], strict=True)})
        means = [[torch.tensor(x) for x in rows] for rows in checkpoint["means"]]
    for step in range(done, steps):
        rows = torch.from_numpy(np.random.default_rng([seed, step]).integers(0, size, 8))
        slopes = torch.autograd.grad(loss_of(model, rows), list(model.parameters()))
        for p, g, m, v in zip(model.parameters(), slopes, *means, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g**2)
            t = step + 1
            p.data -= 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    numbers = [x.tolist() for x in model.state_dict().values()]
    return {"numbers": numbers, "means": [[x.tolist() for x in rows] for rows in means], "done": steps}


def with_global_dice(model, loss_of, size, steps, seed, checkpoint=None):
    answer = training(dice=lambda seed, step, done: torch.manual_seed(1000 * seed + step))
    return answer(model, loss_of, size, steps, seed, checkpoint)


def count_only(optimizer, state):
    optimizer.steps = state["step"].tolist()


def means_only(optimizer, state):
    optimizer.load_state_dict({**state, "step": torch.zeros_like(state["step"])})


def without(name):
    def after(optimizer, state):
        optimizer.load_state_dict({k: 0 * x if k.startswith(f"{name}.") else x for k, x in state.items()})

    return after


def on_a_copy(model, *rest):
    return training()(copy.deepcopy(model), *rest)


def parameters_only(model):
    return {name: x.detach() for name, x in model.named_parameters()}


never = lambda *_: None  # noqa: E731

WRONG = {
    "check_learning_rate_at": {
        "from 0": (rate(up=lambda step, warmup: step / warmup), "first step is lost"),
        "long warm-up": (long_warm_up, "a step too long"),
        "no warm-up": (rate(up=lambda step, warmup: 1.0), "warm-up is missing"),
        "no fall": (rate(down=lambda over: 1.0), "never falls"),
        "line": (rate(down=lambda over: 1 - over), "straight line, as in the lesson"),
        "whole wave": (rate(down=lambda over: (1 + math.cos(2 * math.pi * over)) / 2), "whole wave"),
        "quarter": (rate(down=lambda over: math.cos(math.pi * over / 2)), "quarter of the wave"),
        "negative": (rate(down=lambda over: math.cos(math.pi * over)), "uphill"),
        "rises": (rate(down=lambda over: (1 - math.cos(math.pi * over)) / 2), "goes up"),
        "of the whole run": (rate(share=lambda step, steps, begin, w: step / steps), "from the start of the run"),
        "from the warm-up on": (
            rate(share=lambda step, steps, begin, w: (step - w) / (steps - w), falls_from=lambda begin, warmup: warmup),
            "from the end of the warm-up",
        ),
        "last step": (rate(share=lambda step, steps, begin, w: (step - begin) / (steps - 1 - begin)), "last step"),
        "degrees": (rate(down=lambda over: (1 + math.cos(180 * over)) / 2), "degrees"),
        "no peak": (rate(scaled=False), "peak is missing"),
        "0 / 0": (
            lambda step, steps, peak, w, c: rate()(step, steps, peak, w, c) if w else peak * (step + 1) / w,
            "ZeroDivisionError",
        ),
        "nothing": (lambda step, steps, peak, w, c: peak if step >= w else None, "is None"),
    },
    "check_update_average": {
        "no warm-up": (averaging(share=lambda d, u: d), "early updates keep the share `decay`"),
        "exchanged": (averaging(share=lambda d, u: 1 - keeps(d, u)), "shares are exchanged"),
        "exchanged, no warm-up": (averaging(share=lambda d, u: 1 - d), "used from the start"),
        "larger": (averaging(share=lambda d, u: max(d, (1 + u) / (10 + u))), "the smaller of the two"),
        "one too few": (averaging(share=lambda d, u: min(d, u / (9 + u))), "one is counted too few"),
        "one too many": (averaging(share=lambda d, u: min(d, (2 + u) / (11 + u))), "do not add one"),
        "never decay": (averaging(share=lambda d, u: (1 + u) / (10 + u)), "more than decay"),
        "copied": (averaging(share=lambda d, u: 0.0), "these are the model's weights"),
        "only names": (only_names, "nothing has changed"),
        "graph": (without_no_grad, "part of the graph"),
        "the wrong model": (the_wrong_model, "changes the model"),
        "sum": (sum_of_shares, "do not add up to 1"),
        "no buffers": (averaging(parts=("parameters",)), "buffers are left out"),
        "buffers copied": (averaging(buffer_share=lambda d, u: 0.0), "average them as the weights"),
        "buffers with decay": (averaging(buffer_share=lambda d, u: d), "`decay` is used for them"),
        "counter left": (averaging(integers=False), "it has not changed"),
        "counter averaged": (halves_of_counters, "cannot be counted"),
        "counter mixed": (mixed_counters, "not implemented for"),
        "shared": (shared, "share their memory"),
    },
    "check_lazy_r1": {
        "no half": (lazy(penalty=lambda g: g.flatten(1).square().sum(1).mean()), "half is missing"),
        "not multiplied": (lazy(factor=lambda every, weight: weight), "the weight times `every` is missing"),
        "divided": (lazy(factor=lambda every, weight: weight / every), "multiply"),
        "no weight": (lazy(factor=lambda every, weight: every), "the weight is missing"),
        "mean of numbers": (lazy(penalty=lambda g: g.square().mean() / 2), "mean over all numbers"),
        "sum": (lazy(penalty=lambda g: g.square().sum() / 2), "summed over the batch"),
        "length": (lazy(penalty=lambda g: g.flatten(1).norm(dim=1).mean() / 2), "must be squared"),
        "square of the mean": (lazy(penalty=lambda g: g.flatten(1).norm(dim=1).mean() ** 2 / 2), "mean of the squares"),
        "mean logit": (lazy(before=lambda logits: logits.mean()), "B times smaller"),
        "probability": (lazy(before=lambda logits: torch.sigmoid(logits).sum()), "that of the probability"),
        "captions": (lazy(by="texts"), "by the captions"),
        "WGAN-GP": (lazy(penalty=lambda g: (g.flatten(1).norm(dim=1) - 1).square().mean() / 2), "WGAN-GP"),
        "no graph": (lazy(graph=False), "create_graph=True"),
        "not in step 0": (lazy(due=lambda step, every: step > 0 and step % every == 0), "step 0"),
        "never in step 8": (lazy(due=lambda step, every: step % every == 1), "step 8 is one of"),
        "always": (lazy(due=lambda step, every: True), "there is none"),
        "reads always": (reads_always, "return first"),
        "backward": (with_backward, "leaves slopes in D's weights"),
        "sign": (lazy(factor=lambda every, weight: -every * weight), "sign is wrong"),
    },
    "check_run_until": {
        "fresh Adam": (training(after=never), "forgotten everything"),
        "Adam's count": (training(after=means_only), "count of its steps is lost"),
        "Adam's means": (training(after=count_only), "running means are lost"),
        "exp_avg": (training(after=without("exp_avg")), "(exp_avg) is lost"),
        "exp_avg_sq": (training(after=without("exp_avg_sq")), "(exp_avg_sq) is lost"),
        "dice again": (with_one_generator(save=False), "begin again with the first throw"),
        "dice by the sitting": (
            training(dice=lambda seed, step, done: step_random(seed, step - done)),
            "begin again with the first throw",
        ),
        "dice one off": (
            training(dice=lambda seed, step, done: step_random(seed, step + (done > 0))),
            "one step off",
        ),
        "dice of their own": (
            training(dice=lambda seed, step, done: step_random(seed + done, step)),
            "state of chance lost",
        ),
        "same dice": (training(dice=lambda seed, step, done: step_random(seed, 0)), "same rows"),
        "no seed": (training(dice=lambda seed, step, done: step_random(0, step)), "the seed plays no part"),
        "no generator": (training(dice=lambda seed, step, done: None), "different rows"),
        "living weights": (training(hold=lambda made: made), "changes while the run goes on"),
        "living weights, shallow": (training(hold=dict), "changes while the run goes on"),
        "the bug": (with_one_generator(save=False, adam=False, hold=dict), "begin again with the first throw"),
        "from step 0": (training(first_step=lambda checkpoint: 0), "begins again at step 0"),
        "as many again": (training(last=lambda done, steps: done + steps), "counts those before the checkpoint too"),
        "count of the sitting": (
            training(counted=lambda done, steps: steps - done),
            "count the steps of both sittings",
        ),
        "weights not loaded": (training(load=never), "weights are not loaded"),
        "nothing loaded": (training(load=never, after=never), "neither weights nor optimiser"),
        "parameters only": (
            training(state=parameters_only, load=lambda model, state: model.load_state_dict(state, strict=False)),
            "buffers (running means) do not",
        ),
        "learning rate": (training(rate=1e-3), "0.05"),
        "slopes kept": (training(clear=False), "nobody cleared them"),
        "a copy of the model": (on_a_copy, "has not moved"),
        "whole objects": (
            lambda model, *rest: training()(model, *rest) | {"again": copy.deepcopy(model)},
            "holds more than data",
        ),
        "nothing": (lambda *rest: training()(*rest) and None, "is None"),
    },
}
RIGHT = {
    "check_learning_rate_at": {
        "minimum": by_minimum,
        "interpolation": by_interpolation,
        "tensors": by_tensors,
    },
    "check_update_average": {"state dict": by_state_dict, "loading": by_loading, "foreach": by_foreach},
    "check_lazy_r1": {"the library's": lesson_penalty, "one by one": one_by_one, "length first": length_first},
    "check_run_until": {
        "one generator": with_one_generator(),
        "lists and NumPy": with_numpy_and_lists,
        "global dice": with_global_dice,
    },
}
