# %% [markdown]
# # 02 · Words and pictures
#
# **You will build** `course_lib/data/`: three data sets of pictures with captions. Shapes are drawn from formulas and
# described by a grammar, in English and Chinese. Emoji come with their names. The third is a folder of your own. Then
# you measure whether a data set is fit for training.
#
# **You need** lesson 01: a picture is a tensor (3, height, width) with values from -1 to 1.
#
# **Time**: 50 minutes of reading and thinking; the computer needs about 20 seconds, once 10 more to draw the emoji.
#
# If a cell says that a name is not known, a cell above it was not run: choose *Run > Run All Above Selected Cell*.
#
# You are in the yellow room of the house; the blue ones are built.
#
# ```mermaid
# block-beta
#   columns 15
#   c00["00 Start here"]:15
#   c15["15 Judging pictures"]:5
#   c16["16 What Imagen really is"]:5
#   c17["17 Errata"]:5
#   c12["12 Training"]:5
#   c13["13 Training at scale"]:5
#   c14["14 Sampling"]:5
#   c09["09 A first generator"]:5
#   c10["10 The adversarial game"]:5
#   c11["11 Listening to text"]:5
#   c06["06 Image encoder"]:5
#   c07["07 Text encoder"]:5
#   c08["08 Text meets image"]:5
#   c01["01 Pictures as tensors"]:3
#   c02["02 Words and pictures"]:3
#   c03["03 Losses"]:3
#   c04["04 Optimisers"]:3
#   c05["05 Convolutions"]:3
#   classDef default fill:#f4f4f4,stroke:#999,color:#222
#   classDef built fill:#cfe6f5,stroke:#0072B2,color:#222
#   class c00,c01 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c02 lit
# ```

# %% tags=["nbval-check-output"]
import hashlib
import itertools
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data.shapes import COLORS, SHAPES, attributes_of, combinations, draw_object, draw_objects
from course_lib.lesson import compare, figure, heatmap, lines, pictures, setup, show, table

device = setup()

# %% [markdown]
# ## 1 A picture from a formula
#
# To test a model one must know the truth about each picture. Nobody knows it better than who drew the picture, so we
# draw them ourselves. A shape is a function: it says how far a point $(x, y)$ lies outside the shape (+) or inside (-),
# and is called a **signed distance**. For a circle of radius 1 it is
#
# $$d(x, y) = \sqrt{x^2 + y^2} - 1$$
#
# so $d(0, 0) = -1$, $d(0.6, 0.8) = 0$ and $d(3, 4) = 4$. A picture reaches from -1 to 1, to the right and down. For a
# circle of radius $r$, measure in units of $r$ and multiply by $r$ again: $r \cdot d(x/r,\, y/r)$.
#
# A picture 8 pixels wide has pixels of width 0.25. A pixel whose centre is on the edge is about half covered; one whose
# centre is half a pixel farther in or out, wholly or not at all. With the distance in pixels:
#
# $$\mathrm{coverage} = 0.5 - d, \quad \text{cut off at 0 and 1}$$
#
# **Predict.** Let $r = 0.7$. In the row $y = 0.125$ the pixels right of the middle have their centres at $x$ = 0.125,
# 0.375, 0.625 and 0.875. Which of them does the circle cover, and how much?

# %% tags=["nbval-check-output"]
radius, size, y = 0.7, 8, 0.125
for column in range(4, 8):
    x = (column + 0.5) / size * 2 - 1  # the pixel's centre
    distance = (math.sqrt(x**2 + y**2) - radius) * size / 2  # in pixels
    print(f"x = {x:.3f}: {distance:6.2f} pixels, covered {min(max(0.5 - distance, 0), 1):.2f}")

# %% [markdown]
# 1, 1, 0.75 and 0: the edge runs through the third. Its colour is mixed by the line that you know from lesson 01,
# $\mathrm{coverage} \cdot \mathrm{object} + (1 - \mathrm{coverage}) \cdot \mathrm{background}$.
#
# Distances are easily combined. The smaller of two belongs to the **union** of two shapes, the larger to their
# **intersection**; a minus sign swaps inside and outside; $|d| - w$ is an outline. Here are four of our eight shapes,
# for whole tensors of points, and below them the distances of all eight (`square`, `triangle`, `star` and `heart` stand
# in the library).


