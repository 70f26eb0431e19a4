"""Checks of the exercises of chapter 07: merges, masks, attention, the loss of the next token."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, random


def check_apply_merges(function: Callable[[list[int], list[tuple[int, int]]], Sequence[int]], seed: int = 0) -> None:
    """Exercise 07.1: a word cut by the merges that were learned.

    Args:
        function: apply_merges(ids, merges) -> the ids after all merges, as a list; merge number k makes the id 256 + k.
        seed: of the words it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("apply_merges", function)

    def expect(ids: list[int], merges: list[tuple[int, int]], right: list[int], mistakes: dict[str, list[int]]) -> None:
        result = answer(ids, merges)
        if result is None:
            answer.fail("the result is None; does every way through the function end in `return`?")
        found = result.tolist() if hasattr(result, "tolist") else result
        found = list(found) if hasattr(found, "__iter__") else [found]
        if not all(isinstance(number, int) for number in found):
            answer.fail(f"it gives {found}; give a list of whole numbers, one for each piece")
        if found == right:
            return
        for mistake, wrong in mistakes.items():
            if found == wrong:
                answer.fail(f"{ids} with the merges {merges} becomes {found}: {mistake}")
        answer.fail(f"{ids} with the merges {merges} becomes {found} and should be something else")

    mistakes = {
        "nothing was merged": [7, 1, 2, 9],
        "the new id of the first merge is 256": [7, 257, 9],
        "the new id stands beside the pair; it replaces both": [7, 256, 2, 9],
        "the new id is there, and the pair too": [7, 256, 1, 2, 9],
        "what stands after the merge was lost": [7, 256],
        "the pair is gone and nothing stands for it": [7, 9],
    }
    expect([7, 1, 2, 9], [(1, 2)], [7, 256, 9], mistakes)
    expect([2, 1, 5], [(1, 2)], [2, 1, 5], {"the order within a pair counts: 2, 1 is not 1, 2": [256, 5]})
    expect([5], [(1, 2)], [5], {"a word of one id stays as it is": []})
    expect([], [(1, 2)], [], {})
    answer.verify("one pair becomes one id")
    first_only = "only the first occurrence was merged; merge all"
    expect([1, 2, 3, 1, 2], [(1, 2)], [256, 3, 256], {first_only: [256, 3, 1, 2]})
    overlap = "in `aaa` the pairs overlap: an id that was merged is used up, so go on after it"
    expect([1, 1, 1], [(1, 1)], [256, 1], {"go from left to right": [1, 256], overlap: [256, 256]})
    expect([1] * 5, [(1, 1)], [256, 256, 1], {"go from left to right": [1, 256, 256], overlap: [256] * 4})
    answer.verify("pairs that overlap (`aaa`) are merged from left to right")
    later = "a later merge must find the ids that earlier ones made; let each work on the result of the one before"
    expect([1, 2, 3], [(1, 2), (256, 3)], [257], {later: [256, 3]})
    order = "the merges come in the order in which they were learned, not in that of the places in the word"
    expect([1, 2, 3], [(2, 3), (1, 2)], [1, 256], {order: [257, 3]})
    answer.verify("merges build on each other, in the order of learning")
    numbers = torch.Generator().manual_seed(seed)
    for _ in range(20):
        ids = torch.randint(3, (12,), generator=numbers).tolist()
        merges: list[tuple[int, int]] = []
        while len(merges) < 5:
            known = [0, 1, 2, *range(256, 256 + len(merges))]
            one, two = (known[int(torch.randint(len(known), (), generator=numbers))] for _ in range(2))
            if (one, two) not in merges:
                merges.append((one, two))
        expect(ids, merges, _merged(ids, merges), {})
    answer.verify("20 random words are cut right")
    answer.passed()


def _merged(ids: list[int], merges: list[tuple[int, int]]) -> list[int]:
    """The reference: each merge in turn over the whole word."""
    for new, (one, two) in enumerate(merges, start=256):
        done: list[int] = []
        for number in ids:
            if done and done[-1] == one and number == two:
                done[-1] = new  # a new id is larger than any in the pair, so it cannot be merged again here
            else:
                done.append(number)
        ids = done
    return ids


