"""The grammar writes what the parser reads, in both languages."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.captions import (
    GRAMMARS,
    LANGUAGES,
    PAIR,
    SINGLE,
    TEMPLATES,
    WORDS,
    describe,
    fill,
    parse,
    vocabulary,
    words_of,
)
from course_lib.data.shapes import combinations
from course_lib.errors import CourseError

SCENES = [dict(zip(SINGLE, values, strict=True)) for values in itertools.product(*SINGLE.values())]
PAIRS = [dict(zip(PAIR, values, strict=True)) for values in combinations("pair", "heldout")]


@pytest.mark.parametrize("style", ["canonical", "unseen"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_scene_is_read_back_exactly(language, style):
    for i, scene in enumerate(SCENES + PAIRS):
        caption = describe(scene, language, style, seed=i)
        assert parse(caption) == scene, caption


@pytest.mark.parametrize("language", LANGUAGES)
def test_varied_captions_say_nothing_wrong_and_sometimes_less(language):
    omitted = 0
    for i, scene in enumerate(SCENES):
        found = parse(describe(scene, language, "varied", seed=i))
        assert found.items() <= scene.items() and {"color", "shape"} <= found.keys()
        omitted += len(scene) - len(found)
    assert 0.07 < omitted / (3 * len(SCENES)) < 0.13  # size, position and background, one time in ten each


@pytest.mark.parametrize("key", TEMPLATES)
def test_every_template_with_every_synonym_is_read_back(key):
    language, scene, _ = key
    for name, values in (SINGLE if scene == "single" else PAIR).items():
        for value in values:
            for template, word in itertools.product(TEMPLATES[key], WORDS[language][value]):
                base = SCENES[777] if scene == "single" else PAIRS[777]
                words = {slot: WORDS[language][v][0] for slot, v in base.items()} | {name: word}
                assert parse(fill(template, words))[name] == value, (template, word)


@pytest.mark.parametrize(
    ("text", "first", "relation", "second"),
    [
        ("a red star left of a blue ring", "red star", "left of", "blue ring"),
        ("to the left of a blue ring there is a red star", "red star", "left of", "blue ring"),
        ("on gray: below a blue ring, a red star", "red star", "below", "blue ring"),
        ("a blue ring with a red star over it", "red star", "above", "blue ring"),
        ("红色星形在蓝色圆环的左边", "red star", "left of", "blue ring"),
        ("蓝色圆环的左边有一个红色星形", "red star", "left of", "blue ring"),
        ("在蓝色的圆环下面画一个红色的星星", "red star", "below", "blue ring"),
        ("上面是红色星形，下面是蓝色圆环", "red star", "above", "blue ring"),
    ],
)
def test_the_relation_tells_which_of_two_objects_stands_there(text, first, relation, second):
    said = parse(text)
    assert f"{said['color']} {said['shape']}" == first and f"{said['color2']} {said['shape2']}" == second
    assert said["relation"] == relation


@pytest.mark.parametrize("style", ["varied", "noisy"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_varied_captions_of_pairs_name_both_objects_and_sometimes_no_background(language, style):
    silent = 0
    for i, scene in enumerate(PAIRS):
        caption = describe(scene, language, style, seed=i)
        unsaid = scene.items() - parse(caption).items()
        assert unsaid <= {("background", scene["background"])}, caption
        silent += len(unsaid)
    assert 0.08 < silent / len(PAIRS) < 0.12


@pytest.mark.parametrize("language", LANGUAGES)
def test_pairs_are_told_from_either_end(language):
    pair = {"color": "red", "shape": "star", "relation": "above", "color2": "blue", "shape2": "triangle"}
    captions = [describe(pair, language, "varied", seed=i) for i in range(400)]
    star, triangle = WORDS[language]["star"], WORDS[language]["triangle"]
    turned = sum(min(c.find(w) for w in triangle if w in c) < min(c.find(w) for w in star if w in c) for c in captions)
    assert 0.15 < turned / len(captions) < 0.45


def test_unseen_templates_are_never_used_in_training():
    for language, scene in itertools.product(LANGUAGES, ("single", "pair")):
        assert not set(TEMPLATES[language, scene, "seen"]) & set(TEMPLATES[language, scene, "unseen"])


def test_canonical_captions_read_like_this():
    scene = {"size": "large", "color": "blue", "shape": "ring", "position": "top left", "background": "gray"}
    assert describe(scene) == "a large blue ring at the top left on gray"
    assert describe(scene, "zh") == "灰色背景上，左上角有一个大的蓝色圆环"
    assert describe({"color": "orange", "shape": "star"}) == "an orange star"
    pair = {"color": "red", "shape": "circle", "relation": "left of", "color2": "blue", "shape2": "square"}
    assert describe(pair) == "a red circle left of a blue square"


def test_a_dark_blue_ground_is_not_a_blue_object():
    assert parse("深蓝色背景上有一个红色圆形") == {"color": "red", "shape": "circle", "background": "navy"}


def test_the_same_seed_gives_the_same_words():
    texts = {describe(SCENES[5], "en", "varied", seed=3) for _ in range(5)}
    assert len(texts) == 1
    assert len({describe(SCENES[5], "en", "varied", seed=s) for s in range(50)}) > 20


def test_made_up_words_change_nothing_that_is_said():
    changed = 0
    for i, scene in enumerate(SCENES[::5]):
        for language in LANGUAGES:
            caption = describe(scene, language, "noisy", seed=i)
            assert parse(caption).items() <= scene.items() and "shape" in parse(caption), caption
            changed += not set(words_of(caption)) <= vocabulary()
    assert 0.3 < changed / (2 * len(SCENES[::5])) < 0.55


def test_vocabulary_has_every_word_of_every_caption():
    for i, scene in enumerate(SCENES[::7] + PAIRS[::31]):
        for language, style in itertools.product(LANGUAGES, ("varied", "unseen")):
            assert set(words_of(describe(scene, language, style, i))) <= vocabulary()


def test_grammars_name_known_values():
    for kept in GRAMMARS.values():
        assert all(set(values) <= set(SINGLE[name]) for name, values in kept.items())
    small = GRAMMARS["small"]
    assert len(small["shape"]) >= 4 and len(small["color"]) >= 6


@given(st.text())
def test_parse_reads_any_text_without_failing(text):
    assert parse(text).keys() <= SINGLE.keys() | PAIR.keys()


@pytest.mark.parametrize("wrong", [{"language": "fr"}, {"style": "cannonical"}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(CourseError, match=next(iter(wrong.values()))):
        describe(SCENES[0], **wrong)
