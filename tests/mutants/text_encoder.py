"""Answers to the exercises of chapter 07."""

import math

import torch
import torch.nn.functional as F


def merging(one_pass):
    """All merges in turn, each by the given pass over the word."""

    def apply_merges(ids, merges):
        for new, pair in enumerate(merges, start=256):
            ids = one_pass(list(ids), pair, new)
        return ids

    return apply_merges


def left_to_right(ids, pair, new):
    done, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair
        done.append(new if found else ids[i])
        i += 1 + found
    return done


def right_to_left(ids, pair, new):
    return left_to_right(ids[::-1], pair[::-1], new)[::-1]


def overlapping(ids, pair, new):
    done = []
    for i, number in enumerate(ids):
        if tuple(ids[i : i + 2]) == pair:
            done.append(new)
        elif not (i and tuple(ids[i - 1 : i + 1]) == pair):
            done.append(number)
    return done


def first_only(ids, pair, new):
    for i in range(len(ids) - 1):
        if tuple(ids[i : i + 2]) == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return ids


def beside(ids, pair, new):
    done = list(ids)
    for i in range(len(ids) - 1):
        if tuple(ids[i : i + 2]) == pair:
            done[i] = new
    return done


def either_order(ids, pair, new):
    return left_to_right(left_to_right(ids, pair, new), pair[::-1], new)


def by_place(ids, merges):
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if tuple(ids[i : i + 2]) in merges:
            ids[i : i + 2] = [256 + merges.index(tuple(ids[i : i + 2]))]
            i = 0
        else:
            i += 1
    return ids


def never_again(ids, merges):
    done, i = [], 0
    while i < len(ids):
        pair = tuple(ids[i : i + 2])
        done.append(256 + merges.index(pair) if pair in merges else ids[i])
        i += 2 if pair in merges else 1
    return done


def in_a_string(ids, merges):
    text = "".join(map(chr, ids))
    for new, (one, two) in enumerate(merges, start=256):
        text = text.replace(chr(one) + chr(two), chr(new))
    return [ord(letter) for letter in text]


def lowest_rank_first(ids, merges):
    ids = list(ids)
    for rank in range(len(merges)):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == merges[rank]:
                ids[i : i + 2] = [256 + rank]
            i += 1
    return ids


def window(near=lambda d, w: (d >= 0) & (d < w), real=lambda m: m[:, None, :], itself=True, last=lambda x: x):
    """The mask, with one place in it changed; d is how far back."""

    def window_mask(mask, window):
        places = torch.arange(mask.shape[1])
        allowed = near(places[:, None] - places, window) & real(mask)
        if itself:
            allowed = allowed | torch.eye(mask.shape[1], dtype=torch.bool)
        return last(allowed[:, None])

    return window_mask


def window_loops(mask, window):
    count, length = mask.shape
    allowed = torch.zeros(count, 1, length, length, dtype=torch.bool)
    for b in range(count):
        for t in range(length):
            for s in range(max(0, t - window + 1), t + 1):
                allowed[b, 0, t, s] = bool(mask[b, s]) or s == t
    return allowed


def window_band(mask, window):
    length = mask.shape[1]
    band = torch.ones(length, length).tril().triu(1 - window)
    both = torch.einsum("ts,bs->bts", band, mask.float()) + torch.eye(length)
    return (both > 0).unsqueeze(1)


def attending(root=math.sqrt, axis=-1, hide=None, weigh=lambda w, m: w, blind=True, soft=torch.softmax):
    """Attention, with one place in it changed."""

    def attention(query, key, value, mask):
        scores = query @ key.mT / root(query.shape[-1])
        seen = mask | ~mask.any(-1, keepdim=True) if blind else mask
        scores = hide(scores, seen) if hide else scores.masked_fill(~seen, -torch.inf)
        answer = weigh(soft(scores, axis), mask) @ value
        return answer * mask.any(-1, keepdim=True) if blind else answer

    return attention


def exponentials(scores, axis):
    weights = scores.exp()
    return weights / weights.sum(axis, keepdim=True)


def nan_mended(query, key, value, mask):
    scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value


def query_by_query(query, key, value, mask):
    texts = []
    for b in range(len(query)):
        rows = []
        for t in range(query.shape[1]):
            seen = mask[b, t]
            if not seen.any():
                rows.append(0 * value[b, 0])
                continue
            scores = key[b, seen].double() @ query[b, t].double() / query.shape[-1] ** 0.5
            rows.append((scores.softmax(0) @ value[b, seen].double()).float())
        texts.append(torch.stack(rows))
    return torch.stack(texts)


def with_a_sink(query, key, value, mask):
    """A further key with the value 0, that only those see who see nothing else."""
    key = F.pad(key, (0, 0, 0, 1))
    value = F.pad(value, (0, 0, 0, 1))
    return F.scaled_dot_product_attention(query, key, value, torch.cat([mask, ~mask.any(-1, keepdim=True)], -1))


def guessing(states=slice(0, -1), tokens=slice(1, None), real=None, mean=lambda x, r: x[r].mean()):
    """The loss, with one place in it changed."""

    def next_token_loss(logits, ids, mask):
        asked, known = logits[:, states], ids[:, tokens]
        each = F.cross_entropy(asked.transpose(1, 2), known, reduction="none")
        return mean(each, mask[:, real or tokens])

    return next_token_loss


def rolled(logits, ids, mask):
    return F.cross_entropy(logits.flatten(0, 1), ids.roll(-1, 1).flatten())


def probability_first(logits, ids, mask):
    chances = logits[:, :-1].softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return -chances.log()[mask[:, 1:]].mean()


