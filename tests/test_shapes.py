"""The renderer draws what the attributes say."""

import math

import pytest
import torch

from course_lib.data import CaptionedShapes
from course_lib.data.captions import PAIR, SINGLE, parse, scene_of
from course_lib.data.shapes import (
    CENTERS,
    COLORS,
    JITTER,
    RADII,
    SHAPES,
    combinations,
    draw_object,
    told_from_the_other,
)
from course_lib.errors import CourseError
from course_lib.metrics import canonical_pair

AREAS = {  # of each shape at radius 1, by hand
    "circle": math.pi,
    "square": 1.64**2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,
    "star": 5 * 1.12 * 0.48 * math.sin(math.pi / 5),
    "ring": math.pi * (1 - 0.25),
    "cross": 2 * 2 * 0.6 - 0.6**2,
}


def mask(name: str, size: int = 128, radius: float = 0.5, angle: float = 0.0) -> torch.Tensor:
    """One white shape on black, its coverage (S, S)."""
    canvas, white = torch.zeros(1, 3, size, size), torch.ones(1, 3)
    return draw_object(canvas, [name], white, torch.zeros(1, 2), torch.tensor([radius]), torch.tensor([angle]))[0, 0]


@pytest.mark.parametrize("name", AREAS)
def test_shapes_have_the_area_of_their_formula(name):
    area = mask(name).mean().item() * 4 / 0.5**2  # the picture is 2 x 2, the radius a half
    assert area == pytest.approx(AREAS[name], rel=0.02)


@pytest.mark.parametrize("name", SHAPES)
def test_edges_are_antialiased_and_shapes_are_whole(name):
    coverage = mask(name)
    edge = ((coverage > 0) & (coverage < 1)).float().mean()
    assert 0 < edge < 0.1
    assert coverage[0].max() == coverage[-1].max() == coverage[:, 0].max() == 0  # nothing is cut off at the border
    assert coverage.max() == 1


@pytest.mark.parametrize("name", SHAPES)
def test_small_shapes_differ_at_32_pixels(name):
    mine = mask(name, 32, RADII["small"])
    for other in SHAPES.keys() - {name}:
        assert (mine - mask(other, 32, RADII["small"])).abs().sum() > 10  # pixels, of about 60 covered


def test_shapes_stand_upright():
    assert mask("triangle")[:64].sum() < mask("triangle")[64:].sum()  # point up
    assert mask("heart")[:64].sum() > mask("heart")[64:].sum()  # point down
    assert mask("crescent")[:, :64].sum() > mask("crescent")[:, 64:].sum()  # open to the right
    assert mask("star")[:64, 64].sum() > mask("star")[64:, 64].sum()  # one tip up


def test_pictures_show_their_attributes():
    pictures = CaptionedShapes(image_size=64, length=300)
    for i in range(len(pictures)):
        scene, image = pictures.attributes(i), (pictures[i][0] + 1) / 2
        ground = torch.tensor(COLORS[scene["background"]])
        corner = image[:, :2, 30:34].mean((1, 2))  # the middle of the top edge is ground, whatever is drawn
        assert (corner - ground).abs().max() <= JITTER["shade"] / 2 + 0.01
        ink = ((image - corner[:, None, None]).abs().amax(0) > 0.15).float()
        y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
        center = torch.stack([(ink * x).sum(), (ink * y).sum()]) / ink.sum()
        nearest = min(list(CENTERS)[:5], key=lambda p: (center - torch.tensor(CENTERS[p])).norm())
        assert nearest == scene["position"]
        extent = ink.any(0).float().mean()  # width of the object over width of the picture
        assert (extent > 0.37) == (scene["size"] == "large") or scene["shape"] in ("triangle", "crescent")


def test_pair_relation_holds_in_the_picture():
    pairs = CaptionedShapes(image_size=64, length=200, scene="pair")
    for i in range(len(pairs)):
        scene, image = pairs.attributes(i), (pairs[i][0] + 1) / 2
        first, second = (torch.tensor(COLORS[scene[k]])[:, None, None] for k in ("color", "color2"))
        if scene["color"] == scene["color2"]:
            continue
        near_first = (image - first).abs().sum(0) < 0.25
        near_second = (image - second).abs().sum(0) < 0.25
        (y1, x1), (y2, x2) = (m.nonzero().float().mean(0).tolist() for m in (near_first, near_second))
        offset = {"left of": x2 - x1, "right of": x1 - x2, "above": y2 - y1, "below": y1 - y2}[scene["relation"]]
        assert offset > 10, scene