# %% tags=["lib:data.shapes.circle", "lib:data.shapes.ring", "lib:data.shapes.cross", "lib:data.shapes.crescent", "nbval-check-output"]
def circle(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a circle of radius 1."""
    return torch.hypot(x, y) - 1


def ring(x: Tensor, y: Tensor) -> Tensor:
    """A ring: near the circle of radius 0.75."""
    return (torch.hypot(x, y) - 0.75).abs() - 0.25


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A plus sign: the union (minimum) of two bars."""
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.3), torch.maximum(y - 1, x - 0.3))


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """A crescent: a disc without a second disc to its right."""
    return torch.maximum(torch.hypot(x, y) - 1, 0.78 - torch.hypot(x - 0.5, y))


# %% tags=["nbval-check-output"]
grid = torch.linspace(-1.4, 1.4, 141)
alt = "Eight maps from -1.4 to 1.4, one for each shape: purple inside, orange outside, in bands of equal "
alt += "distance around the black outline, like the heights on a map of a hill."
with figure("Eight signed distances", alt, columns=4, rows=2, size=(9, 5)) as axes:
    for axis, (name, shape) in zip(axes.flat, SHAPES.items(), strict=True):
        distance = shape(grid[None, :].expand(141, 141), grid[:, None].expand(141, 141))
        bands = torch.arange(-10, 11) / 10
        axis.contourf(grid, grid, distance, levels=bands, cmap="PuOr_r", extend="both")
        axis.contour(grid, grid, distance, levels=[0], colors="black", linewidths=2)
        axis.set(title=name, aspect="equal", ylim=(1.4, -1.4))  # y grows downwards
        axis.set_axis_off()

# %% [markdown]
# Near corners a combined distance is not quite exact, but its sign and its edge are, and drawing needs no more.
#
# Now all pixels at once: a row of $x$ (1, S) and a column of $y$ (S, 1) broadcast to (S, S). In lesson 01 a disc was
# made of zeros and ones, a pixel was in or out. Does it matter? We let a circle grow from radius 0.2 to 0.95 and add up
# its pixels. (The second cell checks that the library's `draw_object`, which does many pictures at once, at any place
# and angle, agrees with ours.)
#
# **Predict.** How does the circle's area grow on 8 x 8 pixels, if each is in or out?


# %% tags=["nbval-check-output"]
def coverage(shape, radius, size):
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1  # pixel centres, (S,)
    x, y = axis[None, :], axis[:, None]  # (1, S), (S, 1)
    distance = shape(x / radius, y / radius) * radius * size / 2  # (S, S), in pixels
    return (0.5 - distance).clamp(0, 1)


radii = torch.linspace(0.2, 0.95, 151)
shares = [coverage(circle, radius, 8) for radius in radii.tolist()]  # each (8, 8)
areas = {"in or out": [(share > 0.5).sum().item() for share in shares]}
areas |= {"with shares": [share.sum().item() for share in shares], "the true area": math.pi * radii**2 * 16}
alt = "Area against radius. The true area rises smoothly from 2 to 45 pixels, the sum of shares follows it "
alt += "closely. In-or-out rises in leaps, from 4 to 44; between radius 0.4 and 0.53 it stays at 12."
lines(radii, areas, "A circle grows", ("radius, in half picture widths", "area in pixels"), alt)

# %% tags=["nbval-check-output"]
black = torch.zeros(1, 3, 32, 32, device=device)
middle, white = torch.zeros(1, 2, device=device), torch.ones(1, 3, device=device)
radius, angle = torch.tensor([[0.7], [0.0]], device=device)  # each (1,)
parts = {}
for shape in (circle, ring, cross, crescent):
    drawn = draw_object(black, [shape.__name__], white, middle, radius, angle)  # (1, 3, 32, 32)
    parts[shape.__name__] = coverage(shape, 0.7, 32), drawn[0, 0]
compare(parts)

# %% [markdown]
# In leaps. From radius 0.40 to 0.53 the circle's area nearly doubles, and not one pixel changes. With shares, even 64
# pixels show every change of size, and a network that is to learn what "large" means sees it.
#
# ## 2 The language of the shapes
#
# A scene with one object has five attributes: `size` (2 values), `color` (8), `shape` (8), `position` (5) and
# `background` (3). (`combinations` lists all scenes as bare values; `attributes_of` puts the names to them.)
#
# **Predict.** How many different scenes are there?
#
# <details><summary>Answer</summary>
#
# 2 x 8 x 8 x 5 x 3 = 1,920. Chance moves, turns and tints each a little, so that there are more pictures than that.
#
# </details>
#
# A caption is a **template** with words in its slots. A part in square brackets falls away when its slot has no word,
# and "a" becomes "an" where it must. Two regular expressions do it: `\[([^]]*)]` finds a bracketed part, `\ba
# (?=[aeiou])` an "a" before a vowel.


