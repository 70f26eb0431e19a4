"""Answers to the exercises of chapter 03."""

import torch
import torch.nn.functional as F

from course_lib.losses import require_same_shape, softplus


def same(function):
    """The answer, with unequal shapes refused as the exercise asks."""

    def answer(input, target):
        require_same_shape(input, target)
        return function(input, target)

    return answer


def with_loop(input, target):
    if input.shape != target.shape:
        raise ValueError("shapes differ")
    pairs = list(zip(input.flatten(), target.flatten(), strict=True))
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def in_place(input, target):
    require_same_shape(input, target)
    input -= target
    return (input**2).mean()


def for_ever(input, target):
    while True:
        input = input + 0


def probability_first(logits, targets):
    p = torch.sigmoid(logits)
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def clamped_probability(logits, targets):
    p = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def clamped_maximum(logits, targets):
    return (logits.clamp(min=0) - logits * targets + torch.log1p(torch.exp(-logits.abs()))).mean()


def logaddexp_form(logits, targets):
    zero = torch.zeros_like(logits)
    return (torch.logaddexp(zero, logits) - targets * logits).mean()


def two_class_softmax(logits, targets):
    both = torch.stack([torch.zeros_like(logits), logits], -1).log_softmax(-1)
    return -(targets * both[..., 1] + (1 - targets) * both[..., 0]).mean()


WRONG = {
    "check_mse_loss": {
        "over the batch only": (same(lambda x, y: ((x - y) ** 2).sum() / len(x)), "batch only, as the article does"),
        "sum": (same(lambda x, y: ((x - y) ** 2).sum()), "that is the sum"),
        "absolute": (same(lambda x, y: (x - y).abs().mean()), "absolute differences"),
        "root": (same(lambda x, y: ((x - y) ** 2).mean().sqrt()), "root"),
        "half": (same(lambda x, y: ((x - y) ** 2).mean() / 2), "half of it"),
        "square of the mean": (same(lambda x, y: (x - y).mean() ** 2), "mean of the squares"),
        "one for each picture": (same(lambda x, y: ((x - y) ** 2).flatten(1).mean(1)), "shape (4,)"),
        "broadcasts": (lambda x, y: ((x - y) ** 2).mean(), "and should refuse them"),
        "detached": (same(lambda x, y: torch.tensor(((x - y) ** 2).mean().item())), "no gradient flows"),
        "numpy": (same(lambda x, y: ((x - y).detach().numpy() ** 2).mean()), "no gradient flows"),
        "returns nothing": (same(lambda x, y: None), "is None"),
        "in place": (in_place, "changes its inputs"),
        "raises": (same(lambda x, y: x.nothing), "AttributeError"),
        "not written": (lambda x, y: (_ for _ in ()).throw(NotImplementedError()), "not written yet"),
        "no function": (torch.tensor(1.0), "give the function itself"),
        "another signature": (lambda x: x, "arguments"),
        "loops for ever": (for_ever, "never ends"),
        "a text": (same(lambda x, y: "0.5"), "is a str"),
    },
    "check_bce_with_logits": {
        "labels swapped": (lambda x, t: F.binary_cross_entropy_with_logits(x, 1 - t), "labels are swapped"),
        "probability first": (probability_first, "never compute the probability"),
        "probability clamped": (clamped_probability, "never compute the probability"),
        "corner at 0": (clamped_maximum, "corner at 0"),
        "sum": (lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum"), "you summed"),
        "sign": (lambda x, t: -F.binary_cross_entropy_with_logits(x, t), "sign is wrong"),
        "bits": (lambda x, t: F.binary_cross_entropy_with_logits(x, t) / 0.6931471805599453, "in bits"),
        "one term": (lambda x, t: (t * softplus(-x)).mean(), "one of the two terms is missing"),
        "sigmoid twice": (lambda x, t: F.binary_cross_entropy_with_logits(torch.sigmoid(x), t), "taken twice"),
        "over the batch only": (
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum") / len(x),
            "batch only",
        ),
    },
    "check_discriminator_loss": {
        "still swapped": (lambda r, f: (softplus(r) + softplus(-f)).mean(), "still swapped"),
        "all are fakes": (lambda r, f: softplus(r).mean() + softplus(f).mean(), "real pictures count as fakes"),
        "all are real": (lambda r, f: softplus(-r).mean() + softplus(-f).mean(), "fakes count as real"),
        "only the real": (lambda r, f: softplus(-r).mean(), "fakes are left out"),
        "only the fakes": (lambda r, f: softplus(f).mean(), "real pictures are left out"),
        "mean of both": (lambda r, f: torch.cat([softplus(-r), softplus(f)]).mean(), "has their sum"),
        "sign": (lambda r, f: -(softplus(-r).mean() + softplus(f).mean()), "sign is wrong"),
        "logarithm of the sigmoid": (
            lambda r, f: -(torch.sigmoid(r).log().mean() + (1 - torch.sigmoid(f)).log().mean()),
            "not finite",
        ),
    },
    "check_generator_loss": {
        "saturating": (lambda f: -softplus(f).mean(), "saturating"),
        "the discriminator's": (lambda f: softplus(f).mean(), "the discriminator minimises"),
        "hinge": (lambda f: -f.mean(), "hinge"),
        "sign": (lambda f: -softplus(-f).mean(), "sign is wrong"),
        "sum": (lambda f: softplus(-f).sum(), "you summed"),
        "probability": (lambda f: -torch.sigmoid(f).mean(), "minus the logarithm"),
        "logarithm of the sigmoid": (lambda f: -torch.sigmoid(f).log().mean(), "not finite"),
    },
}
RIGHT = {
    "check_mse_loss": {
        "loop": with_loop,
        "norm": same(lambda x, y: torch.linalg.vector_norm(x - y) ** 2 / x.numel()),
        "float64": same(lambda x, y: ((x.double() - y.double()) ** 2).mean()),
    },
    "check_bce_with_logits": {
        "log-add-exp": logaddexp_form,
        "two classes": two_class_softmax,
        "float64": lambda x, t: F.binary_cross_entropy_with_logits(x.double(), t.double()),
    },
    "check_discriminator_loss": {
        "torch": lambda r, f: -(F.logsigmoid(r).mean() + F.logsigmoid(-f).mean()),
        "one call": lambda r, f: (
            2
            * F.binary_cross_entropy_with_logits(
                torch.cat([r, f]), torch.cat([torch.ones_like(r), torch.zeros_like(f)])
            )
        ),
    },
    "check_generator_loss": {
        "log-sigmoid": lambda f: -F.logsigmoid(f).mean(),
        "with labels": lambda f: F.binary_cross_entropy_with_logits(f.double(), torch.ones_like(f).double()),
    },
}
