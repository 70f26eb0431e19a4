"""Answers to the exercises of chapter 02."""

import functools
import hashlib
import itertools
import random
import re
import zlib

import numpy as np
import torch

from course_lib.data.shapes import combinations, told_from_the_other

# ---- 02.1


def counted_one_by_one(colors, shapes, relations, backgrounds):
    objects = itertools.product(range(colors), range(shapes))
    pictures = sum(1 for _ in itertools.combinations(objects, 2))
    return pictures * relations * backgrounds


def as_sets(colors, shapes, relations, backgrounds):
    """Each description as a set of two objects with their sides; both descriptions make one set."""
    objects = list(itertools.product(range(colors), range(shapes)))
    seen = set()
    for one, other in itertools.permutations(objects, 2):
        for relation in range(relations):
            seen.add(frozenset([(one, relation), (other, relation ^ 1)]))
    return len(seen) * backgrounds


# ---- 02.2


def reader(order=lambda words: sorted(words, key=len, reverse=True), prepare=re.escape, end=list):
    """An answer from one pattern of all phrases."""

    def answer(text, words):
        meaning = {phrase: value for value, row in words.items() for phrase in row}
        found = re.findall("|".join(map(prepare, order(meaning))), text)
        return end([meaning[phrase] for phrase in found])

    return answer


def plain(text, words):
    return [value for value, row in words.items() if any(phrase in text for phrase in row)]


def by_first_place(text, words):
    places = {v: min((text.find(p) for p in row if p in text), default=-1) for v, row in words.items()}
    return sorted((value for value, place in places.items() if place >= 0), key=places.get)


def everywhere(text, words):
    meaning = {phrase: value for value, row in words.items() for phrase in row}
    found = []
    for i in range(len(text)):
        found += [meaning[p] for p in sorted(meaning, key=len, reverse=True) if text.startswith(p, i)]
    return found


def in_the_order_of_the_list(text, words):
    found = reader()(text, words)
    return sorted(found, key=list(words).index)


def phrases(text, words):
    row = sorted(itertools.chain(*words.values()), key=len, reverse=True)
    return re.findall("|".join(map(re.escape, row)), text)


def sign_by_sign(text, words):
    meaning = {phrase: value for value, row in words.items() for phrase in row}
    longest, at, found = max(map(len, meaning)), 0, []
    while at < len(text):
        fits = next((text[at : at + n] for n in range(longest, 0, -1) if text[at : at + n] in meaning), "")
        found += [meaning[fits]] if fits else []
        at += len(fits) or 1
    return found


def crossed_out(text, words):
    meaning = {phrase: value for value, row in words.items() for phrase in row}
    found = []
    for phrase in sorted(meaning, key=len, reverse=True):
        while phrase in text:
            place = text.index(phrase)
            found.append((place, meaning[phrase]))
            text = text.replace(phrase, "\n" * len(phrase), 1)
    return (value for _, value in sorted(found))


# ---- 02.3


def number(pair):
    """From 0 to 1, the same on every machine."""
    return int(hashlib.sha256("|".join(pair).encode()).hexdigest(), 16) / 2**256


def first_of_both(pair, share):
    return number(min(pair, told_from_the_other(pair))) < share


def without_order(pair, share):
    """Objects sorted, the relation turned with them, by another hash."""
    one, other, relation = pair[:2], pair[3:5], pair[2]
    if one > other:
        one, other, relation = other, one, told_from_the_other(pair)[2]
    return zlib.crc32(repr((one, relation, other, pair[5])).encode()) < share * 2**32


def by_seeded_chance(pair, share):
    return np.bool_(
        random.Random("|".join(sorted([*map("+".join, (pair, told_from_the_other(pair)))]))).random() < share
    )


def by_sum(pair, share):
    return torch.tensor((number(pair) + number(told_from_the_other(pair))) % 1 < share)


@functools.cache
def of_the_library():
    return frozenset(combinations("pair", "heldout"))


def one_color(pair, share):
    return share == 1 or (share > 0 and "pink" in pair)


def colors_alone(pair, share):
    return number(tuple(sorted((pair[0], pair[3])))) < share


def background_alone(pair, share):
    return pair[5] == "cream" if share == 0.1 else number(pair[5:]) < share


# ---- 02.4


def near(hashes, limit):
    return (hashes[:, None] != hashes).sum(2) <= limit


def upper(compare):
    """The pairs (a, b), a < b, for which a matrix is True."""
    return lambda hashes, limit: compare(hashes, limit).triu(1).nonzero()


def neighbours(hashes, limit):
    same = [[i, i + 1] for i in range(len(hashes) - 1) if (hashes[i] != hashes[i + 1]).sum() <= limit]
    return torch.tensor(same).reshape(-1, 2)


def first_copy_only(hashes, limit):
    found = []
    for b in range(len(hashes)):
        found += [[a, b] for a in range(b) if (hashes[a] != hashes[b]).sum() <= limit][:1]
    return found


def pairs_by_loop(hashes, limit):
    rows = [[int(bit) for bit in row] for row in hashes.tolist()]
    pairs = itertools.combinations(range(len(rows)), 2)
    return [(a, b) for a, b in pairs if sum(x != y for x, y in zip(rows[a], rows[b], strict=True)) <= limit]


def pairs_in_numpy(hashes, limit):
    bits = hashes.numpy().astype(bool)
    apart = (bits[:, None] ^ bits).sum(-1)
    return np.argwhere(np.triu(apart <= limit, k=1))


