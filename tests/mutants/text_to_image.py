"""Answers to the exercises of chapter 14."""

import math

import numpy as np
import torch
import torch.nn.functional as F

# ---- 14.1


def composed_by_loop(empty, prompts, scales):
    total = empty.clone()
    for prompt, scale in zip(prompts, scales, strict=True):
        total = total + scale * (prompt - empty)
    return total


def composed_by_weights(empty, prompts, scales):
    weights = torch.tensor([1 - sum(scales), *scales], dtype=torch.float64)
    return weights @ torch.cat([empty[None], prompts]).double()


def composed_in_place(empty, prompts, scales):
    for prompt, scale in zip(prompts, scales, strict=True):
        empty += scale * (prompt - empty)
    return empty


def weigh(scales, like):
    return torch.tensor(scales, dtype=like.dtype)[:, None]


# ---- 14.2


def inpaint_from(weights_of):
    """An answer from how strongly what was drawn shows at each pixel; kept pixels keep every bit."""

    def inpaint(drawn, image, mask, width):
        weights = weights_of(mask, width)
        return torch.where(weights == 0, image, image + weights * (drawn - image))

    return inpaint


def eroded(mask, width):
    kept, weights = (~mask)[None].float(), 0
    for _ in range(width):
        weights = weights + (1 - kept[0]) / width
        kept = F.max_pool2d(kept, 3, 1, 1)
    return weights


def bordered(mask, width):
    return eroded(F.pad(mask, [1] * 4, value=False), width)[1:-1, 1:-1]


def far(mask, p=math.inf):
    if mask.all():
        return torch.full(mask.shape, 1e9)
    places = torch.cartesian_prod(*map(torch.arange, mask.shape)).float()
    return torch.cdist(places, places[~mask.flatten()], p=p).amin(1).view(mask.shape)


def inpaint_by_numpy(drawn, image, mask, width):
    inside, weights = mask.numpy().copy(), np.zeros(mask.shape)
    for _ in range(width):
        weights += inside / width
        around = np.pad(inside, 1, constant_values=True)
        shifted = [around[i : i + len(inside), j : j + inside.shape[1]] for i in range(3) for j in range(3)]
        inside = np.logical_and.reduce(shifted)
    blended = weights * drawn.numpy() + (1 - weights) * image.numpy()
    return np.where(mask.numpy(), blended, image.numpy())


def inpaint_in_place(drawn, image, mask, width):
    drawn[:, :, ~mask] = image[:, ~mask]
    return drawn


def inpaint_rounded(drawn, image, mask, width):
    weights = eroded(mask, width)
    return weights * drawn + (1 - weights) * (image + 1) - (1 - weights)


def inpaint_soft_outside(mask, width):
    return 1 - eroded(~mask, width)


def inpaint_blurred(mask, width):
    return F.avg_pool2d(mask[None].float(), 3, 1, 1, count_include_pad=False)[0]


# ---- 14.3

ROOT = math.sqrt(2)


def by_erf(z, bound, first=ROOT, last=ROOT):
    share = torch.erf(z.double() / first) * math.erf(bound / first)
    return (last * torch.erfinv(share)).clamp(-bound, bound).to(z)


def by_ndtri(z, bound):
    low = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
    rank = low + torch.special.ndtr(-z.double().abs()) * (1 - 2 * low)  # the lower tail keeps its digits
    return (torch.special.ndtri(rank).clamp(-bound, bound) * -torch.where(z < 0, -1.0, 1.0).double()).to(z)


def by_normal(z, bound):
    bell = torch.distributions.Normal(z.new_zeros(()).double(), z.new_ones(()).double())
    most = bell.cdf(torch.tensor(bound, dtype=torch.float64)) * 2 - 1
    share = ((bell.cdf(z.double()) * 2 - 1) * most + 1) / 2
    return bell.icdf(share).clamp(-bound, bound).to(z)


def in_float32(z, bound):
    return ROOT * torch.erfinv(torch.erf(z / ROOT) * math.erf(bound / ROOT))


def in_float32_clamped(z, bound):
    return in_float32(z, bound).clamp(-bound, bound)


def drawn_again(z, bound):
    z, chance = z.clone(), torch.Generator().manual_seed(1)
    while (beyond := z.abs() > bound).any():
        z[beyond] = torch.randn(int(beyond.sum()), generator=chance)
    return z


def by_share(z, bound):
    return bound * torch.erf(z / ROOT)


# ---- 14.4


def cut(noise, batch_size):
    return list(noise.split(batch_size))


def own(seed):
    return torch.Generator().manual_seed(seed)


def drawn_at_once(count, z_size, seed, batch_size):
    return cut(torch.randn(count, z_size, generator=own(seed)), batch_size)


def one_generator_each(count, z_size, seed, batch_size):
    rows = [torch.randn(z_size, generator=own(seed * 1_000_003 + row)) for row in range(count)]
    return [torch.stack(rows[i : i + batch_size]) for i in range(0, count, batch_size)]


