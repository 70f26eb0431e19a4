"""TokenizerPlayground (lesson 07): a sentence, its bytes merging into pieces, and where each attention head looks."""

import html
from functools import cache
from typing import Any

import torch
from ipywidgets import Dropdown, IntSlider, Layout, Text
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.errors import CourseError
from course_lib.images import COLORBLIND_SAFE, text_or_fallback
from course_lib.lesson import new_axes
from course_lib.text_encoder import TextEncoder, attention, load_text_encoder
from course_lib.tokenizer import N_BYTES, Tokenizer, merge_pair, normalize_text, split_words, text_to_bytes
from course_lib.widgets.base import LABELS, WIDE, Explorer, Scene

Words = list[tuple[int, ...]]  # each word as ids
LINE = 44  # bytes in a line of boxes, unless a word is longer
MAX_CHARACTERS = 120
FAINT = 0.05  # smaller weights are left without a number
MAX_NUMBERED = 16  # tokens of a matrix whose cells still have room for their numbers


def tokenizer_playground(
    sentence: str = "a large red circle at the top left on gray",
    merges: int = 12,
    layer: int = 1,
    head: int = 2,
    model: str = "gpt-captions",
) -> Explorer:
    """Type a sentence in English or Chinese; watch its bytes become pieces, and the pieces look at each other.

    Args:
        sentence: as it stands in the box at first.
        merges: how many are done at first; at most as many as there are.
        layer, head: of the attention that is shown, from 1.
        model: a checkpoint with a text encoder.
    Raises:
        CourseError: no such checkpoint.
    """
    encoder, tokenizer = load(model)
    history = merge_history(tokenizer, sentence)
    typed = Text(sentence, description="sentence", layout=Layout(width="520px"), style=LABELS)
    done = IntSlider(
        min(merges, len(history) - 1), 0, len(history) - 1, description="merges", layout=WIDE, style=LABELS
    )
    heads, layers = range(1, encoder.config.heads + 1), range(1, encoder.config.layers + 1)
    small = {"layout": Layout(width="130px"), "style": {"description_width": "50px"}}
    which_layer = Dropdown(options=layers, value=layer, description="layer", **small)
    which_head = Dropdown(options=heads, value=head, description="head", **small)

    def draw() -> Scene:
        text = normalize_text(typed.value)
        if not text or len(text) > MAX_CHARACTERS:
            raise CourseError(f"sentence has {len(text)} characters; type 1 to {MAX_CHARACTERS}, such as 红色圆形")
        history = merge_history(tokenizer, text)
        if done.max != len(history) - 1:  # another sentence: who had seen all merges sees all of the new ones
            place = len(history) - 1 if done.value == done.max else min(done.value, len(history) - 1)
            done.max, done.value = max(done.max, place), place
            done.max = len(history) - 1
        ids, mask = tokenizer.encode_batch([text], encoder.config.context_length)
        weights = attention_weights(encoder, ids, mask)[which_layer.value - 1, 0, which_head.value - 1]  # (T, T)
        tokens = ["<start>", *(shown(tokenizer.bytes_of[i]) for i in ids[0, 1:-1].tolist()), "<end>"]
        place = f"layer {which_layer.value}, head {which_head.value}"
        words, newest = history[done.value]
        lines = len(rows_of(words, tokenizer))
        with new_axes("", 1, 2, (9, 4.6 + 0.4 * lines)) as (figure, (strip, matrix)):
            strip.get_gridspec().set_height_ratios([0.3 + 0.4 * lines, 4.2])
            draw_boxes(strip, rows_of(words, tokenizer), tokenizer, newest)
            draw_matrix(matrix, weights, tokens)
            matrix.set(xlabel="is looked at", ylabel="looks", title=f"Attention of {place}")
        told, pieces = tell_merge(history, done.value, tokenizer), sum(map(len, words))
        most = [tokens[i] for i in weights.argmax(1).tolist()]
        alt = f"{told} Below, the attention of {place}: <end> looks most at {most[-1]}, {weights[-1].max():.2f}."
        cut = " · ".join(shown(tokenizer.bytes_of[i]) for word in words for i in word)
        looks = zip(tokens, most, weights.amax(1).tolist(), strict=True)
        told_looks = ", ".join(f"{token} at {other} {weight:.2f}" for token, other, weight in looks)
        lines = told, f"{pieces} pieces: {cut}", f"Each looks mostly at one, {place}: {told_looks}"
        return Scene(figure, alt, "<br>".join(map(html.escape, lines)))

    about = "Move the merges from 0 to the end; then type 红色圆形, or a word that no caption has, such as vermilion."
    title = "From bytes to pieces, and who looks at whom"
    return Explorer("tokenizer-playground", title, about, [typed, done, which_layer, which_head], draw)


@cache
def load(model: str) -> tuple[TextEncoder, Tokenizer]:
    """The encoder and its tokenizer, read once and never changed."""
    return load_text_encoder(model)