def by_products(hashes, limit):
    ones = hashes.sum(1)
    apart = ones[:, None] + ones - 2 * hashes @ hashes.T
    return torch.triu(apart <= limit, diagonal=1).nonzero().flip(0)


WRONG = {
    "check_count_pictures": {
        "descriptions": (lambda c, s, r, b: c * s * (c * s - 1) * r * b, "counts descriptions; every picture has two"),
        "looks alike too": (lambda c, s, r, b: (c * s) ** 2 * r * b // 2, "look the same, which are left out"),
        "all descriptions": (lambda c, s, r, b: (c * s) ** 2 * r * b, "and pairs that look the same too"),
        "halved twice": (lambda c, s, r, b: c * s * (c * s - 1) // 2 * (r // 2) * b, "halved twice"),
        "both differ": (lambda c, s, r, b: c * (c - 1) * s * (s - 1) * r * b // 2, "may share their colour"),
        "no relations": (lambda c, s, r, b: c * s * (c * s - 1) // 2 * b, "relations are missing"),
        "no backgrounds": (lambda c, s, r, b: c * s * (c * s - 1) // 2 * r, "backgrounds are missing"),
        "one object": (lambda c, s, r, b: c * s * r * b, "scenes of one object"),
        "the lesson's numbers": (lambda c, s, r, b: 24192, "3 colours, 2 shapes"),
    },
    "check_read_values": {
        "plain": (plain, "short ones are found within longer ones"),
        "each once": (by_first_place, "each value comes once"),
        "shortest first": (reader(lambda words: sorted(words, key=len)), "shortest phrase"),
        "everywhere": (everywhere, "a character is used once only"),
        "no synonyms": (lambda t, w: reader()(t, {v: row[:1] for v, row in w.items()}), "are its synonyms"),
        "order of the list": (in_the_order_of_the_list, "read from left to right"),
        "phrases": (phrases, "values they stand for"),
        "without repeats": (reader(end=lambda row: list(dict.fromkeys(row))), "each value comes once"),
        "backwards": (reader(end=lambda row: row[::-1]), "read from left to right"),
        "a set": (reader(end=set), "a set has no order"),
        "one text": (reader(end=" ".join), "return a list of values"),
        "a pattern": (reader(prepare=lambda phrase: phrase.replace("+", r"\+")), "a phrase is a text"),
        "a word is a word": (reader(prepare=lambda phrase: rf"\b{re.escape(phrase)}\b"), "it reads nothing"),
    },
    "check_is_held_out": {
        "one description": (lambda pair, share: number(pair) < share, "told from the other object"),
        "of the library": (lambda pair, share: pair in of_the_library(), "told from the other object"),
        "Python's hash": (
            lambda pair, share: hash(min(pair, told_from_the_other(pair))) % 1000 < 1000 * share,
            "another in every session",
        ),
        "by chance": (lambda pair, share: random.random() < share, "answers differently"),
        "either": (
            lambda pair, share: number(pair) < share or number(told_from_the_other(pair)) < share,
            "nearly twice as often",
        ),
        "both": (
            lambda pair, share: number(pair) < share and number(told_from_the_other(pair)) < share,
            "happens rarely",
        ),
        "a color": (one_color, "training never shows pink"),
        "by colors alone": (colors_alone, "training never shows"),
        "a background": (background_alone, "training never shows cream"),
        "nothing": (lambda pair, share: False, "it holds out none"),
        "always a tenth": (lambda pair, share: first_of_both(pair, 0.1), "with the share 0.5"),
        "all but": (lambda pair, share: not first_of_both(pair, share), "not kept"),
        "the number": (lambda pair, share: number(pair), "answer with True or False"),
    },
    "check_near_duplicates": {
        "itself and twice": (lambda h, limit: near(h, limit).nonzero(), "its own copy, and every pair is told twice"),
        "itself": (lambda h, limit: near(h, limit).triu().nonzero(), "to be its own copy"),
        "twice": (
            lambda h, limit: (near(h, limit) & ~torch.eye(len(h), dtype=torch.bool)).nonzero(),
            "told twice",
        ),
        "larger first": (lambda h, limit: near(h, limit).tril(-1).nonzero(), "larger place comes first"),
        "less than the limit": (upper(lambda h, limit: near(h, limit - 1)), "exactly as many bits"),
        "those that differ": (upper(lambda h, limit: ~near(h, limit)), "these are the pairs that differ"),
        "common ones": (upper(lambda h, limit: h @ h.T <= limit), "1 in both"),
        "neighbours": (neighbours, "a copy may stand anywhere"),
        "first copy only": (first_copy_only, "it may have more"),
        "a matrix": (lambda h, limit: near(h, limit).triu(1), "`.nonzero()`"),
        "fixed limit": (lambda h, limit: near(h, 10).triu(1).nonzero(), "with the limit 0"),
    },
}
RIGHT = {
    "check_count_pictures": {
        "one by one": counted_one_by_one,
        "as sets": as_sets,
        "a fraction": lambda c, s, r, b: c * s * (c * s - 1) / 2 * r * b,
    },
    "check_read_values": {
        "one pattern": reader(),
        "sign by sign": sign_by_sign,
        "crossed out": crossed_out,
    },
    "check_is_held_out": {
        "first of both": first_of_both,
        "without order": without_order,
        "seeded chance": by_seeded_chance,
        "sum of both": by_sum,
    },
    "check_near_duplicates": {
        "loop": pairs_by_loop,
        "numpy": pairs_in_numpy,
        "products, another order": by_products,
    },
}