# %% tags=["lib:data.captions.fill", "nbval-check-output"]
def fill(template: str, words: dict[str, str]) -> str:
    """The template with its slots filled; a bracketed part whose attribute has no word falls away."""

    def part(match: re.Match) -> str:
        slot = re.search(r"{(\w+)}", match[1])[1]
        return match[1] if slot in words else ""

    text = re.sub(r"\[([^]]*)]", part, template).format(**words)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


# %% tags=["nbval-check-output"]
from course_lib.data.captions import SINGLE, TEMPLATES, WORDS, describe, parse

template = TEMPLATES["en", "single", "seen"][0]
print(template)
print(fill(template, {"color": "orange", "shape": "ring", "background": "gray"}))

scene = {"size": "large", "color": "orange", "shape": "ring", "position": "center", "background": "gray"}
rows = []
for style, seed in itertools.product(("canonical", "varied", "noisy", "unseen"), (0, 2)):
    rows.append({"style": style} | {name: describe(scene, name, style, seed) for name in ("en", "zh")})
table(rows)
varied = {describe(scene, "en", "varied", seed) for seed in range(1000)}
print(f"different captions among 1,000 varied ones: {len(varied)}")

# %% [markdown]
# `describe` chooses template and words. *Canonical* captions always use the first of each. *Varied* ones draw templates
# and synonyms and leave things unsaid, and every fourth one is loose words (`shuffle`): 803 different sentences in
# 1,000, for one and the same scene. About every second *noisy* one holds a word that means nothing
# (`with_made_up_word`), so that a model learns to pass over what it does not know. *Unseen* templates are kept for
# examinations.
#
# ### And back
#
# If captions can be read back exactly, generated pictures can be marked by machine. The plainest reader looks for each
# word it knows.
#
# **Predict.** Given 1,920 varied captions in each language, where will it go wrong: in English or in Chinese?


# %% tags=["nbval-check-output"]
def plain_parse(text, language):
    found = {}
    for name, value in ((name, value) for name, values in SINGLE.items() for value in values):
        if any(word in text for word in WORDS[language][value]):
            found.setdefault(name, value)
    return found


scenes = [attributes_of(values) for values in combinations("single", "all")]
rows = []
for language in ("en", "zh"):
    texts = [describe(scene, language, "varied", seed) for seed, scene in enumerate(scenes)]
    plain = sum(not plain_parse(t, language).items() <= s.items() for t, s in zip(texts, scenes, strict=True))
    ours = sum(not parse(t).items() <= s.items() for t, s in zip(texts, scenes, strict=True))
    rows.append({"language": language, "captions": len(texts), "plain: wrong": plain, "parse: wrong": ours})
table(rows)

# %% [markdown]
# In Chinese, one in five. No spaces separate its words, and 深蓝色 (navy) contains 蓝色 (blue), as 青绿色 (turquoise) contains
# 绿色 (green). `parse` looks for the longest phrase first and uses no character twice: not a mistake in 3,840. ("Wrong"
# means: it names something that is not in the scene. What is left unsaid, nobody can read.) `words_of` cuts any text
# into words, and `vocabulary` holds all words of the grammar.
#
# ### The data set
#
# `CaptionedShapes` puts both together: number $i$ is drawn when it is asked for, and always the same.
#
# **Predict.** The same four again with `language="zh"`: how many of the pixels change?

# %% tags=["nbval-check-output"]
from course_lib.data import CaptionedEmoji, CaptionedFolder, CaptionedShapes

english = CaptionedShapes("train", 64, length=1200, captions="varied")
chinese = CaptionedShapes("train", 64, length=1200, captions="varied", language="zh")
image, caption = english[0]
print(tuple(image.shape), f"from {image.min():.2f} to {image.max():.2f}:", caption)
print(english.attributes(0))
pictures(english.images(range(4)), [english.caption(i) for i in range(4)], "With English captions")
pictures(chinese.images(range(4)), [chinese.caption(i) for i in range(4)], "With Chinese captions")
compare({"the pictures": (english.images(range(4)), chinese.images(range(4)))})

# %% [markdown]
# None. `dataset[i]`, `.caption(i)`, `.attributes(i)` and `.images(indices)`: all three data sets have this interface,
# so that a training need not know which one it has.
#
# ## 3 What is held out
#
# A model must be examined on what it has not seen. We hold out a tenth of the *scenes*. Which ones? A **hash** turns
# text into a number that looks random and is the same on every machine, so we sort by it and take the first tenth.

