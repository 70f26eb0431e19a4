"""Every mark is recomputed by hand on numbers small enough to do so."""

import pytest
import torch

from course_lib.checkpoint import dataclass_from_dict
from course_lib.data.captions import PAIR, SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.metrics import (
    AttributeJudge,
    JudgeConfig,
    attribute_accuracy,
    bradley_terry,
    canonical_pair,
    damage,
    diversity_ratio,
    fit_judge,
    mean_distance,
)

SCENES = [
    {"size": "small", "color": "red", "shape": "circle", "position": "top left", "background": "navy"},
    {"size": "large", "color": "blue", "shape": "ring", "position": "center", "background": "gray"},
]
LEFT = {
    "color": "red", "shape": "circle", "relation": "left of", "color2": "blue", "shape2": "star", "background": "gray",
}  # fmt: skip
RIGHT = {  # the same picture
    "color": "blue", "shape": "star", "relation": "right of", "color2": "red", "shape2": "circle", "background": "gray",
}  # fmt: skip


@pytest.fixture
def judge():
    return AttributeJudge(JudgeConfig(16, 2)).eval()


@pytest.fixture
def judge_of_pairs():
    return AttributeJudge(JudgeConfig(16, 2, "pair")).eval()


# ---- the judge


def test_labels_are_the_places_of_the_words(judge):
    names = [[SINGLE[name][i] for name, i in zip(SINGLE, row, strict=True)] for row in judge.labels(SCENES).tolist()]
    assert names == [list(scene.values()) for scene in SCENES]
    assert judge.labels(SCENES).shape == (2, 5)


def test_labels_do_not_depend_on_the_order_of_the_attributes(judge):
    assert torch.equal(judge.labels([dict(reversed(SCENES[0].items()))]), judge.labels(SCENES[:1]))


def test_there_is_one_softmax_for_each_attribute(judge):
    logits = judge(torch.randn(3, 3, 16, 16))
    assert [x.shape for x in logits] == [(3, len(values)) for values in SINGLE.values()]


def test_the_judge_reads_the_largest_logit_of_each_attribute(judge, monkeypatch):
    planned = torch.tensor([[0, 3, 7, 4, 2], [1, 0, 0, 2, 1]])
    rows = [torch.nn.functional.one_hot(planned[:, i], n).float() for i, n in enumerate(judge.n_values)]
    monkeypatch.setattr(judge, "forward", lambda images: rows)
    assert torch.equal(judge.read(torch.zeros(2, 3, 16, 16)), planned)


def test_reading_in_parts_changes_nothing(judge):
    images = torch.randn(7, 3, 16, 16)
    assert torch.equal(judge.read(images, batch_size=3), judge.read(images))


def test_impossible_judges_are_refused():
    with pytest.raises(CourseError, match="width=1000000000"):
        AttributeJudge(JudgeConfig(16, 10**9))
    with pytest.raises(CourseError, match='scene="mixed".*pair, single'):
        JudgeConfig(scene="mixed")


def test_a_judge_saved_before_there_were_pairs_reads_single_objects():
    assert dataclass_from_dict(JudgeConfig, {"image_size": 64, "width": 16}, "config.json").scene == "single"


# ---- pairs: a picture does not tell which object was named first


def test_both_ways_to_tell_a_picture_have_one_canonical_form():
    assert canonical_pair(LEFT) == canonical_pair(RIGHT) == LEFT
    assert canonical_pair({**LEFT, "relation": "below"}) == {**RIGHT, "relation": "above"}
    assert canonical_pair({**LEFT, "relation": "above"}) == {**LEFT, "relation": "above"}
    assert canonical_pair({**LEFT, "relation": "right of"}) != LEFT  # the objects have changed places
    assert list(canonical_pair(RIGHT)) == list(PAIR)


def test_labels_of_pairs_are_canonical(judge_of_pairs):
    left, right, below = judge_of_pairs.labels([LEFT, RIGHT, {**LEFT, "relation": "below"}]).tolist()
    assert left == right == [0, 0, 0, 2, 3, 1]  # red circle, left of, blue star, gray
    assert below == [2, 3, 1, 0, 0, 1]  # blue star, above, red circle, gray
    assert [x.shape[1] for x in judge_of_pairs(torch.zeros(2, 3, 16, 16))] == [8, 8, 2, 8, 8, 3]


