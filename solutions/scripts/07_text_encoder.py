# %% [markdown]
# # Exercises 07 · Text encoder
#
# Five exercises to lesson 07, 90 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Cut a word by its merges | ★★☆☆☆ | 20 | 3 |
# | 2 | A mask with a window | ★★☆☆☆ | 20 | 3 |
# | 3 | Attention for those who see nothing | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: a text that guesses itself | ★★☆☆☆ | 15 | 3 |
# | 5 | In your own words: three ways to spoil an encoder | ★★★☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.text_encoder import (
    check_apply_merges,
    check_attention,
    check_next_token_loss,
    check_window_mask,
)
from course_lib.lesson import heatmap, setup

device = setup()

# %% [markdown]
# ## 1 Cut a word by its merges
#
# ★★☆☆☆ · 20 minutes · 3 points
#
# **Why.** The lesson *learned* merges. This is the other half, which runs for every prompt: given the merges, cut a word
# into pieces. If it does not cut exactly as in training, the network reads ids that it has never seen together.
#
# **Write** `apply_merges` with plain lists, without `course_lib.tokenizer`.
#
# **Expected.** `[1, 1, 1]` with the one merge (1, 1) becomes `[256, 1]`. `[1, 2, 3]` with the merges (1, 2) and
# (256, 3) becomes `[257]`; with (2, 3) and (1, 2) it becomes `[1, 256]`.
#
# <details><summary>Hint 1: which loop is outside</summary>
#
# The first merge is made everywhere in the word, then the second on what has become of it, and so on.
#
# </details>
#
# <details><summary>Hint 2: one merge</summary>
#
# Walk from left to right and build a new list. If this id and the next are the pair, the new id goes in, and you walk
# on by two; else the id itself goes in, and you walk on by one.
#
# </details>
#
# <details><summary>Hint 3: the end of the word</summary>
#
# A `while i < len(ids)` can take steps of two, a `for` cannot. The slice `ids[i : i + 2]` is shorter at the end and
# raises no error; compare it with `list(pair)`.
#
# </details>


# %% tags=["solve:apply-merges"]
def apply_merges(ids: list[int], merges: list[tuple[int, int]]) -> list[int]:
    """Cut a word into the pieces that were learned.

    Args:
        ids: of the word, at first its bytes.
        merges: pairs of ids, in the order in which they were learned; the first makes the id 256, the next 257, ...
    Returns:
        the ids after all merges, each made everywhere in the word, from left to right.
    """
    ### BEGIN SOLUTION
    for new_id, pair in enumerate(merges, start=256):
        merged, i = [], 0
        while i < len(ids):
            found = ids[i : i + 2] == list(pair)
            merged.append(new_id if found else ids[i])
            i += 2 if found else 1
        ids = merged
    return ids
    ### END SOLUTION


