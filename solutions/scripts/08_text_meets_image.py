# %% [markdown]
# # Exercises 08 · Text meets image
#
# Five exercises to lesson 08, 80 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Which captions fit? | ★★☆☆☆ | 10 | 2 |
# | 2 | Recall, and a lot for ties | ★★★☆☆ | 20 | 4 |
# | 3 | Find the bug: a loss that praises length | ★★☆☆☆ | 15 | 3 |
# | 4 | Several right answers | ★★★★☆ | 25 | 4 |
# | 5 | In your own words: a heart that is not blue | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.alignment import load_alignment
from course_lib.checks.alignment import check_clip_loss, check_fitting, check_matching_loss, check_recall_at_k
from course_lib.data import CaptionedShapes
from course_lib.data.captions import describe
from course_lib.lesson import pictures, setup, table

device = setup()

# %% [markdown]
# ## 1 Which captions fit?
#
# ★★☆☆☆ · 10 minutes · 2 points
#
# **Why.** The lesson's mask knows *equal* captions. But "a red circle" fits every picture of a red circle, also one
# whose own caption is "a large red circle on gray". Who calls that a mistake, in a loss or in an exam, is wrong.
#
# **Write** `fitting`. A scene has all its attributes; a caption has those that it mentions. A caption fits if all that
# it says is so; what it leaves out may be anything.
#
# **Expected.** For a large red circle and a small red circle, and the captions "red", "large circle" and "blue circle":
# the rows 110 and 100 (1 is True).
#
# <details><summary>Hint 1: one pair</summary>
#
# Go through the attributes that the *caption* mentions, and compare each with the scene's. All must agree.
#
# </details>
#
# <details><summary>Hint 2: Python's word for it</summary>
#
# `all(... for name, value in caption.items())`. For a caption that says nothing, `all` of nothing is True: it fits.
#
# </details>
#
# <details><summary>Hint 3: the table</summary>
#
# A list of rows, one for each scene, each a list with one entry for each caption: `torch.tensor` makes a bool tensor
# of it.
#
# </details>


# %% tags=["solve:fitting"]
def fitting(scenes: list[dict[str, str]], captions: list[dict[str, str]]) -> Tensor:
    """Which captions are true of which pictures.

    Args:
        scenes: N pictures, each with all its attributes, such as {"size": "large", "color": "red", "shape": "circle"}.
        captions: M captions, each with the attributes that it mentions, such as {"color": "red"}.
    Returns:
        (N, M) bool; row i, column j is True if all that caption j says is so in picture i.
    """
    ### BEGIN SOLUTION
    return torch.tensor(
        [[all(scene[name] == said[name] for name in said) for said in captions] for scene in scenes]
    )
    ### END SOLUTION


