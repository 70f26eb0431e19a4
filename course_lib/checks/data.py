"""Checks of the exercises of chapter 02: words and pictures."""

import builtins
import itertools
import random as chance
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks.core import Answer, CheckFailed, describe
from course_lib.data import captions
from course_lib.data.shapes import combinations, told_from_the_other

# ---- 02.1


def check_count_pictures(function: Callable[[int, int, int, int], int], seed: int = 0) -> None:
    """Exercise 02.1: how many different pictures of two objects there are.

    Args:
        function: count_pictures(colors, shapes, relations, backgrounds), four numbers -> a number.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, rng = Answer("count_pictures", function), chance.Random(seed)
    own = (8, 8, 4, 3) if seed == 0 else (rng.randint(4, 9), rng.randint(4, 9), 4, rng.randint(2, 5))
    for colors, shapes, relations, backgrounds in (own, (3, 2, 2, 1), (1, 1, 4, 3), (5, 3, 4, 6)):
        n, places = colors * shapes, relations * backgrounds
        differing = colors * (colors - 1) * shapes * (shapes - 1)
        mistakes = {
            "that counts descriptions; every picture has two, told from either object": n * (n - 1) * places,
            "that counts pairs of two objects that look the same, which are left out": n * n * places / 2,
            "that counts descriptions, and pairs that look the same too": n * n * places,
            "you halved twice: a picture has two descriptions, not four": n * (n - 1) * places / 4,
            "the relations are missing": n * (n - 1) * backgrounds / 2,
            "the backgrounds are missing": n * (n - 1) * relations / 2,
            "two objects may share their colour, or their shape; only not both": differing * places / 2,
            "two objects may share their colour, or their shape, and every picture has two descriptions": (
                differing * places
            ),
            "that counts scenes of one object": n * places,
        }
        what = f"the number for {colors} colours, {shapes} shapes, {relations} relations and {backgrounds} backgrounds"
        found = answer.tensor(answer(colors, shapes, relations, backgrounds))
        right = n * (n - 1) * places // 2
        answer.expect(found, right, what, mistakes, 1e-9, "Count by hand for two colours and one shape.")
    answer.verify("four numbers of pictures are right, that of a single possible object, 0, among them")
    answer.passed()


# ---- 02.2

Words = Mapping[str, Sequence[str]]


def reading(text: str, words: Words, longest_first: bool = True) -> list[str]:
    """What a text names, from left to right; with the shortest phrase first it makes the plain reader's mistakes."""
    meaning = {phrase: value for value, phrases in words.items() for phrase in phrases}
    ordered = sorted(meaning, key=len, reverse=longest_first)
    return [meaning[phrase] for phrase in re.findall("|".join(map(re.escape, ordered)), text)]


def plain_reading(text: str, words: Words) -> list[str]:
    """Every value of which a phrase occurs somewhere, in the order of the word list."""
    return [value for value, phrases in words.items() if any(phrase in text for phrase in phrases)]


def overlapping_reading(text: str, words: Words) -> list[str]:
    """Every phrase wherever it begins, also within a longer one."""
    meaning = {phrase: value for value, phrases in words.items() for phrase in phrases}
    starts = range(len(text))
    return [meaning[p] for i in starts for p in sorted(meaning, key=len, reverse=True) if text.startswith(p, i)]


