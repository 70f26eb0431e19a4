"""Answers to the exercises of chapter 11."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.losses import bce_with_logits, discriminator_loss, softplus

# ---- 11.1


def knobs(
    halves=lambda both: both.chunk(2, dim=1),
    gain=lambda gamma, variance, eps: (1 + gamma) / (variance + eps).sqrt(),
    shift=lambda gain, gamma, beta, mean, deviation: beta - gain * mean,
    bias=True,
    out=lambda scale, shift: (scale, shift),
):
    """An answer with one of its parts replaced."""

    def answer(condition, weight, b, mean, variance, eps):
        gamma, beta = halves(condition @ weight.T + (b if bias else 0))
        scale = gain(gamma, variance, eps)
        return out(scale, shift(scale, gamma, beta, mean, (variance + eps).sqrt()))

    return answer


def knobs_by_two_pictures(condition, weight, bias, mean, variance, eps):
    """What does a picture of zeros become, and one of ones?"""
    gamma, beta = F.linear(condition, weight, bias)[:, :, None].chunk(2, dim=1)
    channels, captions = len(mean), len(condition)
    probe = torch.tensor([0.0, 1.0]).expand(captions, channels, 2)
    normal = F.batch_norm(probe, mean, variance, training=False, eps=eps)
    made = (1 + gamma) * normal + beta
    return made[..., 1] - made[..., 0], made[..., 0]


def knobs_in_float64(condition, weight, bias, mean, variance, eps):
    return knobs()(*(x.double() for x in (condition, weight, bias, mean, variance)), eps)


def knobs_one_by_one(condition, weight, bias, mean, variance, eps):
    scales, shifts, channels = [], [], len(mean)
    for caption in condition:
        said = weight @ caption + bias
        scales.append(torch.stack([(1 + said[c]) * (variance[c] + eps) ** -0.5 for c in range(channels)]))
        shifts.append(torch.stack([said[channels + c] - scales[-1][c] * mean[c] for c in range(channels)]))
    return torch.stack(scales), torch.stack(shifts)


# ---- 11.2


def where(
    fit=lambda h, heard: (h * heard[:, :, None, None]).sum(1),
    real=lambda h, w: (h * w[:, None, None]).sum(1),
    out=lambda real, bias, fit, root: real + bias + fit / root,
):
    """An answer with one of its parts replaced."""

    def answer(features, texts, realness, bias, read_text):
        heard = texts @ read_text.T
        return out(real(features, realness), bias, fit(features, heard), math.sqrt(len(realness)))

    return answer


def places_as_rows(features, texts, realness, bias, read_text):
    """(B, places, H) times (B, H, 1): the weights of realness and caption are added first."""
    batch, hidden, rows, columns = features.shape
    pull = realness + texts @ read_text.T / hidden**0.5
    return torch.bmm(features.flatten(2).transpose(1, 2), pull[:, :, None]).view(batch, rows, columns) + bias


def convolution_of_one_pixel(features, texts, realness, bias, read_text):
    """Each picture has a kernel of its own: a grouped 1 x 1 convolution."""
    batch, hidden = features.shape[:2]
    kernel = realness + F.linear(texts, read_text) / hidden**0.5
    kernel = kernel.view(batch, hidden, 1, 1)
    return F.conv2d(features.flatten(0, 1)[None], kernel, bias.expand(batch), groups=batch)[0]


def places_in_float64(*given):
    return where()(*(x.double() for x in given))


# ---- 11.3


def of_pairs(
    differ=lambda t: (t[:, None] != t).any(-1),
    wrong=lambda cost, mask: (cost * mask).sum() / mask.sum().clamp(min=1),
    real=lambda logits: softplus(-logits.diagonal()).mean(),
    out=lambda real, fake, wrong: real + (fake + wrong) / 2,
):
    """An answer with one of its parts replaced."""

    def answer(logits, fake_logits, texts):
        return out(real(logits), softplus(fake_logits).mean(), wrong(softplus(logits), differ(texts)))

    return answer


def with_nan(cost, mask):
    return cost[mask].mean()


def swapped_labels(logits, fake_logits, texts):
    return of_pairs()(-logits, -fake_logits, texts)


def with_probabilities(logits, fake_logits, texts):
    mask, p, q = (texts[:, None] != texts).any(-1), torch.sigmoid(logits), torch.sigmoid(fake_logits)
    wrong = -(torch.log(1 - p) * mask).sum() / mask.sum().clamp(min=1)
    return -p.diagonal().log().mean() + (-torch.log(1 - q).mean() + wrong) / 2


def neighbours_only(logits, fake_logits, texts):
    wrong = logits[torch.arange(len(logits)), torch.arange(len(logits)) - 1]
    return discriminator_loss(logits.diagonal(), fake_logits, wrong, (texts != texts.roll(1, 0)).any(1))


def pairs_in_loops(logits, fake_logits, texts):
    costs, size = [], len(texts)
    for i in range(size):
        for j in range(size):
            if not torch.equal(texts[i], texts[j]):
                costs.append(F.softplus(logits[i, j]))
    wrong = sum(costs) / len(costs) if costs else 0.0
    real = sum(F.softplus(-logits[i, i]) for i in range(size)) / size
    return real + 0.5 * F.softplus(fake_logits).mean() + 0.5 * wrong


def pairs_by_discriminator_loss(logits, fake_logits, texts):
    different = (texts.double()[:, None] - texts.double()).abs().sum(-1) > 0
    return discriminator_loss(logits.diagonal(), fake_logits, logits.flatten(), different.flatten())


def pairs_with_labels(logits, fake_logits, texts):
    """Cross-entropies with labels, in float64."""
    row, column = np.nonzero((texts.numpy()[:, None] != texts.numpy()).any(-1))
    wrong = logits.double()[row, column]
    parts = [logits.double().diagonal(), fake_logits.double(), wrong]
    losses = [
        bce_with_logits(part, torch.full_like(part, label)) if len(part) else part.sum()
        for part, label in zip(parts, (1.0, 0.0, 0.0), strict=True)
    ]
    return losses[0] + (losses[1] + losses[2]) / 2


# ---- 11.4


def a_round(
    wrong=lambda G, D, x, t, z: D(x, t.roll(1, 0)),
    fake=lambda G, D, x, t, z: D(G(z, t), t),
    real=lambda G, D, x, t, z: D(x, t),
    out=lambda real, wrong, fake: (real, wrong, fake),
):
    """An answer with one of its parts replaced."""
    return lambda G, D, x, t, z: out(real(G, D, x, t, z), wrong(G, D, x, t, z), fake(G, D, x, t, z))


def one_call_for_all(G, D, real, texts, z):
    pictures = torch.cat([real, real, G(z, texts)])
    return D(pictures, torch.cat([texts, texts[range(-1, len(texts) - 1)], texts])).chunk(3)


def row_by_row(G, D, real, texts, z):
    made = G(z, texts)
    judge = lambda x, t: torch.cat([D(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])  # noqa: E731
    return [judge(real, texts), judge(real, torch.cat([texts[-1:], texts[:-1]])), judge(made, texts)]


def careless(G, D, real, texts, z):
    fake = G(z, texts)
    real_logits = D(real, texts)
    texts = texts.roll(1, 0)
    return real_logits, D(real, texts), D(fake, texts)


def without_slopes(G, D, real, texts, z):
    with torch.no_grad():
        fake = G(z, texts)
    return D(real, texts), D(real, texts.roll(1, 0)), D(fake, texts)


WRONG = {
    "check_scale_and_shift": {
        "gamma alone": (knobs(gain=lambda g, v, eps: g / (v + eps).sqrt()), "gain is gamma alone"),
        "no variance": (knobs(gain=lambda g, v, eps: 1 + g), "running variance plays no part"),
        "variance for root": (knobs(gain=lambda g, v, eps: (1 + g) / (v + eps)), "divide by its root"),
        "multiplied": (knobs(gain=lambda g, v, eps: (1 + g) * (v + eps).sqrt()), "you multiplied"),
        "eps outside": (knobs(gain=lambda g, v, eps: (1 + g) / (v.sqrt() + eps)), "under the root"),
        "no eps": (knobs(gain=lambda g, v, eps: (1 + g) / v.sqrt()), "eps is left out"),
        "gamma and beta swapped": (knobs(halves=lambda x: x.chunk(2, 1)[::-1]), "in the place of gamma"),
        "alternating": (knobs(halves=lambda x: (x[:, 0::2], x[:, 1::2])), "alternate"),
        "no bias": (knobs(bias=False), "bias is missing"),
        "results swapped": (knobs(out=lambda a, b: (b, a)), "return the scale first"),
        "of this batch": (
            knobs(gain=lambda g, v, eps: (1 + g) / (g.var(0, correction=0) + eps).sqrt()),
            "captions in this batch",
        ),
        "shift is beta": (knobs(shift=lambda gain, g, b, m, d: b), "beta alone"),
        "mean not scaled": (knobs(shift=lambda gain, g, b, m, d: b - m), "must be scaled too"),
        "mean not divided": (knobs(shift=lambda gain, g, b, m, d: b - (1 + g) * m), "not divided by the deviation"),
        "mean without gamma": (knobs(shift=lambda gain, g, b, m, d: b - m / d), "1 + gamma is missing"),
        "mean added": (knobs(shift=lambda gain, g, b, m, d: b + gain * m), "sign of the mean"),
        "beta scaled": (knobs(shift=lambda gain, g, b, m, d: gain * (b - m)), "beta is scaled too"),
        "no beta": (knobs(shift=lambda gain, g, b, m, d: -gain * m), "beta is missing"),
        "with places": (knobs(out=lambda a, b: (a[..., None, None], b[..., None, None])), "shape (3, 4, 1, 1)"),
        "detached": (knobs(out=lambda a, b: (a.detach(), b.detach())), "no gradient flows"),
        "one tensor": (knobs(out=lambda a, b: torch.stack([a, b])), "is a Tensor"),
    },
    "check_logit_map": {
        "not divided": (where(out=lambda real, b, fit, root: real + b + fit), "not divided by the root of H"),
        "divided by H": (where(out=lambda real, b, fit, root: real + b + fit / root**2), "divide by its root"),
        "all divided": (where(out=lambda real, b, fit, root: (real + b + fit) / root), "realness and bias are divided"),
        "realness divided": (where(out=lambda real, b, fit, root: (real + fit) / root + b), "realness is divided"),
        "blind": (where(out=lambda real, b, fit, root: real + b), "blind"),
        "no realness": (where(out=lambda real, b, fit, root: fit / root), "realness is missing"),
        "only the bias": (where(out=lambda real, b, fit, root: fit / root + b), "only its bias"),
        "no bias": (where(out=lambda real, b, fit, root: real + fit / root), "the bias is missing"),
        "first caption": (
            where(fit=lambda h, said: (h * said[0, :, None, None]).sum(1)),
            "every picture meets the first caption",
        ),
        "added": (where(fit=lambda h, said: said.sum(1)[:, None, None]), "is a product"),
        "rows": (where(fit=lambda h, said: (h * said[:, None, :, None]).sum(1)), "meet the rows"),
        "transposed": (where(fit=lambda h, said: (h * said.T).sum(1)), "meet rows and columns"),
        "mean": (where(out=lambda real, b, fit, root: (real + b + fit / root) / 4), "is the sum"),
        "sigmoid": (where(out=lambda real, b, fit, root: torch.sigmoid(real + b + fit / root)), "probabilities"),
        "one logit": (where(out=lambda real, b, fit, root: (real + b + fit / root).mean((1, 2))), "are added up"),
        "rounded": (where(out=lambda real, b, fit, root: (real + b + fit / root).detach()), "no gradient flows"),
    },
    "check_matching_aware_loss": {
        "equal captions": (of_pairs(differ=lambda t: ~torch.eye(len(t), dtype=torch.bool)), "it fits both"),
        "all pairs": (of_pairs(differ=lambda t: torch.ones(len(t), len(t), dtype=torch.bool)), "so do equal captions"),
        "diagonal": (
            of_pairs(differ=lambda t: (t[:, None] != t).any(-1) | torch.eye(len(t), dtype=torch.bool)),
            "on the diagonal, count as wrong too",
        ),
        "mask turned": (of_pairs(differ=lambda t: (t[:, None] == t).all(-1)), "wrong way round"),
        "any number equal": (of_pairs(differ=lambda t: (t[:, None] != t).all(-1)), "all must"),
        "no halves": (of_pairs(out=lambda real, fake, wrong: real + fake + wrong), "two halves are missing"),
        "half of one": (of_pairs(out=lambda real, fake, wrong: real + fake + wrong / 2), "only one of the two"),
        "half of the other": (of_pairs(out=lambda real, fake, wrong: real + fake / 2 + wrong), "each counts half"),
        "half of all": (of_pairs(out=lambda real, fake, wrong: (real + (fake + wrong) / 2) / 2), "halved too"),
        "mean of three": (of_pairs(out=lambda real, fake, wrong: (real + fake + wrong) / 3), "mean of the three"),
        "no wrong ones": (of_pairs(out=lambda real, fake, wrong: real + fake), "wrong captions are left out"),
        "no fakes": (of_pairs(out=lambda real, fake, wrong: real + wrong), "fakes are left out"),
        "labels": (swapped_labels, "labels are swapped"),
        "divided by all": (of_pairs(wrong=lambda cost, mask: (cost * mask).mean()), "number of all pairs"),
        "zero logits": (
            lambda x, fake, t: of_pairs(wrong=lambda c, m: softplus(x * m).mean())(x, fake, t),
            "costs log 2",
        ),
        "sum": (of_pairs(wrong=lambda cost, mask: (cost * mask).sum()), "you summed"),
        "neighbours": (neighbours_only, "only the neighbour's caption"),
        "all are real": (of_pairs(real=lambda x: softplus(-x).mean()), "every pair counts as real"),
        "0 / 0": (of_pairs(wrong=with_nan), "not 0 / 0"),
        "probabilities": (with_probabilities, "softplus is not"),
        "sign": (of_pairs(out=lambda real, fake, wrong: -(real + (fake + wrong) / 2)), "sign is wrong"),
    },
    "check_logits_of_a_round": {
        "the bug": (careless, "were not drawn for"),
        "the bug on the other side": (
            a_round(fake=lambda G, D, x, t, z: D(G(z, t.roll(1, 0)), t)),
            "drawn for their neighbours' captions and judged by their own",
        ),
        "rolled twice": (a_round(fake=lambda G, D, x, t, z: D(G(z, t), t.roll(2, 0))), "once more"),
        "neighbours' on both sides": (
            a_round(fake=lambda G, D, x, t, z: D(G(z, t.roll(1, 0)), t.roll(1, 0))),
            "drawn for and judged by",
        ),
        "both rolled": (
            a_round(wrong=lambda G, D, x, t, z: D(x.roll(1, 0), t.roll(1, 0))),
            "every pair is a right one",
        ),
        "pictures rolled": (a_round(wrong=lambda G, D, x, t, z: D(x.roll(1, 0), t)), "roll the captions"),
        "nothing rolled": (a_round(wrong=lambda G, D, x, t, z: D(x, t)), "these are the right ones"),
        "the other way": (a_round(wrong=lambda G, D, x, t, z: D(x, t.roll(-1, 0))), "the other way"),
        "all numbers rolled": (a_round(wrong=lambda G, D, x, t, z: D(x, t.roll(1))), "without a dimension"),
        "numbers rolled": (a_round(wrong=lambda G, D, x, t, z: D(x, t.roll(1, 1))), "roll the rows"),
        "wrong fakes": (a_round(wrong=lambda G, D, x, t, z: D(G(z, t), t.roll(1, 0))), "made of real pictures"),
        "real ones rolled": (a_round(real=lambda G, D, x, t, z: D(x, t.roll(1, 0))), "their neighbours' captions"),
        "order": (a_round(out=lambda real, wrong, fake: (real, fake, wrong)), "another order"),
        "fake first": (a_round(out=lambda real, wrong, fake: (fake, real, wrong)), "another order"),
        "detached": (a_round(fake=lambda G, D, x, t, z: D(G(z, t).detach(), t)), "cut off from G"),
        "without slopes": (without_slopes, "cut off from G"),
        "two results": (a_round(out=lambda real, wrong, fake: (real, fake)), "has 2 parts"),
        "means": (a_round(out=lambda *three: tuple(x.mean() for x in three)), "one logit for each picture"),
    },
}
RIGHT = {
    "check_scale_and_shift": {
        "probe": knobs_by_two_pictures,
        "one by one": knobs_one_by_one,
        "float64": knobs_in_float64,
    },
    "check_logit_map": {
        "matrix product": places_as_rows,
        "1 x 1 convolution": convolution_of_one_pixel,
        "float64": places_in_float64,
    },
    "check_matching_aware_loss": {
        "loops": pairs_in_loops,
        "the library's loss": pairs_by_discriminator_loss,
        "labels": pairs_with_labels,
    },
    "check_logits_of_a_round": {"one call": one_call_for_all, "row by row": row_by_row, "plain": a_round()},
}
