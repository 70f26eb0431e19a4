"""Answers to the exercises of chapter 04."""

import numpy as np
import torch

from course_lib.optim import Adam, GradientDescent, Momentum, adam_update

# ---- 04.1


def momentum(new_velocity, move=lambda w, g, v, old, lr, b: w - lr * v):
    """An answer from how the velocity is renewed and how the weight moves."""

    def answer(w, g, v, lr, b):
        new = new_velocity(v, g, b, lr)
        return move(w, g, new, v, lr, b), new

    return answer


def heavy_ball(v, g, b, lr):
    return b * v + g


def momentum_in_place(w, g, v, lr, b):
    v *= b
    v += g
    w -= lr * v
    return w, v


def momentum_by_the_class(w, g, v, lr, b):
    weight = w.clone().requires_grad_()
    optimizer = Momentum([weight], lr, b)
    optimizer.state["momentum_buffer"][0].copy_(v)
    weight.grad = g
    optimizer.step()
    return weight, optimizer.state["momentum_buffer"][0]


def momentum_by_numbers(w, g, v, lr, b):
    rows = zip(w.flatten().tolist(), g.flatten().tolist(), v.flatten().tolist(), strict=True)
    both = [(one - lr * (b * speed + slope), b * speed + slope) for one, slope, speed in rows]
    return tuple(torch.tensor(part).reshape(w.shape) for part in zip(*both, strict=True))


# ---- 04.2


def adam(
    mean=lambda m, g, b1, b2: b1 * m + (1 - b1) * g,
    square=lambda v, g, b1, b2: b2 * v + (1 - b2) * g**2,
    step_number=lambda t: t,
    correct=(True, True),
    divisor=lambda v, c, eps: (v / c).sqrt() + eps,
    sign=-1,
    out=lambda w, m, v, c: (w, m, v),
):
    """An answer with one of its parts replaced."""

    def answer(w, g, m, v, step, lr, betas, eps):
        m, v = mean(m, g, *betas), square(v, g, *betas)
        t = step_number(step)
        c1, c2 = (1 - beta**t if use else 1 for beta, use in zip(betas, correct, strict=True))
        return out(w + sign * lr * (m / c1) / divisor(v, c2, eps), m, v, (c1, c2))

    return answer


def lesson_cell(w, g, m, v, step, lr, betas, eps):
    adam_update(w, g, m, v, step, lr, betas, eps)


def fixed_settings(w, g, m, v, step, lr, betas, eps):
    return adam()(w, g, m, v, step, 0.1, betas, eps)


def fixed_betas(w, g, m, v, step, lr, betas, eps):
    return adam()(w, g, m, v, step, lr, (0.6, 0.9), eps)


def fixed_eps(w, g, m, v, step, lr, betas, eps):
    return adam()(w, g, m, v, step, lr, betas, 1e-8)


def old_means(w, g, m, v, step, lr, betas, eps):
    _, new_m, new_v = adam()(w, g, m, v, step, lr, betas, eps)
    c1, c2 = (1 - beta**step for beta in betas)
    return w - lr * (m / c1) / ((v / c2).sqrt() + eps), new_m, new_v


def slope_instead(w, g, m, v, step, lr, betas, eps):
    _, m, v = adam()(w, g, m, v, step, lr, betas, eps)
    return w - lr * g / ((v / (1 - betas[1] ** step)).sqrt() + eps), m, v


def swapped_corrections(w, g, m, v, step, lr, betas, eps):
    _, m, v = adam()(w, g, m, v, step, lr, betas, eps)
    c2, c1 = (1 - beta**step for beta in betas)
    return w - lr * (m / c1) / ((v / c2).sqrt() + eps), m, v


def adam_on_copies(w, g, m, v, step, lr, betas, eps):
    w, m, v = w.clone(), m.clone(), v.clone()
    adam_update(w, g, m, v, step, lr, betas, eps)
    return w, m, v


def adam_by_the_class(w, g, m, v, step, lr, betas, eps):
    weight = w.clone().requires_grad_()
    optimizer = Adam([weight], lr, betas, eps)
    optimizer.load_state_dict({"step": torch.tensor([step - 1]), "exp_avg.0": m, "exp_avg_sq.0": v})
    weight.grad = g
    optimizer.step()
    return weight, optimizer.state["exp_avg"][0], optimizer.state["exp_avg_sq"][0]


