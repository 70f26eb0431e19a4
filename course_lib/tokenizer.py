"""Words as numbers: a byte-level byte-pair encoding (BPE) written from scratch. Chapter 07 builds it.

Every text is bytes, so no text is ever unknown: ids 0-255 are the bytes, every further id is a pair of earlier ids that
occurred often in the training captions, and the last three ids are the specials `<pad>`, `<start>` and `<end>`.
Read it in the order `split_words`, `count_pairs`, `merge_pair`, `Tokenizer.train`, `Tokenizer.encode`.
Source: Sennrich et al. 2016 (BPE for words), Radford et al. 2019 (over bytes, within pre-split words).
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from course_lib.errors import CourseError

FORMAT = "byte-level BPE, version 1"
N_BYTES, N_SPECIALS = 256, 3
MAX_VOCAB_SIZE = 2**17
MAX_FILE_BYTES = 10_000_000  # of tokenizer.json; that of the largest vocabulary has a quarter
MAX_RUN = 64  # characters in one word: bounds the work for a prompt of a million letters
MAX_PIECE_BYTES = 4 * (MAX_RUN + 1)
CACHED_WORDS = 2**16

# Kana and Han: written without spaces, so every character is a word of its own.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORDS = re.compile(
    rf"[{CJK}]"
    rf"| ?[^\W\d_{CJK}]{{1,{MAX_RUN}}}"  # letters, with the space before them
    rf"|\d{{1,{MAX_RUN}}}"
    rf"| ?(?:[^\s\w{CJK}]|_){{1,{MAX_RUN}}}"  # other symbols, with the space before them
    rf"|\s{{1,{MAX_RUN}}}(?!\S)|\s{{1,{MAX_RUN}}}"  # white space, leaving the last space to the word after it
)


def normalize_text(text: str) -> str:
    """The form of a prompt that the model reads: one spelling for what means the same.

    Compatibility forms become plain ones (full-width letters, ligatures), capitals small ones, runs of white space one
    space, and the ends are stripped. Applying it twice changes nothing more.

    >>> normalize_text("  A LARGE　Ｒｅｄ circle ")
    'a large red circle'

    Source: Unicode Standard Annex 15 (NFKC) and the Unicode Standard, section 3.13 (case folding).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def split_words(text: str) -> list[str]:
    """Cut a text into the words that merges never cross; joined again they are the text.

    A word is a run of letters or symbols with the space before it, a run of digits, one Chinese or Japanese character,
    or white space; each at most 64 characters long.

    >>> split_words("a red circle, 3 红圆")
    ['a', ' red', ' circle', ',', ' ', '3', ' ', '红', '圆']
    """
    return WORDS.findall(text)


def text_to_bytes(text: str) -> bytes:
    """UTF-8, extended to lone surrogates (half characters, which damaged input can hold)."""
    return text.encode("utf-8", errors="surrogatepass")


def bytes_to_text(data: bytes) -> str:
    """The inverse of `text_to_bytes`; bytes that are not text become the replacement character."""
    try:
        return data.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", errors="replace")


def count_pairs(words: Mapping[tuple[int, ...], int]) -> Counter:
    """How often each pair of neighbouring ids occurs, when each word occurs as often as `words` says.

    >>> count_pairs({(1, 2, 2): 10, (1, 2): 1})
    Counter({(1, 2): 11, (2, 2): 10})
    """
    pairs = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            pairs[pair] += count
    return pairs


def merge_pair(ids: Sequence[int], pair: tuple[int, int], new_id: int) -> tuple[int, ...]:
    """Replace every occurrence of `pair`, from left to right, by `new_id`.

    >>> merge_pair((1, 2, 1, 2, 2), (1, 2), 9)
    (9, 9, 2)
    """
    merged, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return tuple(merged)


def learn_merges(words: Mapping[tuple[int, ...], int], n_merges: int) -> list[tuple[int, int]]:
    """Merge the most frequent pair, again and again; among equals the pair with the smallest ids.

    Args:
        words: each distinct word as byte ids, with its count.
        n_merges: how many at most; fewer when no pair is left that occurs twice.
    Returns:
        The pairs in the order they were merged; the i-th becomes id 256 + i.
    Source: Sennrich et al. 2016, algorithm 1; only the words that hold the pair are counted again.
    """
    words, pairs, where = dict(words), count_pairs(words), defaultdict(set)
    for word in words:
        for pair in zip(word, word[1:], strict=False):
            where[pair].add(word)
    merges = []
    while len(merges) < n_merges and (most := max(pairs.values(), default=0)) > 1:
        best = min(pair for pair, count in pairs.items() if count == most)
        old = {word: words.pop(word) for word in where.pop(best) if word in words}
        new = {merge_pair(word, best, N_BYTES + len(merges)): count for word, count in old.items()}
        merges.append(best)
        words.update(new)
        pairs.subtract(count_pairs(old))
        pairs.update(count_pairs(new))
        for word in new:
            for pair in zip(word, word[1:], strict=False):
                where[pair].add(word)
    return merges


