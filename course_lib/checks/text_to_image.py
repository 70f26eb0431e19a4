"""Checks of the exercises of chapter 14: sampling."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, describe, random

# ---- 14.1


def composed(empty: Tensor, prompts: Tensor, scales: Sequence[float]) -> Tensor:
    """The empty logit (B,), plus what each prompt (K, B) adds to it, multiplied by the prompt's scale."""
    return empty + (torch.tensor(scales, dtype=empty.dtype) @ (prompts - empty))


def check_composed_logit(function: Callable[[Tensor, Tensor, Sequence[float]], Tensor], seed: int = 0) -> None:
    """Exercise 14.1: guidance by several prompts, wanted and unwanted.

    Args:
        function: composed_logit(empty, prompts, scales), (B,), (K, B) and a list of K numbers -> (B,).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("composed_logit", function)
    empty, prompts = random(seed, 5), random(seed + 1, 2, 5)
    wanted, hint = prompts[:1], "one logit for each picture"
    found = answer.expect_shape(answer(empty, wanted, [5.0]), (5,), hint)
    mistakes = {
        "it begins at the prompt's logit, as if 0 were plain sampling; begin at the empty one, so that 1 is plain": (
            wanted[0] + 5 * (wanted[0] - empty)
        ),
        "the scale multiplies the prompt's logit; it should multiply what the prompt adds to the empty one": (
            5 * wanted[0]
        ),
        "the empty logit is not subtracted: multiply what the prompt adds to it": empty + 5 * wanted[0],
        "prompt and empty caption are swapped: it goes away from the prompt": wanted[0] + 5 * (empty - wanted[0]),
        "the sign of the difference is wrong: it goes away from the prompt": empty - 5 * (wanted[0] - empty),
        "the difference alone is missing the empty logit it starts from": 5 * (wanted[0] - empty),
        "the scale is not used": wanted[0],
        "the scale is held below 1; guidance goes beyond the prompt": torch.maximum(wanted[0], empty),
    }
    answer.expect(found, composed(empty, wanted, [5.0]), "the logit of one prompt with scale 5", mistakes)
    answer.verify("one prompt with scale 5 is right")
    for scale, plain, what in ((1.0, wanted[0], "the prompt's own logit"), (0.0, empty, "the empty caption's logit")):
        answer.expect(answer(empty, wanted, [scale]), plain, f"the logit with scale {scale:g}", hint=f"It is {what}")
    answer.verify("scale 1 is the prompt's own logit, 0 ignores it")
    scales = [2.0, -3.0]
    steps = [scale * (prompt - empty) for scale, prompt in zip(scales, prompts, strict=True)]
    mistakes = {
        "the empty logit counts once for every prompt; count it once": 2 * empty + sum(steps),
        "that is the mean over the prompts; add up what each of them adds": empty + sum(steps) / 2,
        "that is the mean over the prompts, without the empty logit": sum(steps) / 2,
        "the empty logit is subtracted once, and not from every prompt": sum(
            scale * prompt for scale, prompt in zip(scales, prompts, strict=True)
        ),
        "a negative scale counts as a positive one": empty + steps[0] - steps[1],
        "a negative scale counts as 0; it should push away": empty + steps[0],
        "only the first prompt counts": empty + steps[0],
        "only the last prompt counts": empty + steps[1],
        "the scales are divided by their sum": empty - sum(steps),
        "all prompts have the first one's scale": empty + 2 * (prompts - empty).sum(0),
        "the scales are given to the wrong prompts": empty + 2 * (prompts[1] - empty) - 3 * (prompts[0] - empty),
    }
    found = answer.expect_shape(answer(empty, prompts, scales), (5,), hint)
    answer.expect(found, composed(empty, prompts, scales), "the logit of two prompts, scales 2 and -3", mistakes)
    answer.verify("two prompts, one of them unwanted, too")
    sloped = Answer("composed_logit", lambda empty, prompts: function(empty, prompts, [2.0, -3.0]))
    sloped.expect_gradient((empty, prompts), lambda a, b: composed(a, b, scales), "the slope for all logits")
    answer.verify("slopes agree")
    none = answer(empty, prompts[:0], [])
    answer.expect(none, empty, "the logit without any prompt", hint="It is the empty caption's logit")
    answer.verify("without a prompt the empty logit is left")
    answer.passed()


# ---- 14.2


def soft_weights(mask: Tensor, width: int, border: bool = False) -> Tensor:
    """(S, S) in [0, 1]: 0 where the picture is kept, then 1/width, 2/width ... 1 towards the inside of the hole.

    Args:
        border: whether what is outside of the picture counts as kept, which is a mistake.
    """
    hole, weights = F.pad(mask[None].float(), [1] * 4, value=0.0 if border else 1.0), 0.0
    for _ in range(width):
        weights = weights + hole / width
        hole = F.pad(-F.max_pool2d(-hole, 3, 1), [1] * 4, value=0.0 if border else 1.0)
    return weights[0, 1:-1, 1:-1]


def distances_to_kept(mask: Tensor, norm: float) -> Tensor:
    """(S, S): how far it is to the nearest pixel that is kept."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, mask.shape), indexing="ij"), -1).float()
    return torch.cdist(places.flatten(0, 1), places[~mask], p=norm).amin(1).view(mask.shape)


