"""Answers to the exercises of chapter 09."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from course_lib.vae import gaussian_negative_log_likelihood, kl_to_standard_normal

# ---- 09.1


def cloud(spread, halves=lambda code: code.chunk(2, dim=1)):
    """An answer from how the log-variance becomes the factor of the noise, and how the code is cut."""

    def answer(code, noise):
        mean, log_variance = halves(code)
        return mean + spread(log_variance) * noise

    return answer


def std(log_variance):
    return (log_variance / 2).exp()


def by_sampling(code, noise):
    mean, log_variance = code.chunk(2, dim=1)
    return Normal(mean, std(log_variance)).rsample((len(noise),))


def without_slopes(code, noise):
    with torch.no_grad():
        return cloud(std)(code, noise)


def first_throw_only(code, noise):
    return cloud(std)(code, noise[0])


def points_in_a_loop(code, noise):
    z = code.shape[1] // 2
    throws = [[row[:z] + torch.sqrt(torch.exp(row[z:])) * n for row, n in zip(code, one, strict=True)] for one in noise]
    return torch.stack([torch.stack(rows) for rows in throws])


def points_stretched(code, noise):
    code = code[None].repeat(len(noise), 1, 1)  # (K, B, 2Z)
    return code[..., : noise.shape[2]] + torch.exp(code[..., noise.shape[2] :]).sqrt() * noise


def points_in_float64(code, noise):
    mean, log_variance = code.double().chunk(2, dim=1)
    return torch.addcmul(mean, torch.exp(0.5 * log_variance), noise.double())


# ---- 09.2


def kl(formula):
    """An answer from squared distance, both variances and both log-variances."""

    def answer(mean, v, other, w):
        return formula((mean - other) ** 2, v.exp(), w.exp(), v, w).sum(1) / 2

    return answer


right_kl = kl(lambda d, a, b, v, w: d / b + a / b - 1 - v + w)


def kl_by_distributions(mean, v, other, w):
    clouds = [Independent(Normal(m, std(x)), 1) for m, x in ((mean, v), (other, w))]
    return kl_divergence(*clouds)


def kl_by_the_lesson(mean, v, other, w):
    return kl_to_standard_normal((mean - other) * (-w / 2).exp(), v - w)


def kl_in_a_loop(mean, v, other, w):
    total = torch.zeros(len(mean), dtype=torch.float64)
    for k in range(mean.shape[1]):
        a, b = v[:, k].double().exp(), w[:, k].double().exp()
        total = total + 0.5 * (b.log() - a.log()) + (a + (mean[:, k] - other[:, k]).double() ** 2) / (2 * b) - 0.5
    return total


def kl_by_sampling(mean, v, other, w):
    points = mean + std(v) * torch.randn(20_000, *mean.shape, generator=torch.Generator().manual_seed(0))
    q, p = Normal(mean, std(v)), Normal(other, std(w))
    return (q.log_prob(points) - p.log_prob(points)).sum(2).mean(0)


# ---- 09.3


def loss(error=lambda e: e.flatten(1).sum(1).mean(), price=lambda k: k.sum(1).mean(), sign=1, half=0.5, power=2):
    """An answer from how squared errors and divergences are gathered."""

    def answer(images, predicted, mean, log_variance, pixel_std):
        squares = half * (images - predicted) ** 2 / pixel_std**power
        return error(squares) + sign * price((mean**2 + log_variance.exp() - 1 - log_variance) / 2)

    return answer


def loss_of_the_library(images, predicted, mean, log_variance, pixel_std):
    constant = images[0].numel() * math.log(pixel_std * math.sqrt(math.tau))
    reconstruction = gaussian_negative_log_likelihood(images, predicted, pixel_std) - constant
    return (reconstruction + kl_to_standard_normal(mean, log_variance)).mean()


def loss_with_constant(images, predicted, mean, log_variance, pixel_std):
    reconstruction = gaussian_negative_log_likelihood(images, predicted, pixel_std)
    return (reconstruction + kl_to_standard_normal(mean, log_variance)).mean()


def loss_in_a_loop(images, predicted, mean, log_variance, pixel_std):
    total = 0.0
    for x, y, m, v in zip(images, predicted, mean, log_variance, strict=True):
        total = total + ((x - y) ** 2).sum() / (2 * pixel_std**2)
        total = total - 0.5 * (1 + v - m**2 - torch.exp(v)).sum()
    return total / len(images)


def mean_absolute(images, predicted, mean, log_variance, pixel_std):
    return ((images - predicted).abs() / pixel_std / 2).flatten(1).sum(1).mean() + kl_to_standard_normal(
        mean, log_variance
    ).mean()


# ---- 09.4


def decoder(
    logits=lambda d, v: (-(d**2) / v.exp() - v) / 2,
    shares=lambda logits: logits.softmax(1),
    error=lambda w, x, y: (w[:, :, None] * (x - y[:, None]) ** 2).sum(1).mean(1),
    gather=lambda x: x.sum(2),
):
    """An answer with one of its parts replaced: the logarithm of a number's density, the shares, the error."""

    def answer(points, mean, log_variance, images):
        w = shares(gather(logits(points[:, None] - mean, log_variance)))  # (P, N)
        x = images.flatten(1)
        y = w @ x
        return y.view(-1, *images.shape[1:]), error(w, x, y)

    return answer