@pytest.mark.parametrize("told", [LEFT, RIGHT])
def test_a_pair_is_right_if_and_only_if_the_scene_is(judge_of_pairs, monkeypatch, told):
    wrong = [{**told, name: next(v for v in PAIR[name] if v != told[name])} for name in PAIR]
    shown = judge_of_pairs.labels([LEFT, RIGHT, *wrong])
    for picture, right in zip(shown, [True, True, *[False] * 6], strict=True):
        monkeypatch.setattr(judge_of_pairs, "read", lambda images, seen=picture: seen[None])
        assert attribute_accuracy(judge_of_pairs, torch.zeros(1, 3, 16, 16), [told])["all"] == right


def test_marks_of_pairs_belong_to_the_object_that_the_caption_names_first(judge_of_pairs, monkeypatch):
    seen = judge_of_pairs.labels([{**LEFT, "color": "green", "background": "navy"}, {**LEFT, "shape": "ring"}])
    monkeypatch.setattr(judge_of_pairs, "read", lambda images: seen)
    images = torch.zeros(2, 3, 16, 16)
    marks = {"color": 0.5, "shape": 0.5, "relation": 1, "color2": 1, "shape2": 1, "background": 0.5, "all": 0}
    assert attribute_accuracy(judge_of_pairs, images, [LEFT, LEFT]) == marks
    turned = {"color": 1, "shape": 1, "relation": 1, "color2": 0.5, "shape2": 0.5, "background": 0.5, "all": 0}
    assert attribute_accuracy(judge_of_pairs, images, [RIGHT, RIGHT]) == turned
    half = {"color": 0.5, "shape": 1, "relation": 1, "color2": 1, "shape2": 0.5, "background": 0.5, "all": 0}
    assert attribute_accuracy(judge_of_pairs, images, [LEFT, RIGHT]) == half


def test_objects_that_changed_places_have_wrong_colors_and_shapes(judge_of_pairs, monkeypatch):
    seen = judge_of_pairs.labels([{**LEFT, "relation": "right of"}])
    monkeypatch.setattr(judge_of_pairs, "read", lambda images: seen)
    marks = attribute_accuracy(judge_of_pairs, torch.zeros(1, 3, 16, 16), [LEFT])
    assert marks == {"color": 0, "shape": 0, "relation": 1, "color2": 0, "shape2": 0, "background": 1, "all": 0}


def test_a_judge_refuses_scenes_that_it_cannot_read(judge, judge_of_pairs):
    with pytest.raises(CourseError, match='is no scene="pair".*scene="single"'):
        attribute_accuracy(judge_of_pairs, torch.zeros(1, 3, 16, 16), SCENES[:1])
    with pytest.raises(CourseError, match='is no scene="single".*scene="pair"'):
        judge.labels([*SCENES, LEFT])


# ---- accuracy


def test_accuracy_by_hand(judge, monkeypatch):
    scenes = SCENES * 2
    seen = judge.labels(scenes)
    seen[0, 0] = 1 - seen[0, 0]  # one wrong size
    seen[0, 1] += 1  # and, on the same picture, a wrong colour
    seen[1, 1] += 1  # a wrong colour on another
    monkeypatch.setattr(judge, "read", lambda images: seen)
    marks = attribute_accuracy(judge, torch.zeros(4, 3, 16, 16), scenes)
    assert marks == {"size": 0.75, "color": 0.5, "shape": 1, "position": 1, "background": 1, "all": 0.5}


@pytest.mark.parametrize("image_size", [32, 64])
def test_the_shipped_judges_know_real_pictures(image_size):
    exam = CaptionedShapes("all", image_size, seed=77, length=600)
    marks = attribute_accuracy(
        load_judge(image_size), exam.images(range(600)), [exam.attributes(i) for i in range(600)]
    )
    assert min(marks.values()) >= 0.99, marks


def test_the_shipped_judge_is_not_fooled_by_the_wrong_caption():
    exam = CaptionedShapes("all", 32, seed=78, length=300)
    scenes = [exam.attributes(i) for i in range(300)]
    marks = attribute_accuracy(load_judge(32), exam.images(range(300)), scenes[1:] + scenes[:1])
    assert marks["all"] < 0.05 and marks["shape"] < 0.3, marks


# ---- training a judge


def test_damage_is_noise_of_another_strength_on_every_picture():
    images = torch.zeros(200, 3, 32, 32)
    strengths = damage(images, torch.Generator().manual_seed(0)).flatten(1).std(1)
    assert images.abs().max() == 0, "the pictures given stay as they are"
    assert 0 <= strengths.min() < 0.02 and 0.13 < strengths.max() < 0.16
    assert strengths.mean().item() == pytest.approx(0.075, abs=0.01)