# %% tags=["nbval-check-output"]
every = list(itertools.product(*SINGLE.values()))
every.sort(key=lambda values: hashlib.sha256("|".join(values).encode()).hexdigest())
heldout, train = every[: len(every) // 10], every[len(every) // 10 :]
print(len(train), "for training,", len(heldout), "held out, such as", heldout[0])
print("as in the library:", (*heldout,) == combinations("single", "heldout"))

# %% [markdown]
# Why not a tenth of the *pictures*, at random, as is usual? Let a "model" do nothing but memorise: asked for a scene,
# it answers with the scene from training that has most attributes in common with it.
#
# **Predict.** What share of its answers is right in all five attributes, if a tenth of 10,000 pictures is held out? And
# if a tenth of the scenes is?


# %% tags=["nbval-check-output"]
def numbers(scenes):
    places = [[row.index(v) for v, row in zip(scene, SINGLE.values(), strict=True)] for scene in scenes]
    return torch.tensor(places, device=device)  # (N, 5)


def memoriser(exam, known):
    exam, known = numbers(exam), numbers(known)  # (E, 5), (K, 5)
    answer = known[(exam[:, None] == known).sum(2).argmax(1)]  # most attributes in common
    right = answer == exam
    return {"single attributes right": right.float().mean(), "all five right": right.all(1).float().mean()}


shown = CaptionedShapes("all", 16, length=10_000)
scenes = [tuple(shown.attributes(i).values()) for i in range(len(shown))]  # in random order
exams = {"pictures": (scenes[9000:], scenes[:9000]), "scenes": (heldout, train)}
table([{"held out, a tenth of the": name} | memoriser(*exam) for name, exam in exams.items()])

# %% [markdown]
# All, and none. 1,920 scenes fill 10,000 pictures five times over, so a random exam asks only for what was seen, and
# learning by heart passes it. With whole scenes held out, the same table of memories gets *nothing* right. It still has
# four of five attributes right in each answer: that is why the course counts a picture as right only if all five are.
#
# And yet this exam is fair. Take the attributes of the held-out scenes one, two, three, four or five at a time.
#
# **Predict.** Which share of these parts has been seen together in training?

# %% tags=["nbval-check-output"]
rows = []
for count in range(1, 6):
    groups = list(itertools.combinations(range(5), count))
    seen = {(group, *(values[k] for k in group)) for values in train for group in groups}
    asked = [(group, *(values[k] for k in group)) for values in heldout for group in groups]
    share = sum(part in seen for part in asked) / len(asked)
    rows.append({"attributes taken together": count, "share seen in training": share})
table(rows)

colors, shapes = SINGLE["color"], SINGLE["shape"]
counts = Counter((values[1], values[2]) for values in heldout)
held = torch.tensor([[counts[color, shape] for shape in shapes] for color in colors])  # (8, 8)
alt = "Eight colours by eight shapes: of the 30 scenes of each pair 0 to 7 are held out, without a pattern."
heatmap(held, "Held-out scenes, of 30 for each pair", (colors, shapes), alt, digits=0)

# %% [markdown]
# Every single attribute, every two and every three were seen together, and no colour and shape lost more than 7 of
# their 30 scenes; only the whole is new. A whole understood from its parts is called **compositional**. A text-to-image
# model is for just that: nobody asks it for a picture that exists.
#
# ### A leak of our own
#
# Scenes can also have two objects (`scene="pair"`). Here, too, a tenth of the combinations is held out, 4,838 of
# 48,384.
#
# `draw_objects` paints one object of each scene; twice makes two.
#
# **Predict.** Most of these held-out *pictures* can be seen in training nevertheless. How?


# %% tags=["nbval-check-output"]
def draw(scenes):
    """Pictures of scenes, with nothing left to chance: (B, 3, 64, 64) in [-1, 1]."""
    ground = torch.tensor([COLORS[scene["background"]] for scene in scenes], device=device)  # (B, 3)
    canvas = ground[:, :, None, None].expand(-1, -1, 64, 64)
    for second in (False, True) if "shape2" in scenes[0] else (False,):
        canvas = draw_objects(canvas, scenes, torch.zeros(len(scenes), 7, device=device), second)
    return canvas * 2 - 1


from course_lib.data.shapes import told_from_the_other

known = set(combinations("pair", "train"))
leaks = [values for values in combinations("pair", "heldout") if told_from_the_other(values) in known]
print(f"held-out pairs that training shows, told from the other object: {len(leaks)} of 4838")
twins = [attributes_of(leaks[0]), attributes_of(told_from_the_other(leaks[0]))]
images = draw(twins)
pictures(images, [describe(scene) for scene in twins], "Held out, and in training")
compare({"the two pictures": (images[0], images[1])})

# %% [markdown]
# Each has two descriptions: a circle *left of* a star, a star *right of* a circle. For nine held-out pairs in ten the
# other one is in training; only the sentence is new. So `scene="mixed"`, which shows one object and two in turn, leaves
# these twins out of training (`told_from_the_other`). Ask of every exam: could the answer have been seen in another
# guise?
#
# ## 4 Emoji
#
# Emoji were drawn by people: 3,944 pictures in each of two styles, with names in English and Chinese. The first call
# brings them to one size and keeps them in your user account's cache (`cache_folder`). The style called OpenMoji needs
# two packages more; without them the cell says so and goes on.


# %% tags=["nbval-check-output"]
from collections.abc import Iterable, Mapping

from course_lib.errors import CourseError

try:
    emoji = CaptionedEmoji("all", 64, style="both")
except CourseError as error:
    print(f"This lesson goes on with Twemoji only. ({error})")
    emoji = CaptionedEmoji("all", 64)
place = {emoji.caption(i): i for i in range(len(emoji))}
names = ["otter", "bubble tea", "woman astronaut, dark skin tone", "cloud with rain"]
wanted = [name + style for style in ("", " in openmoji style") for name in names if name + style in place]
pictures(emoji.images([place[name] for name in wanted]), wanted, "The same names in two styles")
print(emoji.attributes(place["woman astronaut, dark skin tone"]))

# %% [markdown]
# *Twemoji graphics: Copyright 2019 Twitter, Inc and other contributors, licensed under
# [CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/). All OpenMoji emojis designed by
# [OpenMoji](https://openmoji.org), the open-source emoji and icon project, licensed under
# [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/). Both were laid on white and brought to 64 pixels.*
# These lines go wherever you publish the pictures, or models trained on them; `data/README.md` has the details.
#
# An otter is an otter, but 1,446 emoji are people: gender x role x skin tone. A tenth of them is held out, again by a
# hash, with one more condition: every *part* of what is held out must remain in training. `hold_out` counts how many
# are left.
#
# **Predict.** Of red apple, red car, green apple, green car and blue car, whose parts are their words, up to three are
# to be held out, and the hash puts "green apple" first. Which ones may follow? Which one could never be held out?


# %% tags=["lib:data.emoji.hold_out", "nbval-check-output"]
def hold_out(parts: Mapping[str, set], candidates: Iterable[str], count: int) -> list[str]:
    """Chooses by a hash, so that every part of a chosen one is also a part of something not chosen."""
    left = Counter(part for each in parts.values() for part in each)
    chosen = []
    for name in sorted(candidates, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if len(chosen) < count and all(left[part] > 1 for part in parts[name]):
            chosen.append(name)
            left.subtract(parts[name])
    return chosen


# %% tags=["nbval-check-output"]
things = ["red apple", "red car", "green apple", "green car", "blue car"]
print(hold_out({name: set(name.split()) for name in things}, things, count=3))

people, exam = CaptionedEmoji("train", 64), CaptionedEmoji("heldout", 64)
asked = next(i for i in range(len(exam)) if exam.caption(i) == "woman detective, medium skin tone")
target = exam.attributes(asked)
near = []
for changed in ("skin_tone", "gender", "role"):
    same = {name: value for name, value in target.items() if name != changed}.items()
    near.append(next(i for i in range(len(people)) if same <= people.attributes(i).items()))
captions = ["asked: " + exam.caption(asked)] + ["known: " + people.caption(i) for i in near]
images = torch.cat([exam.images([asked]), people.images(near)])
pictures(images, captions, f"One of {len(exam)} held-out people, and what training knows")

# %% [markdown]
# After "green apple", green and apple have one place left each, so only "red car" may follow. "Blue car" never could:
# blue occurs nowhere else.
#
# For people the parts are all *twos* of gender, role and skin tone, as in the figure: a woman detective, a detective of
# that skin tone and a woman of that skin tone are known; all three together are asked for. Of things, the split
# `unseen` holds out 135 names whose words occur in other names: "green book" is asked for after "green circle" and
# "blue book". (`split_of` and `catalogue` have it all, one `Emoji` each.)
#
# ## 5 A folder of your own
#
# `CaptionedFolder` reads pictures of your own. Their captions stand in `metadata.jsonl`, a line for each, in
# `metadata.csv` with the columns `file_name` and `text`, or in `name.txt` beside `name.jpg`. Here is a small folder
# that has everything which goes wrong in large ones. (It is deleted when you close the notebook.)

# %% tags=["nbval-check-output"]
import json
import tempfile

from course_lib.images import prepare_image, save_image, to_pil

room = tempfile.TemporaryDirectory()
folder = Path(room.name) / "my_pictures"
star, ring_image, heart = draw([scene | {"shape": name} for name in ("star", "ring", "heart")])
save_image(heart, folder / "heart.png")
save_image(torch.cat([star, ring_image], 2), folder / "wide.png")  # (3, 64, 128)
(folder / "cut.png").write_bytes((folder / "heart.png").read_bytes()[:200])


def write_captions(folder, rows):
    entries = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    (folder / "metadata.jsonl").write_text("\n".join(entries), encoding="utf-8")


rows = [("heart.png", "a heart"), ("wide.png", "a star left of a ring"), ("cut.png", "half a download")]
rows += [("heart.png", "a heart"), ("wide.png", " "), ("gone.png", "moved away"), ("../x.png", "elsewhere")]
write_captions(folder, rows)

# %% [markdown]
# **Predict.** There are seven lines. How many of them can be used? And what happens to the wide picture, when its
# middle square is cut out?

# %% tags=["nbval-check-output"]
import warnings

from course_lib.data.audit import HASH_STEP, audit, brightness, near_pairs, shrink

try:
    CaptionedFolder(folder, 64)
except CourseError as error:
    first, *_, last = str(error).replace(str(folder), "my_pictures").splitlines()
    print(first, "...", last)

with warnings.catch_warnings(action="ignore"):  # we look at the problems ourselves
    mine = CaptionedFolder(folder, 64, "all", max_bad=1)
    padded = CaptionedFolder(folder, 64, "all", max_bad=1, fit="pad")
table([{"file": problem.file, "reason": problem.reason} for problem in mine.problems])
wide = [mine.caption(i) for i in range(len(mine))].index("a star left of a ring")
shown = [mine[wide], padded[wide]]
captions = [f'fit="{fit}": {caption}' for fit, (_, caption) in zip(("crop", "pad"), shown, strict=True)]
pictures(torch.stack([image for image, _ in shown]), captions, "Made square")

# %% [markdown]
# Two: more than 5 % of bad lines is an error, unless you allow it; nothing is dropped in silence. And cropping (lesson
# 01) has made a caption false: there is no star any more, and no ring. Where captions name what stands at the sides,
# use `fit="pad"`.
#
# Put your folder's path in place of `folder` in the cell above, and read `mine.problems` first. A tenth of the file
# *names*, by hash, is the exam (`is_held_out`); a picture that you add moves no other one. `captions_of` reads
# published data sets that lie on your disk (`coco_captions`, `flickr8k_captions`, `flowers102_captions`). (A popular
# article also names Open Images as a set of pictures with texts; by itself it has labels and boxes: lesson 17.)
#
# ## 6 The audit
#
# The same article advises to choose data by **amount, diversity, quality and annotation**. `audit` makes numbers of
# these words. Two of its measures:
#
# *Sharpness.* At each pixel, add up the four neighbours and subtract the pixel four times. Along a row with a hard
# edge, 0, 0, 1, 1, the middle two give 1 and -1; with a soft one, 0, ⅓, ⅔, 1, they give 0. The variance of this,
# divided by that of the picture, is near 0 if a picture is blurred.
#
# *Hash.* Average the picture's `brightness` down to 16 x 17 cells (`shrink`), and note for each whether its right
# neighbour is brighter. Copies agree in nearly all of these 256 bits.
#
# **Predict.** A red star is changed in five ways: brighter, shrunk to 16 pixels and enlarged again, moved by two
# pixels, painted blue, replaced by a circle. In which cases do at most 10 bits differ?


# %% tags=["lib:data.audit.sharpness", "lib:data.audit.difference_hash", "nbval-check-output"]
def sharpness(images: Tensor) -> Tensor:
    """Variance of the Laplacian over that of the picture: (B, 3, H, W) -> (B,), near 0 when blurred."""
    around = images[..., :-2, 1:-1] + images[..., 2:, 1:-1] + images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    edges = around - 4 * images[..., 1:-1, 1:-1]  # (B, 3, H - 2, W - 2)
    return edges.flatten(2).var(2).sum(1) / images.flatten(2).var(2).sum(1).clamp(min=1e-6)


def difference_hash(images: Tensor) -> Tensor:
    """dHash: is the right neighbour of each cell brighter? (B, 3, H, W) -> (B, 256) of 0 and 1."""
    cells = shrink(brightness(images)[:, None], 16, 17)[:, 0]  # (B, 16, 17)
    return (cells[:, :, 1:] - cells[:, :, :-1] > HASH_STEP).flatten(1).float()


# %% tags=["nbval-check-output"]
plain = scene | {"shape": "star", "color": "red"}
original, blue, circle_image = draw([plain, plain | {"color": "blue"}, plain | {"shape": "circle"}]).cpu()
tiny = prepare_image(to_pil(original).resize((16, 16)), 64)  # small, then enlarged again
changes = {"the original": original, "a little brighter": original * 0.9 + 0.1, "16 pixels, enlarged": tiny}
changes |= {"moved by 2 pixels": original.roll(2, 2), "another color": blue, "another shape": circle_image}
images = torch.stack(list(changes.values()))
pictures(images, list(changes), "Which are copies?", columns=3)
hashes, thumbnails = difference_hash(images), shrink(images, 12, 12).flatten(1)  # (6, 256), (6, 432)
copies = near_pairs((hashes[:1], thumbnails[:1]), (hashes, thumbnails))[:, 1].tolist()
columns = {"bits that differ": (hashes != hashes[0]).sum(1), "sharpness": sharpness(images)}
columns["largest difference of thumbnails"] = (thumbnails - thumbnails[0]).abs().amax(1)
rows = [{name: column[i] for name, column in columns.items()} for i in range(len(images))]
table([{"": name} | rows[i] | {"a copy": i in copies} for i, name in enumerate(changes)])

# %% [markdown]
# Brighter, enlarged, and blue: a hash of brightness is nearly blind to colour. So `near_pairs` asks a second witness, a
# thumbnail of 12 x 12 cells, none of which may differ by more than 0.2; only what both take for the same is a copy. The
# enlarged picture's sharpness is 0.018; below 0.04 we call a picture blurred.
#
# Now a whole folder, 1,200 shapes written to disk. `audit` takes its measures (`measure`) and compares each with a limit
# (`judge`, `Limit`): *ok*, *look* or *spoils*. The last line is what the emoji are asked to look at.

# %% tags=["nbval-check-output"]
source = CaptionedShapes("train", 32, length=1200)
good = Path(room.name) / "good"
rows = [(f"{i:04}.png", source.caption(i)) for i in range(len(source))]
for (name, _), image in zip(rows, source.images(range(len(source))), strict=True):
    save_image(image, good / name)
write_captions(good, rows)

clean = CaptionedFolder(good, 32)
clean_report = audit(clean, heldout=clean.with_split("heldout"))
print(clean_report.table())
emoji_report = audit(people, 500, exam)
print("Emoji:", {check.name: round(check.value, 2) for check in emoji_report.checks if check.verdict != "ok"})

# %% [markdown]
# The good folder is good. Of the words in the emoji's names, though, 72 % occur in one name only; a model that reads
# them must know them from elsewhere.
#
# Now we damage a copy of the folder in five ways, a tenth of its 1,200 files each: thumbnails, copies under other
# names, lost captions, broken files, and one caption for all.
#
# **Predict.** A copy hurts training little. Why does it hurt the *exam*, the tenth that is held out by file name?

# %% tags=["nbval-check-output"]
bad = Path(shutil.copytree(good, Path(room.name) / "bad"))
damaged_rows = dict(rows)
for i in range(120):
    one, two, three, four, five = (bad / f"{i + start:04}.png" for start in range(0, 600, 120))
    to_pil(source[i][0]).resize((8, 8)).save(one)  # a thumbnail
    shutil.copy(bad / f"{i + 1000:04}.png", two)  # a copy, under the caption of another picture
    four.write_bytes(four.read_bytes()[:100])
    damaged_rows |= {three.name: "", five.name: "untitled"}
write_captions(bad, damaged_rows.items())

with warnings.catch_warnings(action="ignore"):
    damaged = CaptionedFolder(bad, 32, max_bad=1)
damaged_report = audit(damaged, heldout=damaged.with_split("heldout"))
print(damaged_report.table())
overview = damaged_report.figure()
show(overview, overview.alt_text)

# %% [markdown]
# Copies have other names, so one lands in training and its twin in the exam: 21 % of the exam was seen before. This
# happens to the best: a tenth of the test pictures of CIFAR-100, a data set used everywhere, has a near copy in the
# training set (Barz and Denzler 2020).
#
# Each damage left its trace. Broken files and lost captions make up the fifth that is unusable. The thumbnails are the
# small hill in the first panel; the cautious limit of sharpness finds six in ten of them, their size in pixels tells
# all. "Untitled" is the single word in the second panel and the last one in the third.
#
# ### What none of them notices
#
# In the good folder, give every picture the caption of the next one, as happens when a line is lost in one of two
# lists.
#
# **Predict.** Which of these checks notice?

# %% tags=["nbval-check-output"]
from course_lib.alignment import load_alignment

names, texts = zip(*clean.usable, strict=True)
shifted = CaptionedFolder(good, 32, captions=list(zip(names, texts[1:] + texts[:1], strict=True)))
model, tokenizer = load_alignment("align-shapes-32", device)
rows = []
for name, dataset in (("good", clean), ("shifted by one", shifted)):
    report = audit(dataset, scorer=lambda images, texts: model.similarity(images, texts, tokenizer))
    *others, match = report.checks
    rows.append({"folder": name, "complaints of the others": sum(c.verdict != "ok" for c in others)})
    rows[-1] |= {match.name: match.value, "verdict": match.verdict}
table(rows)
pictures(shifted.images(range(4)), [shifted.caption(i) for i in range(4)], "Shifted by one")

# %% [markdown]
# None. Pictures alone are fine, captions alone are fine, and all of it is false. Only the last measure notices: a
# network that learned which words go with which pictures (lesson 08 trains it) says how often a picture fits its own
# caption better than that of another. In the good folder always; in the shifted one half of the time, as by tossing a
# coin.
#
# For your own pictures there is no such network at first. So look at thirty of them, with their captions. The explorer
# turns the pages of all data sets of this lesson, searches their captions and frames what the audit flags. Have it show
# only the near-duplicates of the damaged folder, and search for "untitled". **Predict**, then look: emoji are drawn one by
# one. Which of them are near-duplicates?

# %% tags=["explorer"]
from course_lib.widgets import dataset_browser

dataset_browser("damaged folder", own={"damaged folder": damaged})

# %% [markdown]
# Families. One blue sign stands for "family man girl boy", "family woman boy boy" and more: four names, and not a pixel
# tells which is meant. No training can learn that. In the damaged folder, original and copy stand side by side under
# two captions, and 100 pictures are "untitled". But read flags as questions: among the shapes, a small square and a small
# disc in one place are taken for copies.
#
# For the whole of your own folder, `course audit FOLDER`, typed in a terminal, does the rest.
#
# The rest of `course_lib/data/`, to be read when it comes up: `scene_of` (one object or two), `pictures` (the cache of
# the emoji), `read_captions`, `usable` and `Problem` (what a folder holds), `contrast`, `Check` and `AuditReport` (the
# audit).
#
# ## What changed in the library
#
# The room `data/` is furnished: `CaptionedShapes`, `CaptionedEmoji` and `CaptionedFolder` feed every training to come.
#
# ## Three questions
#
# 1. Someone holds out all pink scenes, so that the exam is really new. Is it a better exam?
#
# <details><summary>Answer</summary>
#
# No, an impossible one. The word "pink" and the colour never met in training, so nobody could know what it means. What
# is held out must be made of known parts.
#
# </details>
#
# 2. Two shapes have the signed distances $a$ and $b$. What is the first without the second? What is the region that lies in
#    exactly one of them?
#
# <details><summary>Answer</summary>
#
# $\max(a, -b)$, as in `crescent`. In exactly one: the union of both differences, $\min(\max(a, -b), \max(b, -a))$.
#
# </details>
#
# 3. You find near-duplicates among your training pictures, and delete one of each two. What did you forget?
#
# <details><summary>Answer</summary>
#
# Those with one picture in training and one in the exam. And look at their captions: if two captions of one picture
# contradict each other, at least one is wrong.
#
# </details>
#
# ## Papers
#
# - Justin Johnson and others (2017), *CLEVR: A Diagnostic Dataset for Compositional Language and Elementary Visual Reasoning*:
#   drawn scenes, whose truth is known, with held-out combinations of colour and shape.
#   [arXiv:1612.06890](https://arxiv.org/abs/1612.06890)
# - Brenden Lake and Marco Baroni (2018), *Generalization without Systematicity*: networks that know the parts and fail at the
#   whole. [arXiv:1711.00350](https://arxiv.org/abs/1711.00350)
# - Björn Barz and Joachim Denzler (2020), *Do We Train on Test Data? Purging CIFAR of Near-Duplicates*.
#   [arXiv:1902.00423](https://arxiv.org/abs/1902.00423)
# - Timnit Gebru and others (2021), *Datasheets for Datasets*: what to write down about the data that you publish.
#   [arXiv:1803.09010](https://arxiv.org/abs/1803.09010)
# - José Luis Pech-Pacheco and others (2000), *Diatom autofocusing in brightfield microscopy*: sharpness as the variance of the
#   Laplacian. [doi:10.1109/ICPR.2000.903548](https://doi.org/10.1109/ICPR.2000.903548)
#
# Next: lesson 03 puts a number on how wrong a network is.