def by_numpy(count, z_size, seed, batch_size):
    noise = np.random.default_rng(seed).standard_normal((count, z_size))
    return tuple(noise[i : i + batch_size] for i in range(0, count, batch_size))


def seeded_in_loop(count, z_size, seed, batch_size):
    batches = []
    for start in range(0, count, batch_size):
        torch.manual_seed(seed)
        batches.append(torch.randn(min(batch_size, count - start), z_size))
    return batches


def by_batch(generator_of):
    """An answer that draws batch by batch, with the generator of this seed and this batch."""

    def answer(count, z_size, seed, batch_size):
        starts = range(0, count, batch_size)
        return [
            torch.randn(min(batch_size, count - start), z_size, generator=generator_of(seed, number))
            for number, start in enumerate(starts)
        ]

    return answer


def one_generator(count, z_size, seed, batch_size):
    generator = own(seed)
    return by_batch(lambda seed, number: generator)(count, z_size, seed, batch_size)


def global_once(count, z_size, seed, batch_size):
    torch.manual_seed(seed)
    return cut(torch.randn(count, z_size), batch_size)


def neighbours(count, z_size, seed, batch_size):
    return cut(torch.stack([torch.randn(z_size, generator=own(seed + row)) for row in range(count)]), batch_size)


def last_is_full(count, z_size, seed, batch_size):
    batches = -(-count // batch_size)
    return cut(torch.randn(batches * batch_size, z_size, generator=own(seed)), batch_size)


class Fresh:
    """A generator that goes on from call to call."""

    generator = torch.Generator().manual_seed(7)


def not_repeatable(count, z_size, seed, batch_size):
    return cut(torch.randn(count, z_size, generator=Fresh.generator), batch_size)


WRONG = {
    "check_composed_logit": {
        "from the prompt on": (lambda e, p, s: e + ((1 + weigh(s, e)) * (p - e)).sum(0), "so that 1 is plain"),
        "the prompt's logit times the scale": (lambda e, p, s: (weigh(s, e) * p).sum(0), "what the prompt adds"),
        "empty not subtracted": (lambda e, p, s: e + (weigh(s, e) * p).sum(0), "is not subtracted"),
        "swapped": (lambda e, p, s: p[0] + s[0] * (e - p[0]), "swapped"),
        "wrong sign": (lambda e, p, s: e - (weigh(s, e) * (p - e)).sum(0), "sign of the difference"),
        "without the start": (lambda e, p, s: (weigh(s, e) * (p - e)).sum(0), "missing the empty logit"),
        "one for all pictures": (lambda e, p, s: composed_by_loop(e, p, s).mean(), "has the shape ()"),
        "empty for each prompt": (lambda e, p, s: (e + weigh(s, e) * (p - e)).sum(0), "once for every prompt"),
        "mean of the prompts": (lambda e, p, s: e + (weigh(s, e) * (p - e)).mean(0), "mean over the prompts"),
        "unwanted ignored": (lambda e, p, s: e + (weigh(s, e).clamp(min=0) * (p - e)).sum(0), "it should push away"),
        "unwanted wanted": (lambda e, p, s: e + (weigh(s, e).abs() * (p - e)).sum(0), "counts as a positive"),
        "the first alone": (lambda e, p, s: e + s[0] * (p[0] - e), "0; it should push away"),
        "one scale for all": (lambda e, p, s: e + s[0] * (p - e).sum(0), "first one's scale"),
        "scale at most 1": (
            lambda e, p, s: e + (weigh(s, e).clamp(max=1) * (p - e)).sum(0),
            "with scale 5",
        ),
        "in place": (composed_in_place, "changes its inputs"),
        "running logit": (lambda e, p, s: composed_in_place(e.clone(), p, s), "two prompts, scales 2 and -3"),
        "detached": (lambda e, p, s: composed_by_loop(e, p, s).detach(), "no gradient flows"),
        "numpy": (lambda e, p, s: composed_by_loop(e, p, s).detach().numpy(), "no gradient flows"),
        "at least one prompt": (
            lambda e, p, s: torch.stack([e + a * (b - e) for a, b in zip(s, p, strict=True)]).sum(0) - (len(s) - 1) * e,
            "it stops",
        ),
    },
    "check_inpaint": {
        "mask turned round": (inpaint_from(lambda m, w: (~m).float()), "turned round; True"),
        "soft, turned round": (inpaint_from(lambda m, w: 1 - eroded(m, w)), "turned round, and the edge"),
        "all drawn": (lambda d, i, m, w: d, "nothing is kept"),
        "hard": (inpaint_from(lambda m, w: m.float()), "`width` is not used"),
        "blurred mask": (inpaint_from(inpaint_blurred), "not one kept pixel"),
        "soft outside": (inpaint_from(inpaint_soft_outside), "outside of the hole"),
        "from 0 on": (inpaint_from(lambda m, w: ((far(m) - 1) / w).clamp(0, 1)), "begins at 0"),
        "1 too late": (inpaint_from(lambda m, w: (far(m) / (w + 1)).clamp(max=1)), "too late"),
        "beyond 1": (inpaint_from(lambda m, w: far(m) / w), "beyond 1"),
        "over the whole hole": (inpaint_from(lambda m, w: far(m) / far(m).max()), "whole hole"),
        "without diagonals": (inpaint_from(lambda m, w: (far(m, 1) / w).clamp(max=1)), "without diagonals"),
        "Pythagoras": (inpaint_from(lambda m, w: (far(m, 2) / w).clamp(max=1)), "Pythagoras"),
        "border is kept": (inpaint_from(bordered), "border of the picture"),
        "in place": (inpaint_in_place, "changes its inputs"),
        "rounded": (inpaint_rounded, "by rounding"),
        "one picture": (lambda d, i, m, w: inpaint_from(eroded)(d, i, m, w)[0], "has the shape (3, 16, 16)"),
        "mask as a number": (lambda d, i, m, w: (1 - m) * i + m * d, "it stops"),
    },
    "check_truncated": {
        "clipped": (lambda z, b: z.clamp(-b, b), "they crowd"),
        "factor of the bound": (lambda z, b: b * z, "the library's truncation"),
        "library's factor": (lambda z, b: 0.5 * b * z, "nearer to 0"),
        "tanh": (lambda z, b: b * torch.tanh(z), "tanh"),
        "tanh of a share": (lambda z, b: b * torch.tanh(z / b), "tanh"),
        "spread evenly": (by_share, "evenly"),
        "no roots": (lambda z, b: by_erf(z, b, 1.0, 1.0), "roots of 2"),
        "no root at the end": (lambda z, b: by_erf(z, b, ROOT, 1.0), "at the end is missing"),
        "unchanged": (lambda z, b: z, "what they were"),
        "bound as a share": (lambda z, b: ROOT * torch.erfinv(torch.erf(z / ROOT) * min(b, 0.999999)), "by the bound"),
        "upper end only": (
            lambda z, b: ROOT * torch.erfinv((1 + torch.erf(z / ROOT)) / 2 * (1 + math.erf(b / ROOT)) - 1),
            "cut both",
        ),
        "drawn again": (drawn_again, "must be the same before and after"),
        "float32": (in_float32, "float64"),
        "float32, clamped": (in_float32_clamped, "float64"),
        "float64 comes back": (lambda z, b: by_erf(z.double(), b), "the type that was given"),
        "detached": (lambda z, b: by_erf(z.detach(), b), "no gradient flows"),
        "not clamped": (
            lambda z, b: (ROOT * torch.erfinv(torch.erf(z.double() / ROOT) * math.erf(b / ROOT))).to(z),
            "±10 becomes",
        ),
    },
    "check_noise_batches": {
        "as it was": (seeded_in_loop, "global source of chance"),
        "own generator in the loop": (by_batch(lambda seed, number: own(seed)), "seeded in the loop"),
        "a seed for each batch": (by_batch(lambda seed, number: own(1000 * seed + number)), "for the memory alone"),
        "one generator, batch by batch": (one_generator, "fewer than 16"),
        "global, once": (global_once, "global source of chance"),
        "neighbouring seeds": (neighbours, "occurs under the next seed"),
        "last batch full": (last_is_full, "should have"),
        "one tensor": (lambda n, z, s, b: torch.randn(n, z, generator=own(s)), "for every batch"),
        "no seed": (not_repeatable, "on a second call"),
        "seed not used": (lambda n, z, s, b: drawn_at_once(n, z, 0, b), "every seed"),
        "uniform": (lambda n, z, s, b: cut(torch.rand(n, z, generator=own(s)), b), "N(0, 1)"),
        "the same row": (
            lambda n, z, s, b: cut(torch.randn(1, z, generator=own(s)).expand(n, z), b),
            "seeded in the loop",
        ),
        "pairs": (
            lambda n, z, s, b: cut(torch.randn(n, z, generator=own(s))[torch.arange(n) // 2], b),
            "occur twice",
        ),
    },
}
RIGHT = {
    "check_composed_logit": {
        "loop": composed_by_loop,
        "float64 weights": composed_by_weights,
        "einsum": lambda e, p, s: e + torch.einsum("k,kb->b", torch.tensor(s, dtype=e.dtype), p - e),
    },
    "check_inpaint": {
        "erosion": inpaint_from(eroded),
        "distances": inpaint_from(lambda m, w: (far(m) / w).clamp(max=1)),
        "NumPy": inpaint_by_numpy,
    },
    "check_truncated": {"erf": by_erf, "ndtri": by_ndtri, "torch's normal distribution": by_normal},
    "check_noise_batches": {"at once": drawn_at_once, "one generator each": one_generator_each, "NumPy": by_numpy},
}