def still(wanted: list[tuple[str, ...]]) -> torch.Tensor:
    """The pictures of combinations without any chance in them: (N, 3, 64, 64)."""
    pictures = CaptionedShapes("all", 64, length=len(wanted))
    pictures.combinations, pictures.order = wanted, list(range(len(wanted)))
    pictures.jitter = torch.zeros(len(wanted), 3, 7)
    return pictures.images(range(len(wanted)))


def test_told_from_the_other_object_a_pair_is_the_same_picture():
    told = combinations("pair", "heldout")[:60]
    turned = [told_from_the_other(c) for c in told]
    assert all(a != b and told_from_the_other(b) == a for a, b in zip(told, turned, strict=True))
    torch.testing.assert_close(still(told), still(turned))
    places_changed = [(*c[:2], t[2], *c[3:]) for c, t in zip(told, turned, strict=True)]
    assert (still(told) - still(places_changed)).abs().flatten(1).amax(1).min() > 0.1


def test_pictures_are_the_same_in_every_release():
    """Models were trained on them, and their scores are of these pictures."""
    single, pair = (CaptionedShapes(image_size=32, seed=3, length=50, scene=scene) for scene in ("single", "pair"))
    assert single.caption(0) == "a small yellow crescent at the center on navy"
    assert pair.caption(0) == "a red crescent right of a pink ring on gray"
    assert single.images(range(50)).double().mean().item() == pytest.approx(0.0613773, abs=1e-6)
    assert pair.images(range(50)).double().mean().item() == pytest.approx(-0.0447372, abs=1e-6)


# ---- one and two objects, mixed


@pytest.fixture(scope="module")
def mixed():
    return CaptionedShapes(image_size=32, length=200, scene="mixed", language="both", captions="varied", seed=1)


def test_half_of_mixed_pictures_show_two_objects_in_both_languages(mixed):
    kinds = [(scene_of(mixed.attributes(i)), mixed.caption(i).isascii()) for i in range(200)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        (scene, ascii_only): 50 for scene in ("single", "pair") for ascii_only in (True, False)
    }
    for i in range(0, 200, 20):  # no stretch of the data set is of one kind
        assert [kind for kind, _ in kinds[i : i + 20]].count("pair") == 10


def test_mixed_pictures_are_drawn_as_those_of_their_kind(mixed):
    images = mixed.images(range(200))
    for scene in ("single", "pair"):
        rows = [i for i in range(200) if scene_of(mixed.attributes(i)) == scene]
        alone = CaptionedShapes("all", 32, length=len(rows), scene=scene)
        alone.combinations, alone.order = mixed.combinations, [mixed.order[i] for i in rows]
        alone.jitter = mixed.jitter[rows]
        torch.testing.assert_close(images[rows], alone.images(range(len(rows))))
    torch.testing.assert_close(mixed[3][0], images[3])
    torch.testing.assert_close(mixed.images([150, 3, 1]), images[[150, 3, 1]])


def test_mixed_captions_fit_the_picture(mixed):
    for i in range(200):
        said = parse(mixed.caption(i))
        assert said.items() <= mixed.attributes(i).items() and len(said) >= 2, mixed.caption(i)


def test_mixed_combinations_come_up_equally_often():
    pictures = CaptionedShapes("heldout", 16, length=800, scene="mixed")
    seen = [tuple(pictures.attributes(i).values()) for i in range(800)]
    single, pair = [c for c in seen if len(c) == len(SINGLE)], [c for c in seen if len(c) == len(PAIR)]
    assert {single.count(c) for c in single} == {2, 3} and len(set(single)) == 192  # 400 of 192
    assert len(set(pair)) == len(pair) == 400


def test_no_model_trained_on_mixed_scenes_has_seen_a_held_out_picture():
    heldout, train = (set(combinations("mixed", split)) for split in ("heldout", "train"))
    assert heldout == {*combinations("single", "heldout"), *combinations("pair", "heldout")}
    assert train < {*combinations("single", "train"), *combinations("pair", "train")}
    assert not train & heldout
    pairs = [c for c in train if len(c) == len(PAIR)]
    assert len(train) - len(pairs) == 1728 and len(pairs) > 0.8 * len(combinations("pair", "all"))
    assert not {told_from_the_other(c) for c in pairs} & heldout
    for k, values in enumerate(PAIR.values()):
        assert {c[k] for c in pairs} == set(values)
    assert len(combinations("mixed", "all")) == len({*combinations("single", "all"), *combinations("pair", "all")})