def check_inpaint(function: Callable[[Tensor, Tensor, Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 14.2: put what was drawn into a hole, with a soft edge.

    Args:
        function: inpaint(drawn, image, mask, width), (B, 3, S, S), (3, S, S), (S, S) bool, True where it is painted
            anew, and a number of pixels -> (B, 3, S, S).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, width = Answer("inpaint", function), 3
    drawn, image = random(seed, 2, 3, 16, 16).tanh(), random(seed + 1, 3, 16, 16).tanh()
    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[4:13, 3:12] = True
    hole[4:8, 3:7] = False  # an L: at its inner corner the nearest kept pixel lies diagonally

    def blend(weights: Tensor) -> Tensor:
        return image + weights * (drawn - image)

    def wrong(mask: Tensor, weights: Tensor) -> Mapping[str, Tensor]:
        towards, outside = distances_to_kept(mask, math.inf), soft_weights(~mask, width)
        box = F.avg_pool2d(mask[None].float(), 3, 1, 1, count_include_pad=False)[0]
        return {
            "the mask is turned round; True is where it is painted anew": blend(1 - mask.float()),
            "the mask is turned round, and the edge is soft; True is where it is painted anew": blend(1 - weights),
            "nothing is kept of the picture": drawn,
            "the edge of the hole is hard, and `width` is not used": blend(mask.float()),
            "the edge is soft on both sides; not one kept pixel may change": blend(box),
            "the soft edge lies outside of the hole, where pixels should be kept": blend(1 - outside),
            "the weight begins at 0 inside of the hole; its outermost pixels have 1 / width": blend(
                ((towards - 1) / width).clamp(0, 1)
            ),
            "the weight reaches 1 a pixel too late; it is distance / width": blend(
                (towards / (width + 1)).clamp(max=1)
            ),
            "the weight goes on growing beyond 1": blend(towards / width),
            "the weight grows over the whole hole; at `width` pixels it is 1": blend(towards / towards.max()),
            "the border of the picture counts as kept; nothing is kept outside of it": blend(
                soft_weights(mask, width, border=True)
            ),
            "the way to the nearest kept pixel is measured without diagonals": blend(
                (distances_to_kept(mask, 1) / width).clamp(max=1)
            ),
            "the way to the nearest kept pixel is measured by Pythagoras; a diagonal step counts as one": blend(
                (distances_to_kept(mask, 2) / width).clamp(max=1)
            ),
        }

    hint = "as many pictures as were drawn, each (3, S, S)"
    found = answer.expect_shape(answer(drawn, image, hole, width), tuple(drawn.shape), hint)
    weights = soft_weights(hole, width)
    mistakes = wrong(hole, weights)
    answer.expect(found, blend(weights), "the picture with a hole like an L and a width of 3", mistakes)
    answer.verify("a hole's edge is soft over three pixels")
    if not (found[:, :, ~hole].detach() == image[:, ~hole]).all():
        answer.fail("kept pixels change by rounding; outside of the hole every bit should stay (torch.where helps)")
    answer.verify("outside of it not a bit changes")
    right = torch.zeros(16, 16, dtype=torch.bool)
    right[:, 7:] = True
    mistakes, what = wrong(right, soft_weights(right, width)), "the picture whose right part is painted anew"
    answer.expect(answer(drawn, image, right, width), blend(soft_weights(right, width)), what, mistakes)
    answer.verify("where the hole ends at the picture's border, there is no edge")
    two = hole.clone()
    two[:2], two[4:13, 7] = True, False
    mistakes, what = wrong(two, soft_weights(two, width)), "the picture with three holes"
    answer.expect(answer(drawn, image, two, width), blend(soft_weights(two, width)), what, mistakes)
    answer.expect(answer(drawn, image, two, 1), blend(two.float()), "the picture with width 1, a hard edge")
    answer.verify("three holes are right, and so is a width of 1")
    for mask, whole, what in ((~hole & hole, image.expand_as(drawn), "no hole"), (hole | ~hole, drawn, "all a hole")):
        hint = "Where nothing is kept there is no nearest kept pixel; everything is drawn then"
        answer.expect(answer(drawn, image, mask, width), whole, f"the picture that is {what}", hint=hint)
    answer.verify("no hole gives the picture, all a hole what was drawn")
    answer.passed()


# ---- 14.3


def squeezed(z: Tensor, bound: float) -> Tensor:
    """The number of the same rank in a normal distribution that is cut off at ±bound."""
    root, most = math.sqrt(2), math.erf(bound / math.sqrt(2))
    return root * torch.erfinv(torch.erf(z.double() / root) * most)


def check_truncated(function: Callable[[Tensor, float], Tensor], seed: int = 0) -> None:
    """Exercise 14.3: truncation as by drawing again, in one step and gradually.

    Args:
        function: truncated(z, bound), any shape and a positive number -> the same shape and type.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, root = Answer("truncated", function), math.sqrt(2)
    z = torch.cat([random(seed, 9), torch.tensor([2.5, -1.7, 0.0])]).view(3, 4)
    for bound in (0.7, 0.3):
        most = math.erf(bound / root)
        cdf, narrow = (1 + torch.erf(z / root)) / 2, math.sqrt(cut_variance(bound))
        mistakes = {
            "large numbers are set to the bound, where they crowd; every number has to move": z.clamp(-bound, bound),
            "that is the library's truncation, a factor; numbers beyond the bound are left": bound * z,
            "that is squeezed by tanh, which gives another distribution": bound * torch.tanh(z),
            "that is squeezed by tanh, which gives another distribution than redrawing does": (
                bound * torch.tanh(z / bound)
            ),
            "the spread is right, but it is a factor: numbers beyond the bound are left": narrow * z,
            "the share is spread evenly over the bounds; go back through the normal distribution": (
                bound * torch.erf(z / root)
            ),
            "the roots of 2 are missing; `erf(x)` belongs to the share within ±x·√2": torch.erfinv(
                torch.erf(z) * math.erf(bound)
            ),
            "the root of 2 at the end is missing": squeezed(z, bound) / root,
            "the bound's share is not used: the numbers are what they were": z,
            "the share is multiplied by the bound; it is multiplied by the share within the bound": (
                root * torch.erfinv(torch.erf(z / root) * min(bound, 0.999999))
            ),
            "only the upper end is cut off; cut both": root * torch.erfinv(cdf * (1 + most) - 1),
        }
        found = answer.expect_shape(answer(z, bound), (3, 4), "one number for each that was given")
        hint = "The share of noises nearer to 0 than the number must be the same before and after, among those left."
        answer.expect(found, squeezed(z, bound), f"the noise for a bound of {bound:g}", mistakes, 1e-4, hint)
    answer.verify("noises for the bounds 0.7 and 0.3 are right")
    if found.dtype != z.dtype:
        answer.fail(f"it returns {found.dtype} for {z.dtype}; the generator's weights want the type that was given")
    sloped = Answer("truncated", lambda x: function(x, 1.0))
    sloped.expect_gradient((z[:2],), lambda x: squeezed(x, 1.0), "the slope", 1e-3)
    answer.verify("slopes agree")
    rare = torch.tensor([10.0, -10.0, 6.0, -6.0])
    lost = "`erf` of a large number is rounded to 1, and `erfinv(1)` is infinite: compute in float64, and clamp"
    found = answer.expect_shape(answer(rare, 1.0), (4,), "one number for each")
    answer.expect(found, rare.sign(), "the rarest noise for a bound of 1", tolerance=1e-4, hint=lost)
    answer.expect(answer(rare[2:], 100.0), rare[2:], "the noise ±6 for a bound of 100", tolerance=1e-3, hint=lost)
    for bound in (1.0, 9.0, 100.0):
        found = answer.tensor(answer(rare, bound)).detach()
        if not found.isfinite().all() or found.abs().max() > bound * 1.00001:
            answer.fail(f"for a bound of {bound:g} the noise ±10 becomes {found.abs().max():g}. {lost}")
    answer.verify("the rarest noise stays finite and within the bound; a wide bound changes nothing")
    answer.passed()


def cut_variance(bound: float) -> float:
    """Variance of a normal distribution that is cut off at ±bound."""
    density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
    return 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))


# ---- 14.4


def check_noise_batches(function: Callable[[int, int, int, int], list[Tensor]], seed: int = 0) -> None:
    """Exercise 14.4: the mended source of noise.

    Args:
        function: noise_batches(count, z_size, seed, batch_size), four whole numbers -> a list of (b, z_size).
        seed: of the noises it is asked for.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345 + seed)
        _check_noise_batches(Answer("noise_batches", function), seed)


def _check_noise_batches(answer: Answer, seed: int) -> None:
    before = torch.get_rng_state()
    noise = joined(answer, (10, 64, seed, 4), [4, 4, 2])
    if not torch.equal(before, torch.get_rng_state()):
        answer.fail(
            "it uses torch's global source of chance: whatever else in the program rolls dice now rolls others than "
            "before. Make a `torch.Generator` of its own"
        )
    answer.verify("10 noises come in batches of 4, 4 and 2, and the program's own chance is left alone")
    if torch.equal(noise[:4], noise[4:8]):
        answer.fail("every batch has the same noises, so its pictures come again and again; is it seeded in the loop?")
    if len(noise.unique(dim=0)) < len(noise):
        answer.fail("some noises occur twice; every picture needs one of its own")
    if not torch.equal(noise, joined(answer, (10, 64, seed, 4), [4, 4, 2])):
        answer.fail("the same seed gives other noises on a second call; the seed alone must decide them")
    answer.verify("the same seed gives the same noises, all of them different")
    for z_size in (64, 5):
        first = joined(answer, (10, z_size, seed, 4), [4, 4, 2])
        for size in (1, 3, 10, 64):
            sizes = [len(part) for part in torch.arange(10).split(size)]
            if not torch.equal(first, joined(answer, (10, z_size, seed, size), sizes)):
                small = " (torch draws fewer than 16 numbers in another way: never call it once a batch)"
                answer.fail(
                    f"with a batch size of {size} the noises are others than with 4, at z_size={z_size}; the batch "
                    f"size is for the memory alone{small if z_size == 5 else ''}"
                )
    answer.verify("the batch size changes nothing")
    other = joined(answer, (10, 64, seed + 1, 4), [4, 4, 2])
    if torch.equal(noise, other):
        answer.fail("every seed gives the same noises")
    if (torch.cdist(noise, other) < 1e-3).any():
        answer.fail(
            "a noise of one seed occurs under the next seed as well, so two sets of pictures share some of them"
        )
    answer.verify("another seed has other noises")
    many = joined(answer, (400, 64, seed, 400), [400])
    moments = many.mean().item(), many.std().item(), many.abs().max().item()
    if abs(moments[0]) > 0.03 or abs(moments[1] - 1) > 0.03 or moments[2] < 3:
        answer.fail(f"the noise has mean {moments[0]:.2f} and spread {moments[1]:.2f}; it should come from N(0, 1)")
    answer.verify("it is N(0, 1)")
    answer.passed()


def joined(answer: Answer, asked: tuple[int, int, int, int], sizes: Sequence[int]) -> Tensor:
    """All noises in one tensor (count, z_size).

    Raises:
        CheckFailed: they come in other batches.
    """
    result: Any = answer(*asked)
    if not isinstance(result, list | tuple):
        answer.fail(f"the result is {describe(result)}; return a list with a tensor for every batch")
    parts = [answer.tensor(part, "a batch") for part in result]
    found, wanted = [tuple(part.shape) for part in parts], [(size, asked[1]) for size in sizes]
    if found != wanted:
        answer.fail(f"{asked[0]} noises in batches of {asked[3]} have the shapes {found} and should have {wanted}")
    return torch.cat(parts).detach()
