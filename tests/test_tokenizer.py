"""The tokenizer loses nothing, learns the merges one finds by hand, and refuses what is not its own."""

import doctest
import json
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import tokenizer as module
from course_lib.errors import CourseError
from course_lib.tokenizer import Tokenizer, count_pairs, merge_pair, normalize_text, split_words

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)  # lone surrogates included
CAPTIONS = [
    f"a {size} {color} {shape} at the {place}"
    for size in ("large", "small")
    for color in ("red", "blue", "green")
    for shape in ("circle", "square", "星")
    for place in ("top left", "bottom right")
]
TRAINED = Tokenizer.train(CAPTIONS, vocab_size=320)


def test_examples_in_docstrings():
    result = doctest.testmod(module)
    assert result.attempted >= 4 and result.failed == 0


@given(ANY_TEXT)
def test_any_text_round_trips(text):
    assert "".join(split_words(text)) == text
    assert TRAINED.decode(TRAINED.encode(text)) == text


@given(ANY_TEXT)
def test_normalizing_twice_changes_nothing_more(text):
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert once == once.strip() and "  " not in once


@pytest.mark.parametrize(
    "text", ["", " ", "\ud800", "\udfff\ud83d\ude00", "ﬁ①Ａ", "a" * 1000, " \n\t a  b ", "_x_ 12é\u0301"]
)
def test_awkward_texts_round_trip(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.decode(Tokenizer([]).encode(text)) == text


def test_normalizing_unifies_spellings():
    assert normalize_text("  Large\u3000ＲＥＤ \n Straße ﬁsh ") == "large red strasse fish"
    assert normalize_text("e\u0301") == unicodedata.normalize("NFC", "e\u0301")
    assert normalize_text("\xdf\u0301") == normalize_text("ss\u0301")  # folding first makes what is then composed


def test_words():
    assert split_words("two red_circles  left!? 10红圆x") == [
        "two", " red", "_", "circles", " ", " left", "!?", " ", "10", "红", "圆", "x"
    ]  # fmt: skip
    assert split_words("it's 圆的") == ["it", "'", "s", " ", "圆", "的"]
    assert max(map(len, split_words("z" * 200 + " " * 200 + "!" * 200))) <= 65


def test_count_and_merge_by_hand():
    assert count_pairs({(1, 2, 3): 2, (2, 3): 1, (7,): 9}) == {(1, 2): 2, (2, 3): 3}
    assert merge_pair((1, 1, 1), (1, 1), 5) == (5, 1)
    assert merge_pair((), (1, 1), 5) == ()


def test_training_merges_by_hand():
    # "low" 5 times, "lower" 2, "newest" 6, "widest" 3: the example of Sennrich et al. 2016, without their word ends
    corpus = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    merges = Tokenizer.train(corpus, 256 + 3 + 6).merges
    pieces = [Tokenizer(merges).bytes_of[256 + i].decode() for i in range(6)]
    # "es" and "st" 9 times: "e" is the smaller byte; then est 9, lo and ow 7, low 7; of ew, ne, w+est (6 each) ew
    assert pieces == ["es", "est", "lo", "low", "ew", "new"]
    assert merges[:4] == [(101, 115), (256, 116), (108, 111), (258, 119)]


def slow_merges(texts, n):
    """Training in its plainest form: count everything anew for every merge."""
    words = [tuple(w.encode()) for t in texts for w in split_words(normalize_text(t))]
    merges = []
    for new_id in range(256, 256 + n):
        counts = {}
        for word in words:
            for pair in zip(word, word[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        if max(counts.values(), default=0) < 2:
            break
        best = sorted(counts, key=lambda pair: (-counts[pair], pair))[0]
        words = [merge_pair(word, best, new_id) for word in words]
        merges.append(best)
    return merges


@given(st.lists(st.text("ab c红", max_size=12), max_size=8))
def test_fast_training_equals_the_plain_one(texts):
    assert Tokenizer.train(texts, 256 + 3 + 20).merges == slow_merges(texts, 20)


def test_training_is_deterministic_and_ignores_order():
    assert Tokenizer.train(CAPTIONS[::-1], 320).merges == TRAINED.merges
    assert TRAINED.vocab_size == 256 + 3 + len(TRAINED.merges) <= 320


def test_training_stops_when_nothing_repeats():
    tokenizer = Tokenizer.train(["abcd"], 1000)
    assert tokenizer.merges == [] and tokenizer.vocab_size == 259
    assert Tokenizer.train([], 300).vocab_size == 259


def test_encoding_applies_the_merges_in_the_order_learned():
    tokenizer = Tokenizer([(ord("b"), ord("c")), (ord("a"), ord("b"))])
    assert tokenizer.encode("abc") == [ord("a"), 256]  # bc was learned first, though ab stands first
    assert tokenizer.encode("ab") == [257]


def test_training_shortens_captions_to_words():
    assert TRAINED.pieces("a large red circle") == ["a", " large", " red", " circle"]
    assert TRAINED.pieces("红")[0] == "<e7>"
    assert len(TRAINED.encode(CAPTIONS[0])) < len(CAPTIONS[0]) / 3


@pytest.mark.parametrize("vocab_size", [0, 258, 10**9])
def test_impossible_vocabulary(vocab_size):
    with pytest.raises(CourseError, match=f"vocab_size={vocab_size}"):
        Tokenizer.train(CAPTIONS, vocab_size)


def test_specials_are_last_and_not_text():
    t = TRAINED
    assert [t.pad_id, t.start_id, t.end_id] == [t.vocab_size - 3, t.vocab_size - 2, t.vocab_size - 1]
    assert t.decode([t.start_id, *t.encode("red"), t.end_id, t.pad_id]) == "red"
    assert t.encode("<pad><start><end>") == [i for i in t.encode("<pad><start><end>") if i < t.pad_id]


def test_decoding_half_a_character_replaces_it():
    assert TRAINED.decode([0xE7, 0xBA]) == "\ufffd"
    for wrong in (-1, TRAINED.vocab_size):
        with pytest.raises(ValueError, match=str(wrong)):
            TRAINED.decode([wrong])


def test_batch():
    texts = ["A red  circle", "", "a large blue square"]
    ids, mask = TRAINED.encode_batch(texts, 64)
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool and ids.shape == mask.shape == (3, 6)
    assert mask.sum(1).tolist() == [5, 2, 6]
    for row, real, text in zip(ids, mask, texts, strict=True):
        assert row[real][0] == TRAINED.start_id and row[real][-1] == TRAINED.end_id
        assert (row[~real] == TRAINED.pad_id).all() and not real.long().diff().gt(0).any()  # padding at the end
        assert TRAINED.decode(row) == normalize_text(text)
    assert TRAINED.encode_batch([], 64)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="list"):
        TRAINED.encode_batch("a red circle", 64)


def test_text_that_is_too_long_says_what_would_be_cut():
    text = "a large red circle at the top left at the top left"  # 12 tokens
    assert TRAINED.encode_batch([text], 14)[0].shape == (1, 14)
    with pytest.raises(CourseError) as error:
        TRAINED.encode_batch(["a red circle", text], 12)
    for part in ('"a large red circle', "12 tokens", "limit is 10", '" top left" would be cut'):
        assert part in str(error.value)


def test_cache_changes_nothing():
    fresh = Tokenizer(TRAINED.merges)
    assert fresh.encode(CAPTIONS[0]) == fresh.encode(CAPTIONS[0]) == TRAINED.encode(CAPTIONS[0])


def test_save_and_load(tmp_path):
    TRAINED.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.merges == TRAINED.merges and loaded.vocab_size == TRAINED.vocab_size
    assert loaded.encode("a red 星") == TRAINED.encode("a red 星")


def as_file(merges):
    return json.dumps({"format": module.FORMAT, "merges": merges})


DAMAGED = {
    "empty": "",
    "cut": TRAINED.to_json()[:-9],
    "deep": "[" * 100_000,
    "list": "[]",
    "foreign": '{"model": {"type": "BPE"}}',
    "no merges": json.dumps({"format": module.FORMAT}),
    "not pairs": as_file([[1, 2, 3]]),
    "not lists": as_file([5]),
    "text ids": as_file([["a", "b"]]),
    "nested ids": as_file([[[1], {}]]),
    "true": as_file([[True, 2]]),
    "negative": as_file([[-1, 2]]),
    "later id": as_file([[256, 2]]),
    "twice": as_file([[1, 2], [1, 2]]),
    "bomb": as_file([[0, 0], *([255 + i, 255 + i] for i in range(1, 60))]),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused_in_words(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CourseError, match="tokenizer.json.*again"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_unreadable_files_are_refused_in_words(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.json", "missing.json", "."):
        with pytest.raises(CourseError, match="cannot read the tokenizer"):
            Tokenizer.load(tmp_path / name)