def test_the_split_is_a_fixed_tenth():
    train, heldout = combinations("single", "train"), combinations("single", "heldout")
    assert len(heldout) == 192 and len(train) == 1728 and not set(train) & set(heldout)
    assert heldout[0] == ("large", "orange", "heart", "center", "navy")  # the same in every release
    assert set(combinations("single", "all")) == set(train) | set(heldout)
    for k, values in enumerate(SINGLE.values()):  # every value is seen in training, and asked for in the exam
        assert {c[k] for c in train} == {c[k] for c in heldout} == set(values)
    assert len(combinations("pair", "heldout")) == len(combinations("pair", "all")) // 10


def test_a_picture_does_not_depend_on_how_it_is_asked_for():
    pictures = CaptionedShapes(image_size=32, length=20, captions="varied", language="both", seed=4)
    together = pictures.images(range(20))
    again = CaptionedShapes(image_size=32, length=20, captions="varied", language="both", seed=4)
    for i in (19, 3, 0):
        image, caption = again[i]
        torch.testing.assert_close(image, together[i])
        assert caption == pictures.caption(i)
    assert image.dtype == torch.float32 and image.shape == (3, 32, 32) and image.min() >= -1 and image.max() <= 1
    assert not torch.equal(CaptionedShapes(image_size=32, length=20, seed=5).images(range(20)), together)


def test_combinations_come_up_equally_often():
    pictures = CaptionedShapes("heldout", 16, length=384)
    counts = {}
    for i in range(384):
        counts[tuple(pictures.attributes(i).values())] = counts.get(tuple(pictures.attributes(i).values()), 0) + 1
    assert set(counts.values()) == {2} and len(counts) == 192


def test_captions_fit_the_picture_and_both_languages_occur():
    pictures = CaptionedShapes(image_size=16, length=40, language="both")
    assert all(parse(pictures.caption(i)) == pictures.attributes(i) for i in range(40))
    assert {pictures.caption(i).isascii() for i in range(40)} == {True, False}


def test_small_grammar_keeps_what_it_says():
    pictures = CaptionedShapes(image_size=16, length=500, grammar="small")
    assert {pictures.attributes(i)["shape"] for i in range(500)} == {"circle", "square", "triangle", "ring"}


def test_indices_behave_like_a_list():
    pictures = CaptionedShapes(image_size=16, length=3)
    torch.testing.assert_close(pictures[-1][0], pictures[2][0])
    with pytest.raises(IndexError):
        pictures[3]
    assert len(CaptionedShapes(length=0)) == 0
    assert len(PAIR) == 6


@pytest.mark.parametrize(
    "wrong", [{"split": "test"}, {"image_size": 48}, {"language": "de"}, {"captions": "x"}, {"scene": "three"}]
)
def test_wrong_arguments_are_named_with_the_remedy(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(CourseError, match=f"{name}=.*{value}"):
        CaptionedShapes(**wrong)


def test_twins_have_the_same_words_and_another_picture():
    pairs = CaptionedShapes("train", 64, length=400, scene="mixed")
    twins, told = pairs.twins(), {"colours": 0, "objects": 0}
    known = set(combinations("mixed", "train"))
    for i in range(400):
        own, other = pairs.attributes(i), twins.attributes(i)
        assert tuple(other.values()) in known  # never a held-out picture
        assert sorted(pairs.caption(i).split()) == sorted(twins.caption(i).split())
        if own == other:
            continue
        assert own["relation"] == other["relation"] and canonical_pair(own) != canonical_pair(other)
        told["colours" if own["shape"] == other["shape"] else "objects"] += 1
    assert min(told.values()) > 40, told
    assert CaptionedShapes("train", 64, length=8).twins() is None


def test_a_twin_is_drawn_with_the_jitter_of_the_original():
    pairs = CaptionedShapes("train", 64, length=40, scene="pair")
    images, twins = pairs.images(range(40)), pairs.twins().images(range(40))
    same = [i for i in range(40) if pairs.attributes(i) == pairs.twins().attributes(i)]
    assert 0 < len(same) < 20 and torch.equal(images[same], twins[same])
    assert all(not torch.equal(images[i], twins[i]) for i in range(40) if i not in same)