# %% tags=["check:fitting:2"]
check_fitting(fitting)
### BEGIN HIDDEN TESTS
check_fitting(fitting, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Collect twenty photographs of your own and write three captions for each, from "a cat" to a whole
# sentence. Fill in the table of what fits by hand. How many of its ones lie off the diagonal?
#
# ## 2 Recall, and a lot for ties
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Equal captions have equal cosines. If only captions that are *better* than the own one stand before it, it
# wins all ties: then an encoder that gives the same vector to everything has an R@1 of 100 %. If those that are *as
# good* stand before it too, it loses all ties: then a caption that is there twice is never found. It is fair to draw
# lots.
#
# **Write** `recall_at_k`. It draws no lot, but gives the mean over all lots: where the own caption shares its cosine
# with others, the chance that it is among the first k.
#
# **Expected.** One picture whose own caption has 0.8, among three others. 0.9, 0.1, 0.1: 0 for k = 1 and 1 for k = 2.
# 0.9, 0.8, 0.8: 0, then 1/3, then 2/3, then 1 for k = 4. If all of M cosines are equal: k/M.
#
# <details><summary>Hint 1: two numbers</summary>
#
# For each picture count the captions that are better than its own, and those that are equal, its own among them.
#
# </details>
#
# <details><summary>Hint 2: places left</summary>
#
# The better ones take the first places. So k minus the number of better ones are left for the equal ones, who draw
# lots.
#
# </details>
#
# <details><summary>Hint 3: the chance</summary>
#
# Places left, divided by how many draw: but never below 0, and never above 1. `similarity.diagonal()` are the own
# cosines; give them a second dimension, `[:, None]`, before you compare.
#
# </details>


# %% tags=["solve:recall-at-k"]
def recall_at_k(similarity: Tensor, k: int) -> float:
    """R@k: the share of pictures whose own caption is among the k nearest, where ties are decided by lot.

    Args:
        similarity: (N, M), pictures in rows, M >= N captions in columns; caption i belongs to picture i, and those
            from N on belong to nobody.
        k: how many captions count, 1 to M.
    Returns:
        The mean over all lots, in [0, 1]. Cosines are a tie only if they are exactly equal.
    """
    ### BEGIN SOLUTION
    own = similarity.diagonal()[:, None]  # (N, 1)
    better, equal = (
        (similarity > own).sum(1),
        (similarity == own).sum(1),
    )  # (N,), the own one is equal to itself
    return ((k - better) / equal).clamp(0, 1).mean().item()
    ### END SOLUTION


# %% tags=["check:recall-at-k:4"]
check_recall_at_k(recall_at_k)
### BEGIN HIDDEN TESTS
check_recall_at_k(recall_at_k, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now 300 pictures and the lesson's shipped model. The first captions say everything; the second ones say only colour
# and shape, so many of them are equal. Compute for each: `own`, the R@1 of your function, and `any_that_fits`, the
# share of pictures whose *nearest* caption fits (`argmax` and your table of exercise 1). Before you run it: what will
# `own` be for the second ones?

# %%
model, tokenizer = load_alignment("align-shapes-32")
shapes = CaptionedShapes("all", 32, seed=5, length=300)
scenes = [shapes.attributes(i) for i in range(300)]
short = [{"color": scene["color"], "shape": scene["shape"]} for scene in scenes]
similarities = {}
for name, captions in (("everything", scenes), ("colour and shape", short)):
    texts = [describe(caption) for caption in captions]
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}  # of each wording, once
    cosines = model.similarity(shapes.images(range(300)), list(place), tokenizer)
    similarities[name] = cosines[:, [place[text] for text in texts]]  # equal captions have equal cosines

# %% tags=["solve:own-or-any"]
rows = []
for name, captions in (("everything", scenes), ("colour and shape", short)):
    similarity = similarities[name]  # (300, 300)
    ### BEGIN SOLUTION
    own = recall_at_k(similarity, 1)
    any_that_fits = fitting(scenes, captions)[range(300), similarity.argmax(1)].float().mean().item()
    ### END SOLUTION
    rows.append(
        {"captions say": name, "R@1, own caption": f"{own:.1%}", "nearest one fits": f"{any_that_fits:.1%}"}
    )
table(rows)

# %% [markdown]
# **Going further.** AttnGAN (Xu and others, 2018) compares a picture with a caption *word by word*. Give every one of
# the 4 x 4 places before the image encoder's last layer a vector, let each word of the caption (`embed_tokens`) attend
# to the places, and take for the similarity the mean cosine of each word with what it found. Train it with the lesson's
# loss. Draw for each word where it looked: does "circle" look at the circle?
#
# ## 3 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The loss below runs, and it falls during a training. There are three mistakes in it, and each shows in one of
# the lines.


# %%
def confused_loss(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    logits = images @ texts.T * temperature
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits, labels)) / 2


perfect = torch.eye(64)  # 64 pictures, each exactly on its caption, and at right angles to all strangers
print(
    f"perfect pairs: {confused_loss(perfect, perfect, 0.1):.3f}; knowing nothing is ln 64 = {math.log(64):.3f}"
)
long = 30 * perfect
print(f"the same directions, 30 times as long: {confused_loss(long, long, 0.1):.3f}")
one, two = 5 * torch.randn(2, 64, 4)
print(
    f"pictures and captions: {confused_loss(one, two, 0.1):.3f}; exchanged: {confused_loss(two, one, 0.1):.3f}"
)

# %% [markdown]
# **Find** them, and **write** the loss as it should be.
#
# **Expected.** Perfect pairs cost 0.003 at the temperature 0.1, whatever their lengths; pictures and captions can be
# exchanged. A vector of zeros, which has no direction, does not lead to a loss that is not a number.
#
# <details><summary>Hint 1: perfect, and no better than nothing</summary>
#
# Cosines are at most 1. Which logits are at most 0.1 then? The scale is one over the temperature.
#
# </details>
#
# <details><summary>Hint 2: length</summary>
#
# A training can make vectors longer and longer, and the loss falls though no picture gets nearer to its caption. Only
# the direction should count. (`course_lib.alignment` and `torch.nn.functional` can both make unit vectors.)
#
# </details>
#
# <details><summary>Hint 3: twice the same</summary>
#
# Each picture must pick its caption, and each caption its picture. Here both halves are computed along the rows.
#
# </details>