def plain_densities(points, mean, log_variance, images):
    q = Normal(mean, std(log_variance)).log_prob(points[:, None]).sum(2).exp()
    w = q / q.sum(1, keepdim=True)
    drawings = torch.einsum("pn,nchw->pchw", w, images)
    return drawings, (w * (images - drawings[:, None]).square().flatten(2).mean(2)).sum(1)


def sharpest(points, mean, log_variance, images):
    best = Normal(mean, std(log_variance)).log_prob(points[:, None]).sum(2).argmax(1)
    return images[best], torch.zeros(len(points))


def drawings_alone(points, mean, log_variance, images):
    return decoder()(points, mean, log_variance, images)[0]


def decoder_in_a_loop(points, mean, log_variance, images):
    drawings, errors = [], []
    for point in points.double():
        logs = Independent(Normal(mean.double(), std(log_variance.double())), 1).log_prob(point)
        w = torch.exp(logs - torch.logsumexp(logs, 0))
        drawing = sum(share * picture for share, picture in zip(w, images.double(), strict=True))
        drawings.append(drawing)
        errors.append(sum(share * ((x - drawing) ** 2).mean() for share, x in zip(w, images, strict=True)))
    return torch.stack(drawings), torch.stack(errors)


def decoder_by_moments(points, mean, log_variance, images):
    w = Normal(mean, std(log_variance)).log_prob(points[:, None]).sum(2).softmax(1)
    drawings = torch.tensordot(w, images, 1)
    return [drawings, (torch.tensordot(w, images**2, 1) - drawings**2).mean((1, 2, 3))]