class Tokenizer:
    """Text to ids and back, exactly, by a list of merges.

    Args:
        merges: the pairs of ids that became one, in order; the i-th has id 256 + i.
    Attributes:
        vocab_size: bytes, merges and the three specials together.
        pad_id, start_id, end_id: the last three ids.
    Raises:
        CourseError: a merge is not a pair of earlier ids, or comes twice.
    """

    def __init__(self, merges: Iterable[tuple[int, int]]):
        self.merges = [tuple(pair) for pair in merges]
        self.bytes_of = [bytes([i]) for i in range(N_BYTES)]
        self.id_of: dict[tuple[int, int], int] = {}
        for pair in self.merges:
            self._add(pair)
        self.pad_id, self.start_id, self.end_id = range(len(self.bytes_of), len(self.bytes_of) + N_SPECIALS)
        self.vocab_size = len(self.bytes_of) + N_SPECIALS
        self._cache: dict[str, tuple[int, ...]] = {}

    def _add(self, pair: tuple[int, int]) -> None:
        new_id = len(self.bytes_of)
        name = f"merges[{new_id - N_BYTES}]={str(pair)[:40]}"
        earlier = len(pair) == 2 and all(type(i) is int and 0 <= i < new_id for i in pair)
        if not earlier or pair in self.id_of or new_id + N_SPECIALS >= MAX_VOCAB_SIZE:
            raise CourseError(f"{name} is not a new pair of ids from 0 to {new_id - 1}")
        piece = self.bytes_of[pair[0]] + self.bytes_of[pair[1]]
        if len(piece) > MAX_PIECE_BYTES:
            raise CourseError(f"{name} makes a piece of over {MAX_PIECE_BYTES} bytes")
        self.bytes_of.append(piece)
        self.id_of[pair] = new_id

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn the merges from captions (normalised first, as prompts are).

        Args:
            texts: captions; the same ones in any order give the same tokenizer.
            vocab_size: at least 259 (bytes and specials); an upper bound: merging ends when no pair occurs twice.
        Raises:
            CourseError: vocab_size is out of range.
        """
        if not N_BYTES + N_SPECIALS <= vocab_size <= MAX_VOCAB_SIZE:
            raise CourseError(f"vocab_size={vocab_size} is not between {N_BYTES + N_SPECIALS} and {MAX_VOCAB_SIZE}")
        counts = Counter(word for text in texts for word in split_words(normalize_text(text)))
        words = {tuple(text_to_bytes(word)): count for word, count in counts.items()}
        return cls(learn_merges(words, vocab_size - N_BYTES - N_SPECIALS))

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without specials; `decode` gives the text back, whatever its characters."""
        return [i for word in split_words(text) for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if word in self._cache:
            return self._cache[word]
        ids = tuple(text_to_bytes(word))
        # the merge that was learned first is applied first: it has the smallest id
        while known := [self.id_of[pair] for pair in zip(ids, ids[1:], strict=False) if pair in self.id_of]:
            new_id = min(known)
            ids = merge_pair(ids, self.merges[new_id - N_BYTES], new_id)
        if len(self._cache) < CACHED_WORDS:
            self._cache[word] = ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; specials are left out, bytes that are not text become the replacement character.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids hold {wrong[0]}, which is not between 0 and {self.vocab_size - 1}")
        return bytes_to_text(b"".join(self.bytes_of[i] for i in ids if i < self.pad_id))

    def pieces(self, text: str) -> list[str]:
        """What each id of a text stands for, for showing; a part of a character is shown as its bytes, `<e7 ba>`."""
        return [self._show(self.bytes_of[i]) for i in self.encode(text)]

    @staticmethod
    def _show(piece: bytes) -> str:
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError:
            return f"<{piece.hex(' ')}>"

    def encode_batch(self, texts: Sequence[str], context_length: int) -> tuple[Tensor, Tensor]:
        """What the text encoder reads: `<start> tokens <end>` for each normalised text, padded to the longest.

        Args:
            texts: B prompts or captions, normalised here.
            context_length: how many ids the encoder can read, the two specials included.
        Returns:
            ids (B, T) int64 and mask (B, T) bool, True where an id is real; T <= context_length.
        Raises:
            CourseError: a text has more tokens than fit; says which, and what would be cut.
        """
        if isinstance(texts, str):
            raise ValueError(f'texts="{texts[:40]}" is one text; pass a list of texts')
        rows = [self._encode_prompt(text, context_length) for text in texts]
        longest = max(map(len, rows), default=N_SPECIALS - 1)
        ids = torch.tensor([row + [self.pad_id] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = ids.reshape(len(rows), longest)  # (B, T), also for B = 0
        return ids, torch.arange(longest) < lengths[:, None]

    def _encode_prompt(self, text: str, context_length: int) -> list[int]:
        ids, limit = self.encode(normalize_text(text)), context_length - 2
        if len(ids) > limit:
            cut = self.decode(ids[limit:]).lstrip("\ufffd")
            raise CourseError(
                f'text "{text[:40]}..." has {len(ids)} tokens and the limit is {limit}: '
                f'"{cut[:40]}{"..." if len(cut) > 40 else ""}" would be cut; shorten the text'
            )
        return [self.start_id, *ids, self.end_id]

    def to_json(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return json.dumps({"format": FORMAT, "merges": self.merges}, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "tokenizer.json") -> "Tokenizer":
        """The inverse of `to_json`.

        Raises:
            CourseError: `text` is not what `to_json` writes; `source` names it in the message.
        """
        remedy = f'"{source}" is not a tokenizer of this course; copy it again or train the model again'
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CourseError(f"{remedy} (it is not JSON: {error})") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise CourseError(f'{remedy} (it lacks "format": "{FORMAT}")')
        merges = values.get("merges")
        if not isinstance(merges, list) or not all(isinstance(pair, list) for pair in merges):
            raise CourseError(f'{remedy} ("merges" is not a list of pairs)')
        try:
            return cls(merges)
        except CourseError as error:
            raise CourseError(f"{remedy} ({error})") from None

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer from a JSON file.

        Raises:
            CourseError: the file is missing, unreadable, damaged or foreign.
        """
        try:
            if Path(path).stat().st_size > MAX_FILE_BYTES:
                raise CourseError(f'the tokenizer "{path}" is longer than {MAX_FILE_BYTES:,} bytes; copy it again')
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CourseError(
                f'cannot read the tokenizer "{path}": {error}; give the path of a tokenizer.json'
            ) from None
        return cls.from_json(text, str(path))