def check_window_mask(function: Callable[[Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 07.2: who may look at whom, if nobody looks ahead, at padding, or far back.

    Args:
        function: window_mask(mask, window), (B, T) bool and an int -> (B, 1, T, T) bool.
        seed: of the padding it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, length = Answer("window_mask", function), 6
    ones = torch.ones(length, length, dtype=torch.bool)
    behind = torch.arange(length)[:, None] - torch.arange(length)  # t - s
    itself = torch.eye(length, dtype=torch.bool)

    def original(mask: Tensor, window: int) -> Tensor:
        near = (behind >= 0) & (behind < window)
        return ((near & mask[:, None, :]) | itself)[:, None]

    def expect(mask: Tensor, window: int, what: str, mistakes: dict[str, Tensor]) -> None:
        right = original(mask, window)
        hint = "(texts, 1 for all heads, who looks, at whom)"
        found = answer.expect_shape(answer(mask, window), tuple(right.shape), hint)
        if found.dtype != torch.bool:
            answer.fail(f"the result is of the type {found.dtype}; make it bool, as `masked_fill(~mask, ...)` needs it")
        if torch.equal(found, right):
            return
        for mistake, wrong in mistakes.items():
            if torch.equal(found, wrong.expand_as(right)):
                answer.fail(f"{what}: {mistake}")
        wrong = (found != right).nonzero()[0].tolist()
        row, column, value = wrong[2], wrong[3], bool(right[tuple(wrong)])
        answer.fail(f"{what}: row {row}, column {column} should be {value}")

    full = torch.ones(2, length, dtype=torch.bool)
    causal = ones.tril()
    mistakes = {
        "True and False are swapped; True means: may look": ~causal,
        "it looks ahead: rows are who looks, columns at whom": ones.triu(),
        "off by one: a token may look at itself too": ones.tril(-1),
        "off by one, and itself put back": ones.tril(-2) | itself,
        "off by one: it may look one ahead": ones.tril(1),
        "everybody may look at everybody; nobody should look ahead": ones,
        "nobody looks at anybody but itself": itself,
    }
    expect(full, length, "a wide window, no padding", mistakes)
    answer.verify("nobody looks ahead")
    near = (behind >= 0) & (behind < 3)
    mistakes = {
        "the window is not used": causal,
        "off by one: a window of 3 is a token and the two before it": causal & (behind <= 3),
        "the window counts itself too: a window of 3 is a token and the two before it": causal & (behind < 2),
        "the window reaches ahead as well": behind.abs() < 3,
        "far tokens are seen and near ones hidden": (causal & ~near) | itself,
        "True and False are swapped; True means: may look": ~near,
        "it looks ahead: rows are who looks, columns at whom": near.T,
    }
    expect(full, 3, "a window of 3, no padding", mistakes)
    expect(full, 1, "a window of 1", {"with a window of 1 each sees only itself": causal})
    answer.verify("nobody looks farther back than the window")
    padded = torch.rand(4, length, generator=torch.Generator().manual_seed(seed)) < 0.5
    padded[0] = torch.tensor([True] * 4 + [False] * 2)  # on the right
    padded[1] = torch.tensor([False] * 2 + [True] * 4)  # on the left
    who, whom = padded[:, None, :, None], padded[:, None, None, :]
    mistakes = {
        "padding is seen": near[None, None].expand(4, 1, length, length),
        "a padded token must look at itself, or its row is empty and its softmax 0/0": near & whom,
        "a padded token must look at itself, or its row is empty (the softmax of nothing is 0/0)": near & whom & who,
        "the mask hides who looks (the row); it should hide at whom (the column)": (near & who) | itself,
        "the mask hides who looks (the row), not at whom (the column)": near & who,
        "padding alone is seen; True in `mask` means a real token": (near & ~whom) | itself,
        "a padded token looks at itself only; here it may look at real ones before it, and nobody reads its answer": (
            (near & whom & who) | itself
        ),
        "with or, one reason to look is enough; both must hold": near | whom,
        "each text has its own padding; the first text's serves for all": (near & whom[:1]) | itself,
    }
    expect(padded, 3, "a window of 3, four texts with padding", mistakes)
    answer.verify("nobody looks at padding, and no row is empty")
    answer.passed()


def check_attention(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 07.3: attention in which some see nothing.

    Args:
        function: attention(query, key, value, mask), (B, T, D), (B, S, D), (B, S, E), (B, T, S) bool -> (B, T, E);
            zeros for a query that may look at nothing.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("attention", function)
    query, key, value = 2 * random(seed, 2, 4, 9), random(seed + 1, 2, 4, 9), random(seed + 2, 2, 4, 5)
    every = torch.ones(2, 4, 4, dtype=torch.bool)
    scores = query @ key.mT
    right = (scores / 3).softmax(-1) @ value
    hint = "for every query one answer, as long as a value"
    answer.expect_shape(answer(query, key, value, every), (2, 4, 5), hint)
    mistakes = {
        "the scores are not divided by the root of D": scores.softmax(-1) @ value,
        "the scores are divided by D; divide by its root": (scores / 9).softmax(-1) @ value,
        "the scores are divided by the root of the value's channels; take those of query and key": (
            (scores / math.sqrt(5)).softmax(-1) @ value
        ),
        "the scores are divided by the root of the number of tokens; take that of the channels": (
            (scores / 2).softmax(-1) @ value
        ),
        "the scores are multiplied by the root of D": (scores * 3).softmax(-1) @ value,
        "the softmax runs over the queries; the weights of one query, over all keys, must sum to 1": (
            (scores / 3).softmax(-2) @ value
        ),
        "the softmax runs over the texts of the batch; it must run over the keys": (scores / 3).softmax(0) @ value,
        "the root of D divides the weights; it belongs to the scores, before the softmax": scores.softmax(-1)
        / 3
        @ value,
        "there is no softmax": scores / 3 @ value,
        "key and query are swapped": (scores / 3).mT.softmax(-1) @ value,
    }
    answer.expect(answer(query, key, value, every), right, "the answer if all is visible", mistakes)
    longer = random(seed + 3, 2, 6, 9), random(seed + 4, 2, 6, 5), torch.ones(2, 4, 6, dtype=torch.bool)
    theirs = F.scaled_dot_product_attention(query, *longer)
    answer.expect(answer(query, *longer), theirs, "the answer of four queries to six keys")
    answer.verify("the answers equal torch's")
    mask = every.tril()
    mask[1, :, 0] = torch.tensor([True, False, True, False])
    weights = (scores / 3).softmax(-1)
    right = F.scaled_dot_product_attention(query, key, value, mask)
    mistakes = {
        "the mask is not used": weights @ value,
        "the mask is turned round; True means: may look": (
            (scores / 3).masked_fill(mask, -torch.inf).softmax(-1).nan_to_num() @ value
        ),
        "the weights are masked after the softmax, so they do not sum to 1; mask the scores": (weights * mask) @ value,
        "hidden scores are 0, and e to the 0 is 1: they still weigh; make them minus infinity": (
            (scores / 3 * mask).softmax(-1) @ value
        ),
    }
    answer.expect(answer(query, key, value, mask), right, "the answer behind a mask", mistakes)
    answer.verify("what is hidden has no weight")
    blind = mask.clone()
    blind[0, 2] = False
    right = right.clone()
    right[0, 2] = 0
    even = right.clone()
    even[0, 2] = value[0].mean(0)
    told = "a query that may look at nothing"
    mistakes = {"it takes the mean of everything that is hidden; the answer should be zeros": even}
    hint = "A softmax of minus infinity alone is 0/0; the answer should be zeros."
    answer.expect(answer(query, key, value, blind), right, f"the answer to {told}", mistakes, hint=hint)

    def original(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen = blind | ~blind.any(-1, keepdim=True)
        return F.scaled_dot_product_attention(query, key, value, seen) * blind.any(-1, keepdim=True)

    sloped = Answer("attention", lambda *parts: function(*parts, blind))
    hint = "Is it not a number? Then let no row be empty before the softmax."
    sloped.expect_gradient((query, key, value), original, f"the slope with {told}", 1e-4, hint=hint)
    answer.verify("who may look at nothing gets zeros, and finite slopes")
    large = answer(1000 * query, key, value, every)
    hint = "e to the 1000 overflows; subtract the largest score first, or use `softmax`."
    answer.expect(large, (1000 * scores / 3).softmax(-1) @ value, "the answer for scores of some 1000", hint=hint)
    answer.verify("large scores do not overflow")
    answer.passed()


def check_next_token_loss(function: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 07.4: the mended loss of the next token.

    Args:
        function: next_token_loss(logits, ids, mask), (B, T, V), (B, T) int64 and (B, T) bool -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("next_token_loss", function)
    logits = random(seed, 3, 6, 7)
    ids = torch.randint(7, (3, 6), generator=torch.Generator().manual_seed(seed + 1))
    full = torch.ones(3, 6, dtype=torch.bool)

    def surprise(logits: Tensor, ids: Tensor) -> Tensor:
        return -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]

    def original(logits: Tensor, mask: Tensor = full) -> Tensor:
        return surprise(logits[:, :-1], ids[:, 1:])[mask[:, 1:]].mean()

    value = answer.expect_shape(answer(logits, ids, full), (), "a loss is one number; take the mean")
    right = original(logits)
    mistakes = {
        "it is still not shifted: state t is asked for token t, which it has just read; ask for t + 1": (
            surprise(logits, ids).mean()
        ),
        "it is still not shifted; only the last place was cut off": surprise(logits[:, :-1], ids[:, :-1]).mean(),
        "it is still not shifted; only the first place was cut off": surprise(logits[:, 1:], ids[:, 1:]).mean(),
        "it is shifted the wrong way: state t is asked for token t - 1": surprise(logits[:, 1:], ids[:, :-1]).mean(),
        "it is shifted by two": surprise(logits[:, :-2], ids[:, 2:]).mean(),
        "`roll` puts the first token behind the last; the last state has no next token": (
            surprise(logits, ids.roll(-1, 1)).mean()
        ),
        "you summed; take the mean over all guesses": 15 * right,
        "you summed over the tokens of a text; take the mean over all guesses": 5 * right,
        "the sign is wrong; a surprise is positive": -right,
        "that is in bits; take the natural logarithm": right / math.log(2),
    }
    answer.expect(value, right, "the loss of three texts without padding", mistakes)
    answer.verify("each state is asked for the next token")
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [True] * 2 + [False] * 4])
    each = surprise(logits[:, :-1], ids[:, 1:])
    real = mask[:, 1:]
    mistakes = {
        "padding counts as a token to be guessed": each.mean(),
        "the last guess of each text is that of padding: look at `mask` where the *guessed* token stands": (
            each[mask[:, :-1]].mean()
        ),
        "padding is set to 0 but still divides; divide by the number of real guesses": (each * real).mean(),
        "you divided by all real tokens; the first of each text is not guessed": (each * real).sum() / mask.sum(),
        "you took the mean of the texts' means; each guess counts the same": (
            ((each * real).sum(1) / real.sum(1)).mean()
        ),
        "only padding is counted": each[~real].mean(),
    }
    value = answer(logits, ids, mask)
    answer.expect(value, original(logits, mask), "the loss of texts of 6, 3 and 2 tokens", mistakes)
    answer.verify("padding does not count")
    even = answer(torch.zeros(3, 6, 7), ids, mask)
    answer.expect(even, math.log(7), "the loss of a blind guess among 7")
    sloped = Answer("next_token_loss", lambda logits: function(logits, ids, mask))
    sloped.expect_gradient((logits,), lambda logits: original(logits, mask), "the slope")
    answer.verify("a blind guess among 7 costs log 7; slopes agree")
    sure = 1000 * F.one_hot(ids.roll(-1, 1), 7).float()
    answer.expect(answer(sure, ids, full), 0.0, "the loss of a sure and right guess (a logit of 1000)")
    answer.expect(answer(-sure, ids, full), 1000 + math.log(6), "the loss of a sure and wrong guess")
    answer.verify("logits of ±1000 stay finite")
    answer.passed()