WRONG = {
    "check_points_of_clouds": {
        "variance": (cloud(torch.exp), "scaled by the variance"),
        "log-variance": (cloud(lambda v: v), "by the log-variance itself"),
        "no exp": (cloud(lambda v: v / 2), "`exp` is missing"),
        "square in place of root": (cloud(lambda v: (2 * v).exp()), "exp(2 v)"),
        "divided": (cloud(lambda v: (-v / 2).exp()), "divided by the standard deviation"),
        "unscaled": (cloud(torch.ones_like), "not scaled"),
        "halves swapped": (cloud(std, lambda code: code.chunk(2, 1)[::-1]), "halves are swapped"),
        "alternating": (cloud(std, lambda code: (code[:, 0::2], code[:, 1::2])), "do not alternate"),
        "without the mean": (lambda c, n: std(c[:, c.shape[1] // 2 :]) * n, "mean is not added"),
        "noise of its own": (by_sampling, "noise of your own"),
        "spread without slope": (cloud(lambda v: std(v).detach()), "never learn their size"),
        "no slopes": (without_slopes, "no gradient flows"),
        "one throw": (first_throw_only, "K throws"),
        "only the mean": (lambda c, n: c.chunk(2, 1)[0] + 0 * n, "noise plays no part"),
    },
    "check_kl_between": {
        "mean over the latent": (lambda *c: right_kl(*c) / c[0].shape[1], "averaged over the latent"),
        "mean over the batch": (lambda *c: right_kl(*c).mean(), "one price for each picture"),
        "each number": (lambda *c: kl_divergence(Normal(c[0], std(c[1])), Normal(c[2], std(c[3]))), "has the shape"),
        "no half": (lambda *c: 2 * right_kl(*c), "has a 1/2"),
        "sign": (lambda *c: -right_kl(*c), "a price is positive"),
        "swapped": (lambda m, v, o, w: right_kl(o, w, m, v), "swapped"),
        "variance as std": (lambda m, v, o, w: right_kl(m, 2 * v, o, 2 * w), "took it for the standard deviation"),
        "no -1": (kl(lambda d, a, b, v, w: d / b + a / b - v + w), "-1 is missing"),
        "no logarithm": (kl(lambda d, a, b, v, w: d / b + a / b - 1), "becoming points"),
        "the lesson's": (lambda m, v, o, w: kl_to_standard_normal(m, v), "other cloud plays no part"),
        "distance in plain units": (kl(lambda d, a, b, v, w: d + a / b - 1 - v + w), "not measured in standard"),
        "distance in own units": (
            lambda m, v, o, w: (
                right_kl(m, v, o, w) + ((m - o) ** 2 * ((-v).exp() - (-w).exp())).sum(1) / 2
                if o.abs().sum() > 0
                else right_kl(m, v, o, w)
            ),
            "standard deviations of the first cloud",
        ),
        "distance over std": (kl(lambda d, a, b, v, w: d / b.sqrt() + a / b - 1 - v + w), "divide by the variance"),
        "no other variance": (kl(lambda d, a, b, v, w: d / b + a - 1 - v + w), "their ratio counts"),
        "no other logarithm": (kl(lambda d, a, b, v, w: d / b + a / b - 1 - v), "equal clouds would not cost 0"),
        "difference of prices": (
            lambda m, v, o, w: kl_to_standard_normal(m, v) - kl_to_standard_normal(o, w),
            "difference of two prices",
        ),
        "sampled": (kl_by_sampling, "should be something else"),
        "eps added": (kl(lambda d, a, b, v, w: (d + a) / (b + 1e-6) - 1 - v + w), "small number"),
        "clamped": (lambda m, v, o, w: right_kl(m, v.clamp(-10, 10), o, w.clamp(-10, 10)), "cut off"),
    },
    "check_vae_loss": {
        "still a mean over pixels": (loss(error=lambda e: e.mean()), "still a mean over all pixels"),
        "KL averaged over the latent": (loss(price=lambda k: k.mean()), "hardly counts"),
        "both means": (loss(lambda e: e.mean(), lambda k: k.mean()), "both parts are means"),
        "mean over channels": (loss(error=lambda e: e.mean(1).flatten(1).sum(1).mean()), "mean over the channels"),
        "sum over the batch": (loss(lambda e: e.sum(), lambda k: k.sum()), "added up over the batch too"),
        "error summed over the batch": (loss(error=lambda e: e.sum()), "the error is added up over the batch"),
        "KL summed over the batch": (loss(price=lambda k: k.sum()), "the KL is added up over the batch"),
        "not halved": (loss(half=1.0), "not halved"),
        "std not squared": (loss(power=1), "not squared"),
        "std missing": (loss(power=0), "`pixel_std` is missing"),
        "no KL": (loss(price=lambda k: 0.0), "KL is missing"),
        "KL subtracted": (loss(sign=-1), "is subtracted"),
        "with the constant": (loss_with_constant, "constant log(std"),
        "absolute": (mean_absolute, "absolute differences"),
        "one for each picture": (loss(lambda e: e.flatten(1).sum(1), lambda k: k.sum(1)), "one number"),
        "pixels fixed": (lambda *p: loss()(*p[:4], 0.4), "Is it the one that was given"),
        "KL by detached means": (
            lambda x, y, m, v, s: loss()(x, y, m.detach(), v, s),
            "the slope for pictures, drawings and clouds",
        ),
    },
    "check_best_drawing": {
        "plain mean": (decoder(shares=lambda x: torch.full_like(x, 1 / x.shape[1])), "plain mean"),
        "sharpest": (sharpest, "largest share"),
        "over the points": (decoder(shares=lambda x: x.softmax(0)), "over the pictures"),
        "not divided": (decoder(shares=torch.exp), "not divided by their sum"),
        "no height": (decoder(lambda d, v: -(d**2) / v.exp() / 2), "height of the bells is left out"),
        "variance as std": (decoder(lambda d, v: -(d**2) / (2 * v).exp() / 2 - v), "took it for the standard"),
        "size ignored": (decoder(lambda d, v: -(d**2) / 2), "size of the clouds plays no part"),
        "mean over the latent": (decoder(gather=lambda x: x.mean(2)), "averaged over the latent"),
        "no half": (decoder(lambda d, v: -(d**2) / v.exp() - v / 2), "1/2 in the bell's exponent"),
        "whole log-variance": (decoder(lambda d, v: -(d**2) / v.exp() / 2 - v), "before the log-variance"),
        "height upside down": (decoder(lambda d, v: (-(d**2) / v.exp() + v) / 2), "*minus* v / 2"),
        "sign": (decoder(lambda d, v: (d**2 / v.exp() + v) / 2), "far clouds get the most"),
        "densities underflow": (plain_densities, "rounded to 0"),
        "drawings alone": (drawings_alone, "return 2 values"),
        "error summed": (
            decoder(error=lambda w, x, y: (w[:, :, None] * (x - y[:, None]) ** 2).sum((1, 2))),
            "sum over the picture's numbers",
        ),
        "error with equal weights": (
            decoder(error=lambda w, x, y: ((x - y[:, None]) ** 2).mean((1, 2))),
            "weigh them by the shares",
        ),
        "squares alone": (decoder(error=lambda w, x, y: (w @ x**2).mean(1)), "square of the mean goes off"),
        "root": (
            decoder(error=lambda w, x, y: (w[:, :, None] * (x - y[:, None]) ** 2).sum(1).mean(1).sqrt()),
            "root of it",
        ),
        "one error for all": (
            decoder(error=lambda w, x, y: (w[:, :, None] * (x - y[:, None]) ** 2).sum(1).mean()),
            "has the shape",
        ),
    },
}
RIGHT = {
    "check_points_of_clouds": {
        "loop": points_in_a_loop,
        "float64": points_in_float64,
        "stretched": points_stretched,
    },
    "check_kl_between": {
        "distributions": kl_by_distributions,
        "the lesson's, in new units": kl_by_the_lesson,
        "loop, float64": kl_in_a_loop,
    },
    "check_vae_loss": {
        "library": loss_of_the_library,
        "loop": loss_in_a_loop,
        "float64": lambda x, y, m, v, s: loss()(x.double(), y.double(), m.double(), v.double(), s),
    },
    "check_best_drawing": {
        "loop, float64": decoder_in_a_loop,
        "moments": decoder_by_moments,
        "parts": decoder(),
    },
}