def check_read_values(function: Callable[[str, Words], list[str]], seed: int = 0) -> None:
    """Exercise 02.2: a reader of captions that takes the longest phrase and no character twice.

    Args:
        function: read_values(text, words), a text and value -> phrases -> the values named, from left to right.
        seed: of the captions it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, words = Answer("read_values", function), captions.WORDS["zh"]
    few = {"red": ("red", "dark red"), "circle": ("circle", "disc"), "star": ("star",)}
    few |= {"left": ("left",), "far left": ("left edge",)}
    for text, known in (
        ("a red disc", few),
        ("a red star over a red disc", few),
        ("a dark red star", few),
        ("a star at the left edge", few),
        ("深蓝色背景上的蓝色圆形", words),
        ("青绿色的星形，绿色底", words),
    ):
        expect_words(answer, answer(text, known), text, known)
    answer.verify("short texts are read right, in both languages")
    answer.verify("each phrase counts as often as it stands there")
    rng = chance.Random(seed)
    for scene in rng.sample(combinations("single", "all") + combinations("pair", "all"), 80):
        attributes = dict(zip(captions.SINGLE if len(scene) == 5 else captions.PAIR, scene, strict=True))
        text = captions.describe(attributes, "zh", "varied", rng.randint(0, 10**6))
        expect_words(answer, answer(text, words), text, words)
    answer.verify("so are 80 varied captions in Chinese")
    expect_signs(answer)
    if found := as_words(answer, answer("", words)):
        answer.fail(f"in an empty text it reads {told(found)}")
    answer.verify("phrases may hold any sign, and an empty text names nothing")
    answer.passed()


def expect_signs(answer: Answer) -> None:
    """Phrases that would mean something in a pattern."""
    hint = '; here the phrases are "+", "++" and ".": a phrase is a text, not a pattern (`re.escape` makes one of it)'
    try:
        found = as_words(answer, answer("1++2+3.", {"sum": ("+",), "power": ("++",), "end": (".",)}))
    except CheckFailed as failed:
        raise CheckFailed(f"{failed}{hint}") from None
    if found != ["power", "sum", "end"]:
        answer.fail(f'in "1++2+3." it reads {told(found)}{hint}')


def expect_words(answer: Answer, result: Any, text: str, words: Words) -> None:
    """Compare what was read with what the text says, and name the misconception."""
    found, right = as_words(answer, result), reading(text, words)
    if found == right:
        return
    first = {value: phrases[:1] for value, phrases in words.items()}
    phrases = {phrase for row in words.values() for phrase in row}
    once = list(dict.fromkeys(right))
    known = {
        "it takes the shortest phrase; a longer one that begins at the same place comes first": (
            reading(text, words, longest_first=False)
        ),
        "it finds a short phrase within a longer one; a character is used once only": overlapping_reading(text, words),
        "it knows the first phrase of each value only; the others are its synonyms": reading(text, first),
        "each value comes once, though the text names it twice": once,
        "it looks for every phrase everywhere: short ones are found within longer ones, and the order is that of the "
        "word list": plain_reading(text, words),
    }
    for mistake, wrong in known.items():
        if found == wrong:
            answer.fail(f'in "{text}" it reads {told(found)}: {mistake}')
    if found and set(found) <= phrases and not set(found) <= set(words):
        answer.fail(f'in "{text}" it reads {told(found)}: these are the phrases; return the values they stand for')
    if sorted(found) == sorted(right):
        answer.fail(f'in "{text}" it reads {told(found)}: the order is another; read from left to right')
    if sorted(found) == sorted(once):
        answer.fail(f'in "{text}" it reads {told(found)}: each value comes once, though the text names one twice')
    answer.fail(f'in "{text}" it reads {told(found)}, which is not what stands there')


def as_words(answer: Answer, result: Any) -> list[str]:
    """The result as a list of texts."""
    if result is None:
        answer.fail("the result is None; does every way through the function end in `return`?")
    if isinstance(result, Iterator):
        result = list(result)
    if not isinstance(result, list | tuple) or not all(isinstance(word, str) for word in result):
        why = "; a set has no order" if isinstance(result, set | frozenset) else ""
        answer.fail(f"the result is {describe(result)}; return a list of values, such as ['navy', 'blue']{why}")
    return list(result)


def told(words: list[str]) -> str:
    """A few words of a list."""
    return ", ".join(words) if words else "nothing"


# ---- 02.3

Pair = tuple[str, ...]


@contextmanager
def another_session() -> Iterator[None]:
    """Python's `hash` of texts is another in every session; here it is another for a while."""
    original = builtins.hash
    builtins.hash = lambda value: original(("another session", value))
    try:
        yield
    finally:
        builtins.hash = original


