"""From ids to meaning: a GPT-style text encoder written from scratch. Chapter 07 builds it.

`attention` is the one formula; `CausalSelfAttention`, `MLP` and `Block` are GPT-2's parts around it; `TextEncoder`
reads a caption and gives one vector a token and one vector a caption. It is pre-trained by guessing the next token
(`next_token_loss`). Its parameters have the names of `transformers.GPT2Model`, so weights go both ways.
Source: Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2), Radford et al. 2021 (pooling at the end token).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module, ModuleList
from torch.nn.functional import scaled_dot_product_attention

from course_lib.checkpoint import dataclass_from_dict, find_checkpoint, load_checkpoint, load_weights
from course_lib.errors import CourseError
from course_lib.layers import Embedding, LayerNorm, Linear, check_backend, gelu
from course_lib.losses import cross_entropy
from course_lib.tokenizer import MAX_VOCAB_SIZE, Tokenizer, normalize_text

LIMITS = {  # also what keeps a hostile config.json from asking for a billion channels
    "vocab_size": (1, MAX_VOCAB_SIZE),
    "context_length": (2, 4096),
    "width": (1, 4096),
    "heads": (1, 64),
    "layers": (1, 48),
}
MAX_PARAMETERS = 400_000_000  # GPT-2 medium fits
INIT_STD = 0.02


@dataclass(frozen=True)
class TextEncoderConfig:
    """The size of a `TextEncoder`.

    Args:
        vocab_size: how many ids the tokenizer knows.
        context_length: the most ids in a text, specials included.
        width: channels E of a token.
        heads: attention heads; divides width.
        layers: how many blocks.
    Raises:
        CourseError: a value is outside its range, or heads does not divide width.
    """

    vocab_size: int
    context_length: int = 64
    width: int = 128
    heads: int = 4
    layers: int = 2

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise CourseError(f"{name}={value!r} is not a whole number from {low} to {high}")
        if self.width % self.heads:
            raise CourseError(f"width={self.width} is not a multiple of heads={self.heads}; change one of them")
        rows = self.vocab_size + self.context_length + 12 * self.layers * self.width  # each row: width parameters
        if rows * self.width > MAX_PARAMETERS:
            raise CourseError(f"width={self.width} and layers={self.layers} make over {MAX_PARAMETERS:,} parameters")


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each query takes the mean of the values, weighted by how well their keys match it.

    Args:
        query: (B, H, T, D), H heads of D channels.
        key, value: (B, H, S, D).
        mask: broadcastable to (B, H, T, S), bool, True where a query may look; every query needs one True.
    Returns:
        (B, H, T, D): softmax(query keyᵀ / √D) value.
    Source: Vaswani et al. 2017, eq. 1.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = (scores - scores.amax(dim=-1, keepdim=True).detach()).exp()  # the largest is e^0: never overflows
    return weights / weights.sum(dim=-1, keepdim=True) @ value


ATTENTION = {"ours": attention, "torch": scaled_dot_product_attention}


def causal_mask(mask: Tensor) -> Tensor:
    """Which position may look at which: at real ones, at none after itself, and always at itself.

    Args:
        mask: (B, T) bool, True where an id is real.
    Returns:
        (B, 1, T, T) bool; row t, column s is True where t may look at s.
    """
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)  # so that no row is empty: 0/0 is not a number
    return ((earlier & mask[:, None, :]) | itself)[:, None]


class CausalSelfAttention(Module):
    """Multi-head attention of a text to itself.

    Args:
        width: channels C.
        heads: H, divides width.
        backend: "ours" (written out, `attention`) or "torch" (the same numbers, fused).
    """

    def __init__(self, width: int, heads: int, backend: str = "torch"):
        super().__init__()
        self.heads, self.backend = heads, check_backend(backend)
        self.c_attn = Linear(width, 3 * width)
        self.c_proj = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and a mask (B, 1, T, T) -> (B, T, C)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, C) -> (B, T, H, C/H) -> (B, H, T, C/H)
            for part in self.c_attn(x).chunk(3, dim=-1)  # (B, T, 3C) -> 3 of (B, T, C)
        )
        mixed = ATTENTION[self.backend](query, key, value, mask)  # (B, H, T, C/H)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))  # -> (B, T, C)


class MLP(Module):
    """Two linear layers with a GELU between, on each token alone: (B, T, C) -> (B, T, 4C) -> (B, T, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = Linear(width, 4 * width)
        self.c_proj = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(gelu(self.c_fc(x)))


class Block(Module):
    """Look around, then think: attention and MLP, each after a LayerNorm and added to its input (pre-norm)."""

    def __init__(self, width: int, heads: int, backend: str = "torch"):
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, backend)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and a mask (B, 1, T, T) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class TextEncoder(Module):
    """GPT-2's architecture as an encoder of captions.

    Args:
        config: the sizes.
        backend: which `attention`, "torch" or "ours".
    """

    def __init__(self, config: TextEncoderConfig, backend: str = "torch"):
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.width)  # word (token) embedding
        self.wpe = Embedding(config.context_length, config.width)  # word position embedding
        self.h = ModuleList(Block(config.width, config.heads, backend) for _ in range(config.layers))
        self.ln_f = LayerNorm(config.width)
        init_gpt2(self)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read texts; padding, wherever it stands, changes no result.

        Args:
            ids: (B, T) int64 in [0, vocab_size), T <= context_length.
            mask: (B, T) bool, True where an id is real.
        Returns:
            tokens (B, T, E), zero where padded, and pooled (B, E): the state at the last real token, `<end>`, which has
            read all others.
        Raises:
            ValueError: ids and mask differ in shape, or T is too long.
        """
        if ids.shape != mask.shape or ids.dim() != 2 or ids.shape[1] > self.config.context_length:
            raise ValueError(
                f"ids {tuple(ids.shape)} and mask {tuple(mask.shape)} must both be (B, T), T <= "
                f"context_length={self.config.context_length}"
            )
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # (B, T): counts real ids only
        x = self.wte(ids) + self.wpe(positions)  # (B, T, E)
        looks_at = causal_mask(mask)
        for block in self.h:
            x = block(x, looks_at)
        tokens = self.ln_f(x).masked_fill(~mask[..., None], 0.0)
        last = (mask * torch.arange(ids.shape[1], device=ids.device)).argmax(dim=1)  # (B,)
        return tokens, tokens[torch.arange(len(ids), device=ids.device), last]

    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """(..., E) -> (..., vocab_size): how well each id of the (tied) embedding matches a state."""
        return tokens @ self.wte.weight.T


@torch.no_grad()
def init_gpt2(model: TextEncoder) -> None:
    """GPT-2's start: weights N(0, 0.02²), biases 0; what is added to the residual path is scaled by 1/√(2 layers).

    Source: Radford et al. 2019, section 2.3; the scale keeps the variance of the sum of 2 · layers terms.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("c_proj.weight"):
            parameter.normal_(0.0, INIT_STD / math.sqrt(2 * model.config.layers))
        elif ".ln_" not in f".{name}":
            parameter.normal_(0.0, INIT_STD)