def merge_history(tokenizer: Tokenizer, text: str) -> list[tuple[Words, int | None]]:
    """The words of a text as ids, before any merge and after each, with the id of the last merge.

    Args:
        tokenizer: knows the merges; text: as the tokenizer reads it, normalised here.
    Returns:
        One entry more than there are merges. At the end stand the ids of `Tokenizer.encode`.
    """
    words: Words = [tuple(text_to_bytes(word)) for word in split_words(normalize_text(text))]
    history: list[tuple[Words, int | None]] = [(words, None)]
    while known := [
        tokenizer.id_of[pair] for word in words for pair in zip(word, word[1:], strict=False) if pair in tokenizer.id_of
    ]:
        newest = min(known)  # the merge that was learned first is applied first
        words = [merge_pair(word, tokenizer.merges[newest - N_BYTES], newest) for word in words]
        history.append((words, newest))
    return history


def attention_weights(encoder: TextEncoder, ids: Tensor, mask: Tensor) -> Tensor:
    """How much each token looks at each: ids and mask (B, T) -> (layers, B, heads, T, T), rows sum to 1.

    What goes into each attention is caught on its way; with the identity matrix as values its answers are the weights.
    """
    caught: list[tuple[Tensor, Tensor]] = []
    hooks = [block.attn.register_forward_pre_hook(lambda _, inputs: caught.append(inputs)) for block in encoder.h]
    with torch.no_grad():
        encoder(ids, mask)
        for hook in hooks:
            hook.remove()
        weights = []
        for block, (x, looks_at) in zip(encoder.h, caught, strict=True):
            asks, found_by, _ = block.attn.c_attn(x).unflatten(-1, (3, block.attn.heads, -1)).unbind(-3)  # (B, T, H, D)
            own = torch.eye(ids.shape[1]).expand(len(ids), block.attn.heads, -1, -1)
            weights.append(attention(asks.transpose(1, 2), found_by.transpose(1, 2), own, looks_at))
        return torch.stack(weights)


def shown(piece: bytes) -> str:
    """A piece as text, its spaces as `_`; a part of a character as its bytes."""
    try:
        return piece.decode("utf-8").replace(" ", "_")
    except UnicodeDecodeError:
        return piece.hex(" ")


def tell_merge(history: list[tuple[Words, int | None]], place: int, tokenizer: Tokenizer) -> str:
    """What the merge at a place of the history joins."""
    newest, last = history[place][1], len(history) - 1
    if newest is None:
        return f"Merge 0 of {last}: bytes, nothing merged yet."
    one, other = (shown(tokenizer.bytes_of[i]) for i in tokenizer.merges[newest - N_BYTES])
    return f"Merge {place} of {last}: {one} + {other} = {shown(tokenizer.bytes_of[newest])}, id {newest}."


def rows_of(words: Words, tokenizer: Tokenizer) -> list[Words]:
    """The words in lines of at most `LINE` bytes."""
    rows, used = [[]], 0
    for word in words:
        length = sum(len(tokenizer.bytes_of[i]) for i in word)
        if used and used + length > LINE:
            rows, used = [*rows, []], 0
        rows[-1].append(word)
        used += length
    return rows


def draw_boxes(axis: Axes, rows: list[Words], tokenizer: Tokenizer, newest: int | None) -> None:
    """Every piece as a box as wide as it has bytes, a gap after each word; what was merged last is thick and yellow."""
    widest = LINE
    for down, row in enumerate(rows):
        x, boxes = 0.0, {True: [], False: []}  # new ones and others: (left, width)
        for word in row:
            for i in word:
                piece = tokenizer.bytes_of[i]
                boxes[i == newest].append((x, len(piece) - 0.08))
                name = text_or_fallback(shown(piece), piece.hex(" "))
                size = 10 if len(name) <= len(piece) else 6.5
                write(axis, x + len(piece) / 2 - 0.04, down + 0.52, name, fontsize=size)
                x += len(piece)
            x += 0.25
        axis.broken_barh(boxes[False], (down + 0.1, 0.8), facecolor="#eef3f7", edgecolor="#222", lw=0.8)
        axis.broken_barh(boxes[True], (down + 0.1, 0.8), facecolor=COLORBLIND_SAFE[6], edgecolor="#222", lw=2.4)
        widest = max(widest, x)
    axis.set(xlim=(-0.3, widest + 0.3), ylim=(len(rows), 0))
    axis.set_axis_off()


def draw_matrix(axis: Axes, weights: Tensor, tokens: list[str]) -> None:
    """Weights (T, T) as cells, with their numbers where there is room."""
    names = [text_or_fallback(token, f"({place})") for place, token in enumerate(tokens)]
    drawn = axis.imshow(weights.numpy(), vmin=0, vmax=1, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.tick_params(labelsize=9 if len(names) <= 24 else 6)
    if len(names) > MAX_NUMBERED:
        axis.figure.colorbar(drawn, label="weight", shrink=0.8)
        return
    for row, line in enumerate(weights.tolist()):
        for column, weight in enumerate(line):
            if weight >= FAINT:
                write(axis, column, row, f"{weight:.2f}", fontsize=8, color="black" if weight > 0.55 else "white")


def write(axis: Axes, x: float, y: float, text: str, **settings: Any) -> None:
    """Into the middle of a cell; the layout need not measure it, for it has its place."""
    axis.text(x, y, text, ha="center", va="center", parse_math=False, **settings).set_in_layout(False)