def adam_in_numpy(w, g, m, v, step, lr, betas, eps):
    w, g, m, v = (x.numpy().astype(np.float64) for x in (w, g, m, v))
    m, v = m + (1 - betas[0]) * (g - m), v + (1 - betas[1]) * (g * g - v)
    bias = np.sqrt(1 - betas[1] ** step)
    return w - lr / (1 - betas[0] ** step) * m * bias / (np.sqrt(v) + eps * bias), m, v


# ---- 04.3


def in_pieces(share=lambda piece, pieces: len(piece) / sum(map(len, pieces)), clear=True):
    """An answer that weighs the pieces in some way."""

    def answer(weights, pieces, optimizer, loss_of):
        if clear:
            optimizer.zero_grad()
        for piece in pieces:
            (loss_of(weights, piece) * share(piece, pieces)).backward()
        optimizer.step()

    return answer


def clears_inside(weights, pieces, optimizer, loss_of):
    for piece in pieces:
        optimizer.zero_grad()
        loss_of(weights, piece).backward()
    optimizer.step()


def steps_inside(weights, pieces, optimizer, loss_of):
    for piece in pieces:
        optimizer.zero_grad()
        loss_of(weights, piece).backward()
        optimizer.step()


def clears_before_the_step(weights, pieces, optimizer, loss_of):
    for piece in pieces:
        loss_of(weights, piece).backward()
    optimizer.zero_grad()
    optimizer.step()


def no_step(weights, pieces, optimizer, loss_of):
    optimizer.zero_grad()
    for piece in pieces:
        (loss_of(weights, piece) * len(piece) / sum(map(len, pieces))).backward()


def two_steps(weights, pieces, optimizer, loss_of):
    in_pieces()(weights, pieces, optimizer, loss_of)
    optimizer.zero_grad()
    optimizer.step()


def together(weights, pieces, optimizer, loss_of):
    optimizer.zero_grad()
    loss_of(weights, torch.cat(pieces)).backward()
    optimizer.step()


def own_descent(weights, pieces, optimizer, loss_of):
    optimizer = GradientDescent([weights], lr=0.1)
    in_pieces()(weights, pieces, optimizer, loss_of)


def own_descent_and_the_given(weights, pieces, optimizer, loss_of):
    """Right for plain descent, and counted once, but Adam never sees a slope."""
    own_descent(weights, pieces, optimizer, loss_of)
    optimizer.zero_grad()
    optimizer.step()


def sum_of_losses(weights, pieces, optimizer, loss_of):
    """One backward for all: right, though it keeps all graphs."""
    optimizer.zero_grad()
    whole = sum(map(len, pieces))
    sum(loss_of(weights, piece) * len(piece) / whole for piece in pieces).backward()
    optimizer.step()


def slope_by_hand(weights, pieces, optimizer, loss_of):
    total, count = torch.zeros_like(weights), 0
    for piece in pieces:
        total += len(piece) * torch.autograd.grad(loss_of(weights, piece), weights)[0]
        count += len(piece)
    weights.grad = total / count
    optimizer.step()


# ---- 04.4


def averaged(start=None, share=lambda d: d, correction=lambda d, t: 1 - d**t, out=lambda rows: torch.stack(rows)):
    """An answer with one of its parts replaced."""

    def answer(weights, decay):
        d, rows = share(decay), []
        now = torch.zeros_like(weights[0]) if start is None else start(weights)
        for t, row in enumerate(weights, start=1):
            now = d * now + (1 - d) * row
            rows.append(now / correction(d, t))
        return out(rows)

    return answer


def corrected_fed_back(weights, decay):
    now, rows = torch.zeros_like(weights[0]), []
    for t, row in enumerate(weights, start=1):
        now = (decay * now + (1 - decay) * row) / (1 - decay**t)
        rows.append(now)
    return torch.stack(rows)


def in_place_average(weights, decay):
    for t in range(1, len(weights)):
        weights[t] = decay * weights[t - 1] + (1 - decay) * weights[t]
    return weights


def no_share(weights, decay):
    now, rows = torch.zeros_like(weights[0]), []
    for t, row in enumerate(weights, start=1):
        now = decay * now + row
        rows.append(now / (1 - decay**t))
    return torch.stack(rows)