# %% tags=["solve:clip-loss"]
def clip_loss(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Each picture must pick its caption, each caption its picture.

    Args:
        images, texts: (B, E) of any length; row i of both belong together. A vector of zeros has the cosine 0 with all.
        temperature: the cosines are divided by it.
    Returns:
        () in nats: the mean of both costs, each a mean over the batch.
    """
    ### BEGIN SOLUTION
    logits = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    ### END SOLUTION


# %% tags=["check:clip-loss:3"]
check_clip_loss(clip_loss)
### BEGIN HIDDEN TESTS
check_clip_loss(clip_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** *Hard negatives*: choose the 64 pairs of a batch so that they are near each other, for instance 8
# groups of 8 that differ in one attribute only. Train the lesson's model with such batches and with random ones. Which
# learns faster, and which is better at telling shapes apart?
#
# ## 4 Several right answers
#
# ★★★★☆ · 25 minutes · 4 points
#
# **Why.** Real captions are short, so in a large batch many fit many pictures. The lesson *leaves out* the captions
# that are equal to the own one. One can also count all that fit as *right*: a picture that gives its whole share to
# captions that fit has made no mistake, whichever they are.
#
# **Write** `matching_loss`. A picture pays $-\log$ of the *sum* of the shares that the captions which fit it get; a
# caption likewise for the pictures which it fits. The loss is the mean of both means. No `cross_entropy` here: it knows
# one right answer only.
#
# **Expected.** With logits of zeros for three pairs: 1.099 if only the own caption fits, and 0 if all fit. In the
# lesson perfect vectors of two red circles and a blue square cost 0.462 without a mask; here, at the scale 10, they
# cost 0.000.
#
# <details><summary>Hint 1: the log of a share</summary>
#
# A logit minus the `logsumexp` of its row. If several are right, in place of "a logit" stands the logarithm of the sum
# of their exponentials: again a `logsumexp`, of them alone.
#
# </details>
#
# <details><summary>Hint 2: of them alone</summary>
#
# What does not fit shall add nothing: $e^{-\infty} = 0$. `masked_fill` puts `-torch.inf` where a mask is True. Summing
# probabilities first and taking the logarithm then fails for large logits: the sum is rounded to 0.
#
# </details>
#
# <details><summary>Hint 3: the captions' side</summary>
#
# The same with both tables transposed. The table of what fits is *not* symmetric: "red" fits the large red circle, but
# "large red circle" does not fit every red thing.
#
# </details>


# %% tags=["solve:matching-loss"]
def matching_loss(logits: Tensor, fits: Tensor) -> Tensor:
    """The contrastive loss if several captions fit a picture, and all of them are right.

    Args:
        logits: (B, B), pictures in rows, captions in columns.
        fits: (B, B) bool, True where the caption fits the picture; True on the whole diagonal.
    Returns:
        () in nats, finite for logits of any size; 0 if nothing is given to what does not fit.
    """

    ### BEGIN SOLUTION
    def cost(logits: Tensor, fits: Tensor) -> Tensor:
        right = logits.masked_fill(~fits, -torch.inf)
        return (logits.logsumexp(1) - right.logsumexp(1)).mean()

    return (cost(logits, fits) + cost(logits.T, fits.T)) / 2
    ### END SOLUTION


# %% tags=["check:matching-loss:4"]
check_matching_loss(matching_loss)
### BEGIN HIDDEN TESTS
check_matching_loss(matching_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Khosla and others (2020) compare two ways to have several right answers: the logarithm of the sum,
# as here, and the mean of the logarithms. Which of them also asks that *every* fitting caption gets its share? Train
# the lesson's model with captions that leave things out (`captions="varied"`) and both losses.
#
# ## 5 In your own words: a heart that is not blue
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# To use a model for something that it was not trained for, without one more example, is called **zero-shot**. Large
# models are often good at it. Ours is asked five things; each row shows the six nearest of all 1,920 pictures.

# %%
album = CaptionedShapes("all", 32, length=1920)
queries = ["a heart", "a heart that is not blue", "a red square above a blue circle", "upper left", "music"]
cosines = model.similarity(album.images(range(1920)), queries, tokenizer)
nearest = cosines.topk(6, dim=0)
for query, best in zip(queries, nearest.values[0].tolist(), strict=True):
    print(f"{query:34} cosine with the nearest picture: {best:.2f}")
pictures(
    album.images(nearest.indices.T.flatten().tolist()),
    title="Five questions and their six nearest pictures",
    columns=6,
    alt="Five rows of six pictures: red hearts; blue hearts; blue circles and squares; red and pink rings and "
    "circles at the top left; red squares and a circle.",
)

# %% [markdown]
# In six sentences or fewer:
#
# 1. Why does "not blue" find blue hearts? What would have to be among the training pairs, so that it learned "not"?
# 2. The third question names two objects. Every picture of the training held one. What can the vector of such a caption
#    not say, whatever the words?
# 3. A friend proposes: "if the best cosine is below 0.7, answer: I know no such thing". Use the numbers above to say
#    why that is no remedy, and name a better one.

# %% [markdown] tags=["explain:zero-shot:3"]
# <!-- BEGIN SOLUTION -->
# 1. No caption of the training says what is *not* there, so "not" never made a difference. The model has learned to
#    ignore strange words, and "blue" and "heart" do what they always do. It would need pairs of a caption with "not"
#    and a picture of another colour, beside strangers that only "not" tells apart, such as a blue heart (1 point).
# 2. Which colour belongs to which shape, and what stands where. With one object there is one colour and one shape, so
#    it was enough to note *that* red, blue, square and circle occur; who has which never had to be kept in one vector
#    (1 point).
# 3. "Music" gets 0.77 and would be answered; "upper left" gets 0.57 and would be refused, though all six pictures are
#    right. A cosine says which picture is nearest, not whether the question was understood. Better: compare the words
#    of the question with those of the training, as `course generate` does; or train with questions that no picture
#    fits (1 point).
# <!-- END SOLUTION -->
