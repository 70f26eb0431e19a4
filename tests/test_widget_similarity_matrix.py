"""SimilarityMatrix: its numbers are cosines, its pictures show what they should, mistakes are told in words."""

import pytest
from explorers import controls, rows
from torch.nn.functional import cosine_similarity

from course_lib.alignment import load_alignment
from course_lib.data.captions import SINGLE
from course_lib.evaluation import load_judge
from course_lib.text_encoder import embed_captions
from course_lib.widgets import similarity_matrix
from course_lib.widgets.similarity_matrix import pictures_of, scene


def test_the_table_holds_the_cosines_of_torch():
    explorer = similarity_matrix()
    parts = controls(explorer)
    parts["captions"].value = texts = "a small red star\n很大的蓝色圆形\n\nsomething else"
    parts["pictures of"].value = "a small red star on navy\na large blue circle"
    model, tokenizer = load_alignment("align-shapes-64")
    vectors = embed_captions(model.text_encoder, tokenizer, texts.replace("\n\n", "\n").splitlines())
    seen = model.image_encoder(pictures_of([scene(line) for line in parts["pictures of"].value.splitlines()]))
    fits = cosine_similarity(vectors[:, None], seen[None], dim=-1)  # (3, 2)
    expected = [
        [str(row.argmax().item() + 1), f"{row.max():.2f}", f"{(row.max() - row.min()).item():.2f}"] for row in fits
    ]
    assert [row[1:] for row in rows(explorer)] == expected and [row[1] for row in rows(explorer)[:2]] == ["1", "2"]
    back = fits.argmax(0).tolist()
    assert f"picture 1 finds caption {back[0] + 1}, 2 finds caption {back[1] + 1}" in explorer.words.value
    explorer.close()


def test_a_picture_shows_what_its_line_says_and_the_rest_is_filled_in():
    lines = ["a tiny azure hoop at the top left on ivory", "很小的绿色心形", "a star"]
    judge = load_judge(64)
    read = judge.read(pictures_of([scene(line) for line in lines])).tolist()
    seen = [[values[i] for i, values in zip(row, SINGLE.values(), strict=True)] for row in read]
    assert seen[0] == ["small", "blue", "ring", "top left", "cream"]
    assert seen[1][:3] == ["small", "green", "heart"] and seen[2][2] == "star"


def test_the_model_for_pairs_tells_who_is_left_and_the_other_does_not():
    explorer = similarity_matrix("word-order twins", "align-shapes-64")
    assert [row[1] for row in rows(explorer)][:4] == ["1", "2", "3", "1"]
    controls(explorer)["model"].value = "align-shapes-32"
    assert max(float(row[3]) for row in rows(explorer)[:3]) < 0.05
    explorer.close()


@pytest.mark.parametrize(
    ("box", "text", "told"),
    [
        ("pictures of", "a dog", "names no shape"),
        ("pictures of", "a red ring left of a red ring", "look the same"),
        ("captions", "", "0 lines; write 1 to 6"),
        ("captions", "x\n" * 7, "7 lines; write 1 to 6"),
        ("captions", "vermilion " * 20, "shorten the text"),
    ],
)
def test_mistakes_are_told_and_the_next_example_works(box, text, told):
    explorer = similarity_matrix()
    controls(explorer)[box].value = text
    assert told in explorer.alarm.value
    controls(explorer)["example"].value = "other words"
    assert explorer.alarm.value == "" and [row[1] for row in rows(explorer)] == ["1", "1", "1", "2", "2"]
    explorer.close()