def test_damage_is_repeatable_and_fair():
    images = torch.rand(50, 3, 16, 16)
    first, again, other = (damage(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first - images).mean().abs() < 0.005 and first.dtype == torch.float32


def test_a_few_steps_make_a_judge_better_than_chance():
    judge = fit_judge(JudgeConfig(16, 8), steps=60, batch_size=64, learning_rate=5e-3, seed=0)
    assert not judge.training
    exam = CaptionedShapes("all", 16, seed=5, length=300)
    marks = attribute_accuracy(judge, exam.images(range(300)), [exam.attributes(i) for i in range(300)])
    assert marks["background"] > 0.9 and marks["position"] > 0.8 and marks["color"] > 0.4, marks  # chance: 33, 20, 13 %


def test_a_few_steps_on_pairs_tell_who_stands_where():
    judge = fit_judge(JudgeConfig(16, 8, "pair"), steps=80, batch_size=64, learning_rate=5e-3, seed=0)
    exam = CaptionedShapes("all", 16, seed=5, length=300, scene="pair")
    images, scenes = exam.images(range(300)), [exam.attributes(i) for i in range(300)]
    marks = attribute_accuracy(judge, images, scenes)
    assert marks["background"] > 0.9 and marks["relation"] > 0.9, marks
    assert min(marks["color"], marks["color2"]) > 0.4, marks  # chance: 13 %
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    marks = attribute_accuracy(judge, images, [{**scene, "relation": opposite[scene["relation"]]} for scene in scenes])
    assert max(marks["color"], marks["color2"]) < 0.3, marks


# ---- diversity


def plain(*levels: float) -> torch.Tensor:
    """Pictures of one grey each: (1, K, 3, 4, 4)."""
    return torch.tensor(levels).view(1, -1, 1, 1, 1).expand(-1, -1, 3, 4, 4)


def test_mean_distance_by_hand():
    assert mean_distance(plain(0.0, 1.0)) == pytest.approx(1)
    assert mean_distance(plain(0.0, 1.0, 3.0)) == pytest.approx((1 + 3 + 2) / 3)
    assert mean_distance(plain(0.5, 0.5, 0.5)) == pytest.approx(0, abs=1e-6)


def test_distances_are_within_a_caption_only():
    far_apart = torch.cat([plain(-1.0, -1.0), plain(1.0, 1.0)])
    assert mean_distance(far_apart) == pytest.approx(0, abs=1e-6)
    assert mean_distance(torch.cat([plain(0.0, 1.0), plain(0.0, 0.5)])) == pytest.approx(0.75)


def test_distance_is_the_root_of_the_mean_square_over_pixels():
    images = torch.zeros(1, 2, 3, 4, 4)
    images[0, 1, :, :2] = 2.0  # half of the pixels differ by 2: the root of 2
    assert mean_distance(images) == pytest.approx(2**0.5)


def test_diversity_ratio_by_hand():
    real = torch.cat([plain(0.0, 1.0, 2.0), plain(-1.0, 0.0, 1.0)])
    assert diversity_ratio(real, real) == pytest.approx(1)
    assert diversity_ratio(real / 2, real) == pytest.approx(0.5)
    assert diversity_ratio(torch.zeros_like(real), real) == pytest.approx(0, abs=1e-6)


# ---- who is preferred


def test_of_two_the_strengths_are_their_shares_of_wins():
    assert bradley_terry(torch.tensor([[0, 3], [1, 0]])).tolist() == pytest.approx([0.75, 0.25])


def test_strengths_of_three_are_those_that_the_games_were_made_of():
    # strengths 4, 2, 1: in 15 games each, 4 against 2 is won 15 * 4/6 = 10 times, 4 against 1 12, 2 against 1 10 times
    wins = torch.tensor([[0.0, 10, 12], [5, 0, 10], [3, 5, 0]])
    assert bradley_terry(wins).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_strengths_need_not_all_have_met():
    # the first beat the second 2 : 1, the second the third 2 : 1; the first and the third never met
    assert bradley_terry(torch.tensor([[0, 2, 0], [1, 0, 2], [0, 1, 0]])).tolist() == pytest.approx(
        [4 / 7, 2 / 7, 1 / 7]
    )


@pytest.mark.parametrize("wins", [[[0, 3], [0, 0]], [[0, 1, 1], [1, 0, 1], [0, 0, 0]], [[0.0]] * 2, [[0, -1], [1, 0]]])
def test_strengths_that_nothing_decides_are_refused(wins):
    with pytest.raises(CourseError, match="wins"):
        bradley_terry(torch.tensor(wins, dtype=torch.float64))