def next_token_loss(model: TextEncoder, ids: Tensor, mask: Tensor) -> Tensor:
    """How surprised the model is by each next token: mean cross-entropy over the real targets.

    Args:
        ids, mask: (B, T) as `Tokenizer.encode_batch` gives them; at least one row with two real ids.
    Returns:
        () in nats.
    Source: Radford et al. 2018, eq. 1.
    """
    tokens, _ = model(ids[:, :-1], mask[:, :-1])
    real = mask[:, :-1] & mask[:, 1:]  # (B, T-1): both the token read and the token to be guessed
    return cross_entropy(model.next_token_logits(tokens)[real], ids[:, 1:][real])  # (N, vocab_size) against (N,)


CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # transformers' Conv1D keeps its weights transposed


def to_gpt2_state_dict(model: TextEncoder) -> dict[str, Tensor]:
    """The weights as `transformers.GPT2Model.load_state_dict` takes them (copies)."""
    return {name: (x.T if name.endswith(CONV1D) else x).clone() for name, x in model.state_dict().items()}


def from_gpt2_state_dict(model: TextEncoder, state: Mapping[str, Tensor], source: str = "GPT-2 weights") -> None:
    """Load the weights of a `transformers.GPT2Model` (or `GPT2LMHeadModel`) into `model`.

    Args:
        model: its config must be that of the weights (a wrong number of heads cannot be seen in them).
        state: names as in GPT2Model; the prefix "transformer.", "lm_head.weight" (tied) and mask buffers are skipped.
    Raises:
        CourseError: the weights are of another architecture or size; `source` names them in the message.
    """
    ours = {}
    for name, x in state.items():
        name = name.removeprefix("transformer.")
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias")):
            ours[name] = x.T if name.endswith(CONV1D) else x
    load_weights(model, ours, source)