# %% tags=["check:apply-merges:3"]
check_apply_merges(apply_merges)
### BEGIN HIDDEN TESTS
check_apply_merges(apply_merges, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Leave out each merge with a chance of one tenth: the same word is then cut in many ways, and a
# network that reads them all learns from which letters a word is made (*BPE dropout*, Provilkov and others, 2020). How
# much longer do captions become?
#
# ## 2 A mask with a window
#
# ★★☆☆☆ · 20 minutes · 3 points
#
# **Why.** In attention every token looks at all before it: twice the length, four times the work. Some language models
# let most layers look only a *window* back. A mask that is wrong by one place lets a token see the answer, or hides it
# from itself; nothing fails, and the loss looks good.
#
# **Write** `window_mask`. Position t may look at position s if s is not after t, if s is among the last `window`
# positions (t itself counts as one of them), and if s is real. And t may always look at itself.
#
# **Expected.** For four real tokens and a window of 2, the rows 1000, 1100, 0110 and 0011 (1 is True). If the first
# token is padding: 1000, 0100, 0110, 0011.
#
# <details><summary>Hint 1: how far back</summary>
#
# With `places = torch.arange(T)`, the table `places[:, None] - places` holds t - s: row t, column s.
#
# </details>
#
# <details><summary>Hint 2: both conditions</summary>
#
# For which values of t - s is s seen? Compare twice and join with `&`.
#
# </details>
#
# <details><summary>Hint 3: padding</summary>
#
# It hides *columns*: `mask[:, None, :]` has the shape (B, 1, T) and meets every row. Itself is joined with `|`, at the
# end. The result needs a dimension for the heads.
#
# </details>


# %% tags=["solve:window-mask"]
def window_mask(mask: Tensor, window: int) -> Tensor:
    """Who may look at whom, if nobody looks ahead, at padding, or far back.

    Args:
        mask: (B, T) bool, True where an id is real.
        window: at how many positions a token may look at most, itself included; 1 or more.
    Returns:
        (B, 1, T, T) bool; row t, column s is True where t may look at s.
    """
    ### BEGIN SOLUTION
    places = torch.arange(mask.shape[1], device=mask.device)
    behind = places[:, None] - places  # (T, T): how far s lies behind t
    near = (behind >= 0) & (behind < window)
    return ((near & mask[:, None, :]) | (behind == 0))[:, None]
    ### END SOLUTION


# %% tags=["check:window-mask:3"]
check_window_mask(window_mask)
### BEGIN HIDDEN TESTS
check_window_mask(window_mask, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Two layers of attention, one after the other: whom does the second reach? Draw it for eight tokens and a window of 3.
# The matrix product of the mask with itself counts the ways from t to s; where there is one, s is reached.

# %% tags=["solve:reach"]
### BEGIN SOLUTION
looks_at = window_mask(torch.ones(1, 8, dtype=torch.bool), 3)[0, 0].float()
reached = (looks_at @ looks_at > 0).float()
### END SOLUTION
places = [str(place) for place in range(8)]
heatmap(
    reached,
    "Whom two layers reach (row: who looks)",
    (places, places),
    alt="A table of eight rows and eight columns, 1 where two layers together reach from the row's token to the "
    "column's.",
    digits=0,
)

# %% [markdown]
# **Going further.** How many layers does a caption of 30 tokens need, until `<end>` has heard of `<start>`? Change the
# mask of a `TextEncoder`, train it like the lesson's, and compare the loss.
#
# ## 3 Attention for those who see nothing
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** In lesson 11 the *pixels* of a generator ask the words of a caption; then queries and keys come from different
# places, and an empty caption has no word at all. A softmax over nothing is 0/0, and one such number spoils the whole
# network at its next step.
#
# **Write** `attention` for this case: T queries, S keys and values, values of another width than keys. Who may look at
# nothing gets zeros. Use no `scaled_dot_product_attention`.
#
# **Expected.** With queries of zeros, a query that may look at two keys gets the mean of their two values. A query
# `[2, 2, 2, 2]` and the keys `[1, 1, 1, 1]` and `[0, 0, 0, 0]`: the scores are 4 and 0, the weights 0.982 and 0.018.
#
# <details><summary>Hint 1: the order of the steps</summary>
#
# Products, divided by the root of D; hide; softmax over the keys; weighted sum of the values.
#
# </details>
#
# <details><summary>Hint 2: hide</summary>
#
# A hidden score is minus infinity *before* the softmax, so that the other weights still sum to 1.
#
# </details>
#
# <details><summary>Hint 3: the empty rows</summary>
#
# `mask.any(-1, keepdim=True)` tells who sees something. Let the others look at everything, so that their softmax is a
# number, and multiply their answers by 0 at the end.
#
# </details>


# %% tags=["solve:attention"]
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(query keyᵀ / √D) value, where only some keys are seen.

    Args:
        query: (B, T, D).
        key: (B, S, D).
        value: (B, S, E).
        mask: (B, T, S) bool, True where a query may look at a key; a row may be empty.
    Returns:
        (B, T, E); zeros for a query that may look at nothing. Finite for scores of any size, and so are its slopes.
    """
    ### BEGIN SOLUTION
    sees = mask.any(-1, keepdim=True)  # (B, T, 1)
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])  # (B, T, S)
    weights = scores.masked_fill(~mask & sees, -torch.inf).softmax(-1)
    return weights @ value * sees
    ### END SOLUTION


# %% tags=["check:attention:4"]
check_attention(attention)
### BEGIN HIDDEN TESTS
check_attention(attention, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** AttnGAN (Xu and others, 2018) lets every place of a picture attend to the words. Take the features
# of a picture as queries and `embed_tokens` of its caption as keys and values, each through a linear layer of its own,
# and draw for each word where in the picture it is looked at. Before any training, what do the maps show?
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** A loss that falls is not yet a loss that teaches. The cell below trains the smallest possible model, a table
# with a row of scores for each token it reads, to guess the next token of *random* texts. Among 8 equally likely tokens
# nobody can guess better than $\ln 8 = 2.08$ nats, however long one trains.


# %%
def loss_of_itself(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return F.cross_entropy(logits[mask], ids[mask])


ids, mask = torch.randint(8, (200, 12)), torch.ones(200, 12, dtype=torch.bool)
scores_of = torch.zeros(8, 8, requires_grad=True)  # row: the token that is read
for _ in range(100):
    loss = loss_of_itself(scores_of[ids], ids, mask)
    (slope,) = torch.autograd.grad(loss, scores_of)
    scores_of = (scores_of - 20 * slope).detach().requires_grad_()
print(f"loss after 100 steps: {loss:.3f} nats a token")
print("after the token 3 it expects the token", scores_of[3].argmax().item())

# %% [markdown]
# **Find** what it has learned, and **write** the loss as it should be. Texts are padded; padding is no guess.
#
# **Expected.** Logits of zeros for 8 tokens: 2.079. Two texts of 5 and of 3 real ids have 4 + 2 guesses, and each of the
# six counts the same.
#
# <details><summary>Hint 1: read the numbers</summary>
#
# It guesses what nobody can guess. Then it must have seen the answer. Where?
#
# </details>
#
# <details><summary>Hint 2: shift</summary>
#
# The scores at place t are compared with the id at place t + 1. The last place has no next id, the first id is never
# guessed.
#
# </details>
#
# <details><summary>Hint 3: the mask</summary>
#
# It must be cut like what is guessed: a guess counts where the *guessed* id is real. `x[mask]` keeps the real ones of
# all texts in one row.
#
# </details>


# %% tags=["solve:next-token-loss"]
def next_token_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """How surprised a model is by each next token.

    Args:
        logits: (B, T, V), at place t the scores after reading the ids 0 ... t.
        ids: (B, T) int64.
        mask: (B, T) bool, True where an id is real; padding stands at the end.
    Returns:
        () in nats: the mean over all guesses of real ids.
    """
    ### BEGIN SOLUTION
    real = mask[:, 1:]  # (B, T - 1)
    return F.cross_entropy(logits[:, :-1][real], ids[:, 1:][real])
    ### END SOLUTION


# %% tags=["check:next-token-loss:3"]
check_next_token_loss(next_token_loss)
### BEGIN HIDDEN TESTS
check_next_token_loss(next_token_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Train the table above with your loss on captions instead of random ids: a *bigram* model. How many
# nats a token does it reach, and what does the lesson's GPT know that no table of pairs can?
#
# ## 5 In your own words: three ways to spoil an encoder
#
# ★★★☆☆ · 10 minutes · 3 points
#
# Three friends changed the lesson's encoder. Say for each what goes wrong, and why. Two sentences each are enough.
#
# 1. The first takes the state at `<start>` as the vector of the caption.
# 2. The second takes the mean of the states over all T places of the batch, padding included (its states are zero). He
#    computes the vectors of his captions one by one, and later again in batches.
# 3. The third leaves out the causal mask, because "a word should also know what comes after it", and trains with the
#    loss of the next token. The loss falls to nearly 0.

# %% [markdown] tags=["explain:spoiled-encoders:3"]
# <!-- BEGIN SOLUTION -->
# 1. Nobody looks ahead, so `<start>` has seen only itself: its state is the same for all captions and says nothing of
#    any (1 point).
# 2. The sum is divided by the length of the longest caption in the batch. So the vector of a caption depends on its
#    company: beside a long caption it is shorter than alone. He should divide by the number of real ids (1 point).
# 3. Each place can now look at the very token it has to guess, so it learns to copy that one. No guess needs what
#    stands before it, and on real text, where the next token is not there yet, it can do nothing. To look in both
#    directions one has to train with another task, such as guessing words that were blanked out (1 point).
# <!-- END SOLUTION -->