def check_is_held_out(function: Callable[[Pair, float], bool], seed: int = 0) -> None:
    """Exercise 02.3: a split of two-object scenes that does not leak.

    Args:
        function: is_held_out(pair, share), six values in the order of `PAIR` and a number in [0, 1] -> True or False.
        seed: of the scenes it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("is_held_out", function)
    pairs = chance.Random(seed).sample(combinations("pair", "all"), 1500)
    twins = [told_from_the_other(pair) for pair in pairs]
    result = answer(pairs[0], 0.1)
    if not isinstance(result, bool | np.bool_) and not (isinstance(result, Tensor) and result.dtype == torch.bool):
        answer.fail(f"the result is {describe(result)}; answer with True or False")
    every = Answer("is_held_out", lambda share: [bool(function(pair, share)) for pair in pairs])
    others = Answer("is_held_out", lambda share: [bool(function(pair, share)) for pair in twins])
    held = every(0.1)
    if held != every(0.1):
        answer.fail("asked twice, it answers differently; what is held out must not change from one run to the next")
    with another_session():
        if held != every(0.1):
            answer.fail(
                "it uses Python's `hash`, which is another in every session: tomorrow, a model would be trained on the "
                "exam. Use `hashlib`, as the lesson does"
            )
    answer.verify("it answers the same in every session")
    leaks = sum(one != other for one, other in zip(held, others(0.1), strict=True))
    if leaks:
        answer.fail(
            f"of {len(pairs):,} pairs, {leaks} are on one side, and their picture, told from the other object, on "
            "the other: training shows the exam. Both descriptions must get one answer"
        )
    answer.verify("both descriptions of a picture are on one side")
    expect_parts_in_training(answer, pairs, held)
    expect_share(answer, held, 0.1)
    expect_share(answer, every(0.5), 0.5)
    answer.verify("the share is what was asked for")
    if any(every(0.0)) or not all(every(1.0)):
        answer.fail("with the share 0 nothing should be held out, with the share 1 everything")
    answer.verify("0 holds out nothing, 1 everything")
    answer.passed()


def expect_parts_in_training(answer: Answer, pairs: list[Pair], held: list[bool]) -> None:
    """All values, and every two of them, must be left in training; what is held out is made of known parts."""
    if not any(held):
        answer.fail(f"of {len(pairs):,} pairs it holds out none, with a share of 0.1")
    if sum(held) > 0.6 * len(held):
        answer.fail(f"with the share 0.1, {sum(held) / len(held):.0%} are held out; True means held out, not kept")
    left = [pair for pair, out in zip(pairs, held, strict=True) if not out]
    for count in (1, 2):
        for places in itertools.combinations(range(6), count):
            known = {tuple(pair[k] for k in places) for pair in left}
            if lost := sorted({tuple(pair[k] for k in places) for pair in pairs} - known):
                what = " with ".join(lost[0])
                answer.fail(
                    f"training never shows {what}, so nobody could know what that is; the answer must hang on the "
                    "whole description, not on a part of it"
                )
    answer.verify("every value, and every two together, are left in training")


def expect_share(answer: Answer, held: list[bool], share: float) -> None:
    """About the share that was asked for; chance is allowed four and a half standard deviations."""
    found, allowed = sum(held) / len(held), 4.5 * (share * (1 - share) / len(held)) ** 0.5
    if abs(found - share) < allowed:
        return
    why = ""
    if abs(found - share * (2 - share)) < allowed:
        why = ": it holds out a picture if either description is chosen, which happens nearly twice as often"
    elif abs(found - share**2) < allowed:
        why = ": it holds out a picture only if both descriptions are chosen, which happens rarely"
    answer.fail(f"with the share {share:g}, {found:.1%} of the pairs are held out{why}")


# ---- 02.4


def check_near_duplicates(function: Callable[[Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 02.4: the mended search for near-duplicates.

    Args:
        function: near_duplicates(hashes, limit), (N, bits) of 0 and 1, and a number -> (P, 2) places, smaller first.
        seed: of the hashes it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, limit = Answer("near_duplicates", function), 10
    hashes = (torch.rand(12, 256, generator=torch.Generator().manual_seed(seed)) < 0.3).float()
    for copy, original, bits in ((3, 1, 0), (7, 2, limit), (8, 5, limit + 1), (11, 9, 4), (10, 9, 6)):
        hashes[copy] = hashes[original]
        hashes[copy, 20 * copy : 20 * copy + bits] = 1 - hashes[original, 20 * copy : 20 * copy + bits]
    found = as_pairs(answer, answer(hashes, limit))
    apart = (hashes[:, None] != hashes).sum(2)  # (12, 12)
    alike = hashes @ hashes.T
    near = pairs_where(apart <= limit)
    right = {(a, b) for a, b in near if a < b}
    known = {
        "every picture is found to be its own copy, and every pair is told twice": near,
        "every picture is found to be its own copy": {(a, b) for a, b in near if a <= b},
        "every pair is told twice, as (a, b) and as (b, a)": {(a, b) for a, b in near if a != b},
        "the larger place comes first; put the smaller one first": {(b, a) for a, b in right},
        "exactly as many bits as the limit are still allowed: `<=`": {(a, b) for a, b in right if apart[a, b] < limit},
        "these are the pairs that differ; copies differ in few bits": {
            (a, b) for a, b in pairs_where(apart > limit) if a < b
        },
        "you counted the bits that are 1 in both; count those that differ": {
            (a, b) for a, b in pairs_where(alike <= limit) if a < b
        },
        "only neighbours are compared; a copy may stand anywhere": {(a, b) for a, b in right if b == a + 1},
        "each picture has at most one copy here; it may have more": {
            (a, b) for a, b in right if a == min(x for x, y in right if y == b)
        },
    }
    if len(found) != len(set(found)):
        answer.fail("a pair comes more than once")
    if set(found) != right:
        for mistake, wrong in known.items():
            if set(found) == wrong:
                answer.fail(f"of 12 pictures with four copies it finds {len(found)} pairs: {mistake}")
        more, less = len(set(found) - right), len(right - set(found))
        answer.fail(f"of 12 pictures, {more} of its pairs are no near-duplicates, and {less} pairs are missing")
    answer.verify("copies are found once each, no picture is its own copy")
    answer.verify("the limit itself still counts")
    if as_pairs(answer, answer(hashes[:1], limit)):
        answer.fail("a single picture has a copy; it can only be itself")
    strict = as_pairs(answer, answer(hashes, 0))
    if set(strict) != {(1, 3)}:
        answer.fail(
            f"with the limit 0, it finds {len(strict)} pairs; only pictures with all bits equal are copies then"
        )
    answer.verify("so it is with other limits and with a single picture")
    answer.passed()


def pairs_where(mask: Tensor) -> set[tuple[int, int]]:
    """The places at which a matrix is True."""
    return set(map(tuple, mask.nonzero().tolist()))


def as_pairs(answer: Answer, result: Any) -> list[tuple[int, int]]:
    """The result as pairs of whole numbers; a list of pairs is taken too."""
    if isinstance(result, list | tuple | set):
        result = torch.tensor([[int(x) for x in pair] for pair in result]).reshape(-1, 2)
    found = answer.tensor(result)
    if found.numel() == 0:
        return []
    if found.ndim != 2 or found.shape[1] != 2:
        hint = "; a matrix of True and False is not yet a list of places: `.nonzero()`" if found.ndim == 2 else ""
        answer.fail(f"the result has the shape {tuple(found.shape)} and should have (pairs, 2){hint}")
    return [(int(a), int(b)) for a, b in found.tolist()]
