# %% [markdown]
# # Exercises 02 · Words and pictures
#
# Five exercises to lesson 02, 80 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | How many pictures are there? | ★★☆☆☆ | 10 | 2 |
# | 2 | A reader that is not fooled | ★★★☆☆ | 25 | 4 |
# | 3 | An exam that does not leak | ★★★☆☆ | 20 | 4 |
# | 4 | Find the bug: everything is a copy | ★★☆☆☆ | 15 | 3 |
# | 5 | In your own words: the mirror | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import hashlib
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from course_lib.checks.data import (
    check_count_pictures,
    check_is_held_out,
    check_near_duplicates,
    check_read_values,
)
from course_lib.data import CaptionedShapes
from course_lib.data.audit import difference_hash
from course_lib.data.captions import WORDS
from course_lib.data.shapes import combinations, told_from_the_other
from course_lib.lesson import pictures, setup, table

device = setup()

# %% [markdown]
# ## 1 How many pictures are there?
#
# ★★☆☆☆ · 10 minutes · 2 points
#
# **Why.** "How much data do we need?" begins with "how much is there to know?". The lesson counted 48,384 combinations
# of two objects. But each *picture* of two objects has two descriptions, and pictures are what a model is trained on.
#
# **Write** `count_pictures`: how many different pictures of two objects there are (chance that moves and tints them is
# left out). Two objects that look the same, in colour *and* shape, are no pair.
#
# **Expected.** 24,192 for 8 colours, 8 shapes, 4 relations and 3 backgrounds; 4 for two colours, one shape, 4 relations
# and one background: red left of blue, red right of it, red above it, red below it.
#
# <details><summary>Hint 1: objects</summary>
#
# There are colours x shapes different objects. How many ways are there to choose a first one, and then a different
# second one?
#
# </details>
#
# <details><summary>Hint 2: descriptions</summary>
#
# "A red circle left of a blue star" and "a blue star right of a red circle" are two descriptions of one picture.
#
# </details>
#
# <details><summary>Hint 3: together</summary>
#
# Multiply: first objects, second objects, relations, backgrounds. Then halve once.
#
# </details>


# %% tags=["solve:count-pictures"]
def count_pictures(colors: int, shapes: int, relations: int, backgrounds: int) -> int:
    """How many different pictures of two objects there are.

    Args:
        colors, shapes: of an object; both objects have the same choice.
        relations: how the first stands to the second; each has its opposite among them (left of, right of ...).
        backgrounds: of the picture.
    Returns:
        The number of pictures, each counted once, without those of two objects that look the same.
    """
    ### BEGIN SOLUTION
    objects = colors * shapes
    descriptions = objects * (objects - 1) * relations * backgrounds
    return descriptions // 2
    ### END SOLUTION