def ignoring(logits, ids, mask):
    known = ids.masked_fill(~mask, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), known.reshape(-1))


def loss_loops(logits, ids, mask):
    costs = []
    for text, row, real in zip(logits.double(), ids, mask, strict=True):
        for t in range(len(row) - 1):
            if real[t + 1]:
                costs.append(text[t].logsumexp(0) - text[t, row[t + 1]])
    return sum(costs) / len(costs)


WRONG = {
    "check_apply_merges": {
        "overlapping": (merging(overlapping), "overlap"),
        "right to left": (merging(right_to_left), "left to right"),
        "first occurrence": (merging(first_only), "only the first occurrence"),
        "pair not removed": (merging(beside), "it replaces both"),
        "either order": (merging(either_order), "order within a pair"),
        "by place": (by_place, "order in which they were learned"),
        "new ids not merged": (never_again, "earlier ones made"),
        "nothing": (lambda ids, merges: ids, "nothing was merged"),
        "ids begin at 257": (
            lambda ids, merges: [x + (x > 255) for x in in_a_string(ids, merges)],
            "first merge is 256",
        ),
        "texts": (lambda ids, merges: [str(x) for x in in_a_string(ids, merges)], "whole numbers"),
        "returns nothing": (lambda ids, merges: None, "is None"),
    },
    "check_window_mask": {
        "swapped": (window(last=lambda x: ~x), "True and False are swapped"),
        "transposed": (window(last=lambda x: x.mT), "it looks ahead"),
        "not itself": (window(lambda d, w: (d > 0) & (d < w), itself=False), "look at itself too"),
        "one ahead": (window(lambda d, w: (d >= -1) & (d < w)), "one ahead"),
        "no causality": (window(lambda d, w: d < w), "nobody should look ahead"),
        "window plus one": (window(lambda d, w: (d >= 0) & (d <= w)), "off by one"),
        "window minus one": (window(lambda d, w: (d >= 0) & ((d < w - 1) | (w > 5))), "counts itself too"),
        "window unused": (window(lambda d, w: d >= 0), "window is not used"),
        "padding seen": (window(real=lambda m: torch.ones_like(m)[:, None, :]), "padding is seen"),
        "empty rows": (window(itself=False), "its row is empty"),
        "rows hidden": (window(real=lambda m: m[:, :, None]), "hides who looks"),
        "rows hidden too": (window(real=lambda m: m[:, None, :] & m[:, :, None]), "at itself only"),
        "first padding": (window(real=lambda m: m[:1, None, :].expand(len(m), -1, -1)), "serves for all"),
        "numbers": (window(last=lambda x: x.float()), "make it bool"),
        "no head dimension": (window(last=lambda x: x[:, 0]), "has the shape"),
    },
    "check_attention": {
        "no root": (attending(root=lambda d: 1), "not divided by the root"),
        "D for the root": (attending(root=lambda d: d), "divided by D"),
        "multiplied": (attending(root=lambda d: 1 / math.sqrt(d)), "multiplied by the root"),
        "over the queries": (attending(axis=-2), "runs over the queries"),
        "over the batch": (attending(axis=0), "over the texts of the batch"),
        "no softmax": (attending(soft=lambda x, axis: x), "no softmax"),
        "mask unused": (attending(hide=lambda s, m: s), "mask is not used"),
        "mask inverted": (
            lambda q, k, v, m: attending()(q, k, v, m if m.all() else ~m),
            "turned round",
        ),
        "masked too late": (attending(hide=lambda s, m: s, weigh=lambda w, m: w * m), "after the softmax"),
        "scores zero": (attending(hide=lambda s, m: s * m), "they still weigh"),
        "not a number": (attending(blind=False), "is not finite"),
        "mean of the hidden": (
            lambda q, k, v, m: (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~m, -1e9).softmax(-1) @ v,
            "mean of everything",
        ),
        "overflow": (attending(soft=exponentials), "overflows"),
    },
    "check_next_token_loss": {
        "not shifted": (guessing(slice(None), slice(None)), "still not shifted"),
        "last cut off": (guessing(slice(0, -1), slice(0, -1)), "last place was cut off"),
        "first cut off": (guessing(slice(1, None), slice(1, None)), "first place was cut off"),
        "the wrong way": (guessing(slice(1, None), slice(0, -1)), "the wrong way"),
        "by two": (guessing(slice(0, -2), slice(2, None)), "by two"),
        "rolled": (rolled, "`roll`"),
        "padding counts": (guessing(mean=lambda x, r: x.mean()), "padding counts"),
        "mask not shifted": (guessing(real=slice(0, -1)), "where the *guessed* token stands"),
        "zeros divide": (guessing(mean=lambda x, r: (x * r).mean()), "still divides"),
        "mean of means": (guessing(mean=lambda x, r: ((x * r).sum(1) / r.sum(1)).mean()), "the texts' means"),
        "sum": (guessing(mean=lambda x, r: x[r].sum()), "you summed"),
        "sign": (guessing(mean=lambda x, r: -x[r].mean()), "sign is wrong"),
        "bits": (guessing(mean=lambda x, r: x[r].mean() / math.log(2)), "in bits"),
        "probability first": (probability_first, "not finite"),
    },
}
RIGHT = {
    "check_apply_merges": {"string": in_a_string, "in place": lowest_rank_first, "passes": merging(left_to_right)},
    "check_window_mask": {"loops": window_loops, "band": window_band, "distances": window()},
    "check_attention": {
        "query by query": query_by_query,
        "sink": with_a_sink,
        "masked": attending(),
        "mended": nan_mended,
    },
    "check_next_token_loss": {"loops, float64": loss_loops, "ignored index": ignoring, "gathered": guessing()},
}