def shares_as_a_matrix(weights, decay):
    t = torch.arange(len(weights), dtype=torch.float64)
    shares = (decay ** (t[:, None] - t).clamp(min=0)).tril()
    return (shares / shares.sum(1, keepdim=True)) @ weights.double()


def growing_decay(weights, decay):
    """The same without a correction: the share of the new weights falls from 1 to 1 - decay."""
    rows = [weights[0]]
    for t, row in enumerate(weights[1:], start=2):
        rows.append(torch.lerp(rows[-1], row, (1 - decay) / (1 - decay**t)))
    return torch.stack(rows)


def average_in_numpy(weights, decay):
    weights = weights.numpy().astype(np.float64)
    now, mass, rows = 0.0, 0.0, []
    for row in weights:
        now, mass = decay * now + row, decay * mass + 1
        rows.append(now / mass)
    return np.stack(rows)


WRONG = {
    "check_momentum_step": {
        "forgets": (momentum(lambda v, g, b, lr: g), "forgets the old velocity"),
        "never forgets": (momentum(lambda v, g, b, lr: v + g), "nothing is forgotten"),
        "running mean": (momentum(lambda v, g, b, lr: b * v + (1 - b) * g), "Adam's running mean"),
        "share lost": (momentum(lambda v, g, b, lr: (1 - b) * v + g), "the share that is kept"),
        "all damped": (momentum(lambda v, g, b, lr: b * (v + g)), "damped too"),
        "lr in the velocity": (
            momentum(lambda v, g, b, lr: b * v - lr * g, lambda w, g, v, old, lr, b: w + v),
            "learning rate is in the velocity",
        ),
        "uphill": (momentum(heavy_ball, lambda w, g, v, old, lr, b: w + lr * v), "goes uphill"),
        "no lr": (momentum(heavy_ball, lambda w, g, v, old, lr, b: w - v), "learning rate is missing"),
        "plain descent": (momentum(heavy_ball, lambda w, g, v, old, lr, b: w - lr * g), "plays no part"),
        "old velocity": (momentum(heavy_ball, lambda w, g, v, old, lr, b: w - lr * old), "before this step"),
        "nesterov": (momentum(heavy_ball, lambda w, g, v, old, lr, b: w - lr * (g + b * v)), "Nesterov"),
        "swapped": (lambda *x: momentum(heavy_ball)(*x)[::-1], "results are swapped"),
        "only the parameter": (lambda *x: momentum(heavy_ball)(*x)[0], "return 2 values"),
        "in place": (momentum_in_place, "changes its inputs"),
        "fixed settings": (lambda w, g, v, lr, b: momentum(heavy_ball)(w, g, v, 0.1, 0.8), "that were given"),
    },
    "check_adam_step": {
        "no correction": (adam(correct=(False, False)), "as in the article"),
        "only the mean corrected": (adam(correct=(True, False)), "exp_avg_sq is not"),
        "only the square corrected": (adam(correct=(False, True)), "exp_avg is not"),
        "steps from 0": (adam(step_number=lambda t: t - 1), "counts steps from 0"),
        "one step ahead": (adam(step_number=lambda t: t + 1), "one step ahead"),
        "always the first step": (adam(step_number=lambda t: 1), "that of the first step"),
        "eps inside the root": (adam(divisor=lambda v, c, eps: (v / c + eps).sqrt()), "eps is inside the root"),
        "eps before the correction": (
            adam(divisor=lambda v, c, eps: (v.sqrt() + eps) / c**0.5),
            "eps is added before the root is corrected",
        ),
        "no eps": (adam(divisor=lambda v, c, eps: (v / c).sqrt()), "eps is missing"),
        "fixed eps": (fixed_eps, "eps is missing, or another"),
        "betas swapped": (
            lambda w, g, m, v, t, lr, betas, eps: adam()(w, g, m, v, t, lr, betas[::-1], eps),
            "betas are swapped",
        ),
        "betas of the corrections swapped": (swapped_corrections, "two corrections are swapped"),
        "shares swapped": (adam(mean=lambda m, g, b1, b2: (1 - b1) * m + b1 * g), "share that is kept"),
        "velocity": (adam(mean=lambda m, g, b1, b2: b1 * m + g), "momentum's velocity"),
        "no square": (adam(square=lambda v, g, b1, b2: b2 * v + (1 - b2) * g), "square of the slope"),
        "sizes": (adam(square=lambda v, g, b1, b2: b2 * v + (1 - b2) * g.abs()), "needs their squares"),
        "no root": (adam(divisor=lambda v, c, eps: v / c + eps), "root is missing"),
        "corrected after the root": (adam(divisor=lambda v, c, eps: v.sqrt() / c + eps), "outside of the root"),
        "keeps the corrected": (adam(out=lambda w, m, v, c: (w, m / c[0], v / c[1])), "for the step alone"),
        "uphill": (adam(sign=1), "goes uphill"),
        "old means": (old_means, "from before this step"),
        "slope instead of its mean": (slope_instead, "says which way"),
        "the lesson's cell": (lesson_cell, "changes its inputs"),
        "fixed betas": (fixed_betas, "that were given"),
        "fixed lr": (fixed_settings, "that were given"),
        "another order": (adam(out=lambda w, m, v, c: (m, w, v)), "another order"),
    },
    "check_step_in_pieces": {
        "clears inside": (clears_inside, "only the last piece counts"),
        "every piece like a batch": (in_pieces(lambda p, all: 1.0), "every piece counts like a whole batch"),
        "never clears": (in_pieces(clear=False), "slopes from before are still in it"),
        "never clears, nor weighs": (in_pieces(lambda p, all: 1.0, False), "slopes from before are still in it, and"),
        "all pieces alike": (in_pieces(lambda p, all: 1 / len(all)), "counts as much as a large one"),
        "by size alone": (in_pieces(lambda p, all: len(p)), "divide by the size of the whole batch"),
        "by the batch alone": (in_pieces(lambda p, all: 1 / sum(map(len, all))), "is a mean already"),
        "steps inside": (steps_inside, "a step follows every piece"),
        "clears before the step": (clears_before_the_step, "nothing moved"),
        "no step": (no_step, "nothing moved"),
        "two steps": (two_steps, "made 2 steps"),
        "together": (together, "puts the pieces together"),
        "its own optimiser": (own_descent, "made 0 steps"),
        "its own optimiser, hidden": (own_descent_and_the_given, "optimiser that you were given"),
    },
    "check_running_average": {
        "no correction": (averaged(correction=lambda d, t: 1), "correction is missing"),
        "starts as a copy": (
            averaged(start=lambda weights: weights[0], correction=lambda d, t: 1),
            "starts as a copy",
        ),
        "shares swapped": (averaged(share=lambda d: 1 - d), "share that is kept"),
        "steps from 0": (averaged(correction=lambda d, t: 1 - d ** (t - 1) or 1e-45), "is number 1"),
        "divides by 0": (averaged(correction=lambda d, t: torch.tensor(1.0) - d ** (t - 1)), "is number 1"),
        "one step ahead": (averaged(correction=lambda d, t: 1 - d ** (t + 1)), "one step ahead"),
        "multiplies": (averaged(correction=lambda d, t: 1 / (1 - d**t)), "divide by it"),
        "plain mean": (lambda w, d: w.cumsum(0) / torch.arange(1, len(w) + 1)[:, None], "plain mean"),
        "fed back": (corrected_fed_back, "goes into the next step"),
        "only the last": (averaged(out=lambda rows: rows[-1]), "one average for every step"),
        "no share": (no_share, "share 1 - decay is missing"),
        "in place": (in_place_average, "changes its inputs"),
        "fixed decay": (lambda w, d: averaged()(w, 0.8), "decay 0"),
    },
}
RIGHT = {
    "check_momentum_step": {
        "the class": momentum_by_the_class,
        "by numbers": momentum_by_numbers,
        "float64": lambda w, g, v, lr, b: momentum(heavy_ball)(w.double(), g.double(), v.double(), lr, b),
    },
    "check_adam_step": {
        "on copies": adam_on_copies,
        "the class": adam_by_the_class,
        "numpy, float64, another order of operations": adam_in_numpy,
    },
    "check_step_in_pieces": {
        "weighed": in_pieces(),
        "sum of losses": sum_of_losses,
        "by hand": slope_by_hand,
    },
    "check_running_average": {
        "matrix of shares": shares_as_a_matrix,
        "growing decay": growing_decay,
        "numpy": average_in_numpy,
    },
}