@torch.no_grad()
def embed_captions(
    encoder: Module,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """The pooled vector of every caption, without gradients: done once, before training.

    Each distinct caption is read once, and captions of like length are read together, so that little is padding.

    Args:
        encoder: gives (tokens, pooled) for (ids, mask); has `config.context_length` and `config.width`.
        captions: N texts; normalised here.
        batch_size: how many are read at once.
        device: where the encoder is and the result will be; default: the encoder's own.
    Returns:
        (N, E) float32 in the order of `captions`.
    Raises:
        CourseError: a caption is too long for the encoder.
    """
    device = device or next(encoder.parameters()).device
    texts = [normalize_text(caption) for caption in captions]
    distinct = sorted(set(texts), key=lambda text: (len(tokenizer.encode(text)), text))
    rows = [torch.empty(0, encoder.config.width, device=device)]
    for start in range(0, len(distinct), batch_size):
        ids, mask = tokenizer.encode_batch(distinct[start : start + batch_size], encoder.config.context_length)
        rows.append(encoder(ids.to(device), mask.to(device))[1].float())
    row_of = {text: row for row, text in enumerate(distinct)}
    return torch.cat(rows)[torch.tensor([row_of[text] for text in texts], dtype=torch.int64, device=device)]


@torch.no_grad()
def embed_tokens(encoder: Module, tokenizer: Tokenizer, captions: Sequence[str], batch_size: int = 256) -> Tensor:
    """Every caption token by token, without gradients: (N, T, E) with zeros after the end of each caption.

    Args:
        encoder, tokenizer, captions: as for `embed_captions`; T is the length of the longest caption.
        batch_size: how many are read at once.
    Raises:
        CourseError: a caption is too long for the encoder.
    """
    device = next(encoder.parameters()).device
    ids, mask = (x.to(device) for x in tokenizer.encode_batch(captions, encoder.config.context_length))
    rows = zip(ids.split(batch_size), mask.split(batch_size), strict=True)
    return torch.cat([encoder(i, m)[0].float() for i, m in rows])


def load_text_encoder(name_or_path: str | Path, device: torch.device | str = "cpu") -> tuple[TextEncoder, Tokenizer]:
    """A trained text encoder, frozen and in eval mode, with its tokenizer.

    Args:
        name_or_path: any checkpoint that holds one: "gpt-captions", "align-shapes-32", a text-to-image model, a folder.
        device: where it shall compute.
    Raises:
        CourseError: no such checkpoint, or one without a text encoder.
    """
    folder = find_checkpoint(name_or_path)
    tensors, config = load_checkpoint(folder)
    if "text_encoder" not in config:
        raise CourseError(f'"{folder}" holds no text encoder; use one such as "align-shapes-32"')
    encoder = TextEncoder(dataclass_from_dict(TextEncoderConfig, config["text_encoder"], folder / "config.json"))
    prefix = "text_encoder."
    load_weights(encoder, {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}, folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.vocab_size > encoder.config.vocab_size:
        raise CourseError(f'"{folder}" has a tokenizer of another model; copy the folder again')
    return encoder.to(device).eval().requires_grad_(False), tokenizer