# %% tags=["check:count-pictures:2"]
check_count_pictures(count_pictures)
### BEGIN HIDDEN TESTS
check_count_pictures(count_pictures, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Three objects in a row, left to right: how many pictures? How many are there when the order does
# not matter? How many days would a network need to see each once, at a thousand pictures a second?
#
# ## 2 A reader that is not fooled
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** Reading captions back is how this course marks generated pictures. The lesson's plain reader looked for every
# word it knew and was wrong in one of five Chinese captions, because 深蓝色 (navy) contains 蓝色 (blue). English has such
# pairs too: "left" is in "left edge".
#
# **Write** `read_values`. From left to right, it takes the longest phrase that begins at a place, notes the value that
# this phrase stands for, and goes on *behind* it, so that no character is used twice. What it does not know it passes
# over. Do not ask for spaces around a phrase: Chinese has none.
#
# **Expected.** 深蓝色背景上的蓝色圆形 gives `["navy", "blue", "circle"]` with the library's Chinese words.
#
# <details><summary>Hint 1: the other way round</summary>
#
# You have value -> phrases, and need phrase -> value. Make a dictionary of that kind first.
#
# </details>
#
# <details><summary>Hint 2: two ways</summary>
#
# With a loop: at each place, try all phrases, longest first, with `text.startswith(phrase, place)`; if one fits, go on
# by its length, else by 1. Or with one regular expression: `re.findall("a|b|c", text)` finds, from left to right and
# without overlap, the *first* of the alternatives that fits.
#
# </details>
#
# <details><summary>Hint 3: with a regular expression</summary>
#
# Sort the phrases by length, longest first (`sorted(..., key=len, reverse=True)`), so that the first that fits is the
# longest. `re.escape` makes a pattern from a text, so that "." means a point. Join with "|".
#
# </details>


# %% tags=["solve:read-values"]
def read_values(text: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """The values that a text names, from left to right, each as often as it is named.

    Args:
        text: a caption in any language, perhaps empty.
        words: value -> its phrases, such as {"circle": ("circle", "disc")}; no phrase belongs to two values.
    Returns:
        The values, such as ["red", "circle"].
    """
    ### BEGIN SOLUTION
    meaning = {phrase: value for value, phrases in words.items() for phrase in phrases}
    longest_first = sorted(meaning, key=len, reverse=True)
    pattern = "|".join(re.escape(phrase) for phrase in longest_first)
    return [meaning[phrase] for phrase in re.findall(pattern, text)]
    ### END SOLUTION


# %% tags=["check:read-values:4"]
check_read_values(read_values)
### BEGIN HIDDEN TESTS
check_read_values(read_values, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# See it read captions of the data set. The last column is what your function makes of them.

# %% tags=["solve:read-some"]
chinese = CaptionedShapes("train", 16, length=6, captions="varied", language="zh")
captions = [chinese.caption(i) for i in range(len(chinese))]
### BEGIN SOLUTION
readings = [read_values(caption, WORDS["zh"]) for caption in captions]
### END SOLUTION
table([{"caption": c, "read": ", ".join(r)} for c, r in zip(captions, readings, strict=True)])

# %% [markdown]
# **Going further.** In English your reader finds "red" in "scattered" and "ring" in "a string". Ask for a word's edge
# (`\b`) on both sides of phrases in Latin letters only, as the library's `parse` does. Then teach it a third language:
# twenty words of yours and a few templates are enough to caption the shapes.
#
# ## 3 An exam that does not leak
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** The lesson found a leak in the course's own split: for nine held-out pairs in ten, training shows the very
# same picture, told from the other object. You will do better: decide for each *picture*, not for each description.
#
# **Write** `is_held_out`, which decides for one description by itself, without a list of all of them. A hash gives a
# number that looks random; held out is what lies in the lowest part of its range. Both descriptions must get the same
# answer, today and next year, on every machine. `told_from_the_other` gives the other description.
#
# **Expected.** With the share 0.1 about a tenth of all descriptions is held out, and no picture is on both sides.
#
# <details><summary>Hint 1: one name for two descriptions</summary>
#
# Agree on one of the two descriptions, and ask only that one. Which one does not matter, if the choice is the same from
# both sides.
#
# </details>
#
# <details><summary>Hint 2: how to agree</summary>
#
# Tuples of texts can be compared: `min(a, b)` is the same as `min(b, a)`.
#
# </details>
#
# <details><summary>Hint 3: from a text to a number in [0, 1)</summary>
#
# `hashlib.sha256("|".join(values).encode()).hexdigest()` is a number of 256 bits, written with 16 digits: `int(digest,
# 16)` reads it, and divided by `2**256` it lies in [0, 1).
#
# </details>


# %% tags=["solve:is-held-out"]
def is_held_out(pair: tuple[str, ...], share: float) -> bool:
    """Whether a picture of two objects is kept for the exam.

    Args:
        pair: color, shape, relation, color2, shape2, background.
        share: of all pictures that are held out, from 0 (none) to 1 (all).
    Returns:
        True if it is held out; the same for both descriptions of a picture, on every machine.
    """
    ### BEGIN SOLUTION
    name = min(pair, told_from_the_other(pair))
    digest = hashlib.sha256("|".join(name).encode()).hexdigest()
    return int(digest, 16) / 2**256 < share
    ### END SOLUTION


# %% tags=["check:is-held-out:4"]
check_is_held_out(is_held_out)
### BEGIN HIDDEN TESTS
check_is_held_out(is_held_out, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Count the leak of both splits over all 48,384 descriptions.

# %% tags=["solve:count-leaks"]
every, known = combinations("pair", "all"), set(combinations("pair", "train"))
### BEGIN SOLUTION
yours = {pair for pair in every if not is_held_out(pair, 0.1)}  # what training may show
### END SOLUTION
rows = []
for name, train in {"by description": known, "yours": yours}.items():
    exam = [pair for pair in every if pair not in train]
    leaks = sum(told_from_the_other(pair) in train for pair in exam)
    rows.append({"split": name, "held out": len(exam), "of these shown in training": leaks})
table(rows)

# %% [markdown]
# **Going further.** A mirror image is a third guise: what is left of in one is right of in the other. Should a training
# that mirrors its pictures see the mirror image of an exam? Group all that belongs together, and hold out whole groups.
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The audit counts near-duplicates by comparing hashes: a picture's 256 bits, of which copies differ in few.
# Here it looks at 40 shapes and three copies, a little paler, which someone has slipped in. Its verdict is absurd.


# %%
def spoilt_search(hashes: Tensor, limit: int) -> Tensor:
    differ = (hashes[:, None] != hashes).sum(2)  # (N, 1, 256), (N, 256) -> (N, N)
    return (differ < limit).nonzero()  # (P, 2)


shapes = CaptionedShapes("train", 32, length=40).images(range(40))
folder = torch.cat([shapes, shapes[[5, 11, 30]] * 0.9 + 0.05])  # 43 pictures
hashes = difference_hash(folder)  # (43, 256)
found = spoilt_search(hashes, limit=3)
print(f"{len(folder)} pictures, {len(found)} pairs, such as {found[:4].tolist()}")
print(f"pictures that have a copy: {len(found[:, 0].unique()) / len(folder):.0%}")

# %% [markdown]
# **Find** what is wrong, and **write** the search as it should be. It must list each pair once. (There is a small
# mistake too: "at most `limit` bits" includes the limit.)
#
# **Expected.** For the 43 pictures three pairs: 5 and 40, 11 and 41, 30 and 42.
#
# <details><summary>Hint 1: who is everybody's copy?</summary>
#
# Read the four pairs that are printed. What is special about them? How many bits does any picture differ from itself
# in?
#
# </details>
#
# <details><summary>Hint 2: half of a table</summary>
#
# The table of differences holds each pair twice, above and below its diagonal. You need one half, without the diagonal.
#
# </details>
#
# <details><summary>Hint 3: a function for it</summary>
#
# `table.triu(1)` keeps what lies above the diagonal of a table of True and False, and makes the rest False.
#
# </details>


# %% tags=["solve:near-duplicates"]
def near_duplicates(hashes: Tensor, limit: int) -> Tensor:
    """Which pictures are nearly the same.

    Args:
        hashes: (N, bits) of 0 and 1, a row for each picture.
        limit: how many bits of a copy may differ, at most.
    Returns:
        (P, 2) whole numbers, the two pictures of each pair, the smaller number first; every pair once, in any order.
    """
    ### BEGIN SOLUTION
    differ = (hashes[:, None] != hashes).sum(2)  # (N, N)
    return (differ <= limit).triu(1).nonzero()
    ### END SOLUTION


# %% tags=["check:near-duplicates:3"]
check_near_duplicates(near_duplicates)
### BEGIN HIDDEN TESTS
check_near_duplicates(near_duplicates, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Look at what is found if ten bits may differ. Would you delete one of each of these pairs?

# %% tags=["solve:look-at-pairs"]
### BEGIN SOLUTION
suspects = near_duplicates(hashes, 10)[:4]
### END SOLUTION
pictures(
    folder[suspects.flatten()],
    [f"pair {row + 1}, number {number}" for row, pair in enumerate(suspects.tolist()) for number in pair],
    "At most ten bits apart",
    alt="Four pairs of pictures, the objects of each pair in one place. A triangle and a circle; a star and a cross; a "
    "yellow star and a red one on another ground; a triangle and a paler copy of it.",
)

# %% [markdown]
# **Going further.** Only one of the four is a copy: a hash of brightness is nearly blind to colour and to fine detail.
# Add the second witness of the lesson, thumbnails. Then run `audit` on a folder of *your own* pictures, fifty at least,
# with captions of your own in `metadata.jsonl`. Which verdict surprises you, and what did you find by eye that no check
# found?
#
# ## 5 In your own words: the mirror
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# Data is never enough, so many people show each picture to the network a second time, mirrored left to right, with the
# *same* caption. A friend wants to do this with our data sets and with a folder of photos. In six sentences or fewer:
#
# 1. Which captions of the shapes, of one and of two objects, become false in the mirror? Give an example of each.
# 2. Which checks of the audit would notice, and which would not? (The lesson damaged a folder without being noticed.
#    How?)
# 3. What would you do instead, so that the mirror may be used?

# %% [markdown] tags=["explain:the-mirror:3"]
# <!-- BEGIN SOLUTION -->
# 1. Those that name a side: "a red star at the top left" is then at the top right, and "a circle left of a star" stands
#    right of it. "At the center" and "above" stay true. (In photos: writing, and "with a cup in her left hand".) (1
#    point)
# 2. None that looks at pictures alone or at captions alone, for both are fine, as with the captions that were shifted
#    by one. Only the measure that compares a picture with its own caption can notice, and only if its network tells
#    left from right; or thirty pictures, looked at with their captions (1 point).
# 3. Change the caption along with the picture: exchange "left" and "right" in it. Or mirror only pictures whose caption
#    names no side, or leave mirroring out and move the pictures by a pixel or two instead (1 point for any of these).
# <!-- END SOLUTION -->
