"""The audit finds what was spoilt on purpose, and lets good data pass."""

import argparse
import json

import pytest
import torch
from PIL import Image, ImageFilter

from course_lib.audit_command import command_audit
from course_lib.data import CaptionedShapes
from course_lib.data.audit import (
    LIMITS,
    AuditReport,
    audit,
    contrast,
    difference_hash,
    judge,
    near_pairs,
    sharpness,
    shrink,
)
from course_lib.data.captions import vocabulary
from course_lib.data.pictures import CaptionedPictures
from course_lib.errors import CourseError
from course_lib.images import prepare_image, save_image, to_pil


class Held(CaptionedPictures):
    """A data set of given pictures and captions; one `file_name` is one picture."""

    def __init__(self, tensor: torch.Tensor, captions: list[str], attributes: list[dict] | None = None):
        self.tensor, self.captions, self.values = tensor, captions, attributes or [{}] * len(captions)
        self.image_size = tensor.shape[-1]

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, indices) -> torch.Tensor:
        return self.tensor[list(indices)]

    def caption(self, index: int) -> str:
        return self.captions[index]

    def attributes(self, index: int) -> dict[str, str]:
        return self.values[index]

    def same_picture(self) -> list[int]:
        names = [values.get("file_name", i) for i, values in enumerate(self.values)]
        return [names.index(name) for name in names]


COUNT = 160


@pytest.fixture(scope="module")
def good() -> Held:
    shapes = CaptionedShapes(image_size=32, length=COUNT)
    captions = [shapes.caption(i) for i in range(COUNT)]
    return Held(shapes.images(range(COUNT)), captions, [shapes.attributes(i) for i in range(COUNT)])


def check(report: AuditReport, name: str):
    (found,) = [check for check in report.checks if check.name == name]
    return found


def changed(good: Held, images=None, captions=None, attributes=None) -> Held:
    return Held(
        good.tensor if images is None else images,
        good.captions if captions is None else captions,
        good.values if attributes is None else attributes,
    )


def blur(image: torch.Tensor) -> torch.Tensor:
    return prepare_image(to_pil(image).filter(ImageFilter.GaussianBlur(2.5)), image.shape[-1])


# ---- measures, by hand


def test_shrink_takes_means_of_cells_that_need_not_be_whole_pixels():
    images = torch.rand(2, 3, 12, 20)
    torch.testing.assert_close(shrink(images, 3, 5), images.view(2, 3, 3, 4, 5, 4).mean((3, 5)))
    torch.testing.assert_close(shrink(torch.tensor([[[[0.0, 3.0, 6.0]]]]), 1, 2), torch.tensor([[[[1.0, 5.0]]]]))


def test_the_hash_says_where_brightness_rises():
    ramp = torch.linspace(-1, 1, 34).expand(1, 3, 32, 34)
    assert difference_hash(ramp).sum() == 256
    assert difference_hash(-ramp).sum() == difference_hash(torch.zeros(1, 3, 32, 32)).sum() == 0


def test_sharpness_against_a_loop():
    image = torch.rand(1, 3, 5, 6)
    edges = torch.zeros(3, 3, 4)
    for c, y, x in [(c, y, x) for c in range(3) for y in range(1, 4) for x in range(1, 5)]:
        p = image[0, c]
        edges[c, y - 1, x - 1] = p[y - 1, x] + p[y + 1, x] + p[y, x - 1] + p[y, x + 1] - 4 * p[y, x]
    expected = sum(e.var() for e in edges) / sum(c.var() for c in image[0])
    torch.testing.assert_close(sharpness(image)[0], expected)


def test_a_pale_picture_is_not_taken_for_a_blurred_one(good):
    torch.testing.assert_close(sharpness(good.tensor * 0.1), sharpness(good.tensor), rtol=1e-3, atol=1e-4)
    assert sharpness(torch.stack([blur(image) for image in good.tensor])).median() < 0.04 < sharpness(good.tensor).min()
    torch.testing.assert_close(contrast(good.tensor * 0.1), contrast(good.tensor) * 0.1)


def test_copies_are_near_duplicates_and_other_shapes_are_not(good):
    looks = difference_hash(good.tensor), shrink(good.tensor, 12, 12).flatten(1)
    copies = torch.stack(
        [prepare_image(to_pil(image).resize((27, 27), Image.Resampling.BICUBIC), 32) * 0.97 for image in good.tensor]
    )
    pairs = near_pairs((difference_hash(copies), shrink(copies, 12, 12).flatten(1)), looks).tolist()
    assert sum(a == b for a, b in pairs) > 0.9 * COUNT
    assert sum(a != b for a, b in pairs) == 0


# ---- the whole audit


def test_good_data_pass(good):
    report = audit(good, vocabulary=vocabulary())
    assert not report.spoils_training
    assert [check.name for check in report.checks if check.verdict != "ok"] == ["pictures"]  # 160 are few
    assert report.looked_at == report.total == COUNT
    assert check(report, "attribute balance").value > 0.9


def spoil(good: Held, what: str) -> Held:
    half = COUNT // 2
    if what == "pictures":
        return changed(good, good.tensor[:50], good.captions[:50], good.values[:50])
    if what == "near-duplicates":
        return changed(good, torch.cat([good.tensor[:half]] * 2))
    if what == "blurred":
        return changed(good, torch.stack([blur(image) for image in good.tensor]))
    if what == "flat":
        return changed(good, torch.cat([good.tensor[:-20], torch.full((20, 3, 32, 32), 0.3)]))
    if what == "empty captions":
        return changed(good, captions=good.captions[:-4] + [""] * 4)
    if what == "captions too long":
        return changed(good, captions=["a " * 80 + caption for caption in good.captions])
    if what == "most common caption":
        return changed(good, captions=good.captions[:half] + ["a photo"] * half)
    if what == "unknown words":
        return changed(good, captions=[f"wug blicket fep dax {caption}" for caption in good.captions])
    same = [{**scene, "color": "red"} for scene in good.values]
    return changed(good, attributes=[{**same[0], "color": "blue"}, *same[1:]])  # attribute balance


SPOILT = ["pictures", "near-duplicates", "blurred", "flat", "empty captions", "captions too long"]
SPOILT += ["most common caption", "unknown words", "attribute balance"]


@pytest.mark.parametrize("what", SPOILT)
def test_what_was_spoilt_is_named(good, what):
    report = audit(spoil(good, what), vocabulary=vocabulary())
    found = check(report, what)
    if what == "unknown words":
        assert found.verdict == "look" and set(found.examples) <= {"wug", "blicket", "fep", "dax"}
    else:
        assert found.verdict == "spoils" and report.spoils_training
    allowed = {what, "near-duplicates", "near-duplicates with other captions", "pictures"}
    assert {check.name for check in report.checks if check.verdict == "spoils"} <= allowed


def test_contradicting_captions_are_told_from_copies(good):
    copies = changed(good, torch.cat([good.tensor[:80]] * 2), good.captions[:80] * 2)
    assert check(audit(copies), "near-duplicates").value == 0.5
    assert check(audit(copies), "near-duplicates with other captions").value == 0
    contradicting = changed(copies, captions=good.captions)
    assert check(audit(contradicting), "near-duplicates with other captions").value == 0.5


def test_a_training_picture_in_the_exam_is_found(good):
    exam = changed(good, good.tensor[:40], good.captions[:40], good.values[:40])
    assert check(audit(good, heldout=exam), "in training and in the exam").verdict == "spoils"
    other = CaptionedShapes("heldout", 32, length=40)
    assert check(audit(good, heldout=other), "in training and in the exam").value == 0


def test_a_picture_with_five_captions_counts_once(good):
    names = [{"file_name": f"{i // 5}.png"} for i in range(COUNT)]
    images = good.tensor[torch.arange(COUNT) // 5]
    report = audit(changed(good, images, attributes=names))
    assert report.looked_at == COUNT // 5 == check(report, "pictures").value
    assert check(report, "near-duplicates").value == 0


def test_only_n_pictures_are_decoded_but_all_captions_read(good):
    seen = []
    images = good.images
    spied = changed(good, captions=[*good.captions[:-1], ""])
    spied.images = lambda indices: seen.extend(indices) or images(indices)
    report = audit(spied, n=20)
    assert len(seen) == 20 == report.looked_at and max(seen) > 140 and min(seen) == 0
    assert check(report, "empty captions").value == 1 / COUNT


def test_the_scorer_tells_right_captions_from_wrong_ones(good):
    number = {image.sum().item(): i for i, image in enumerate(good.tensor)}

    def scorer(images, texts):
        """Knows the right caption of every picture."""
        right = [good.captions[number[image.sum().item()]] for image in images]
        return torch.tensor([[float(text == caption) for text in texts] for caption in right])

    found = check(audit(good, scorer=scorer), "caption-picture match")
    assert found.value == 1 and found.verdict == "ok"
    shifted = changed(good, captions=good.captions[1:] + good.captions[:1])
    assert check(audit(shifted, scorer=scorer), "caption-picture match").verdict == "spoils"
    blind = audit(good, scorer=lambda images, texts: torch.zeros(len(images), len(texts)))
    assert check(blind, "caption-picture match").value == 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_is_no_crash(good, count):
    little = changed(good, good.tensor[:count], good.captions[:count], good.values[:count])
    report = audit(little, heldout=little, vocabulary=vocabulary(), scorer=lambda images, texts: torch.eye(len(texts)))
    assert report.spoils_training and report.table() and json.loads(report.to_json()) and report.figure()


def test_verdicts_turn_at_their_limits():
    assert judge("", "blurred", LIMITS["blurred"].look).verdict == "ok"
    assert judge("", "blurred", LIMITS["blurred"].look + 0.01).verdict == "look"
    assert judge("", "blurred", LIMITS["blurred"].spoils + 0.01, ["a"] * 9).examples == ("a",) * 3
    assert judge("", "pictures", 1000).verdict == "ok"
    assert judge("", "pictures", 999).verdict == "look"
    assert judge("", "pictures", 99).verdict == "spoils"


# ---- what it says


def test_the_report_can_be_read_by_people_and_programs(good):
    report = audit(spoil(good, "flat"))
    table = report.table()
    assert "flat" in table and "spoils" in table and "This would spoil training." in table
    data = json.loads(report.to_json())
    assert data["spoils_training"] is True and data["looked_at"] == COUNT
    assert {"topic", "name", "value", "verdict", "examples"} == set(data["checks"][0])
    assert "flat 0.125 (spoils)" in report.figure().alt_text


def run(what, as_json=False, figure=None, n=200) -> int:
    return command_audit(argparse.Namespace(what=str(what), json=as_json, figure=figure, n=n))


def write_folder(folder, images, captions) -> None:
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        save_image(image, folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(caption, encoding="utf-8")


def test_the_command_passes_shapes_and_draws_a_figure(capsys, tmp_path):
    assert run("shapes", as_json=True, figure=tmp_path / "audit.png") == 0
    data = json.loads(capsys.readouterr().out)
    assert not data["spoils_training"] and data["total"] == 10_000
    assert "Audit" in Image.open(tmp_path / "audit.png").text["Description"]


def test_the_command_fails_a_spoilt_folder_and_says_why(good, capsys, tmp_path):
    write_folder(tmp_path, good.tensor, good.captions)
    assert run(tmp_path) == 0
    assert "smaller than asked for" in capsys.readouterr().out
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    assert run(tmp_path) == 1
    told = capsys.readouterr().out
    assert "broken or unusable" in told and "0.png (broken" in told and "would spoil training" in told


def test_a_folder_without_one_good_picture_fails(capsys, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    assert run(tmp_path) == 1
    assert "broken or unusable" in capsys.readouterr().out


@pytest.mark.parametrize("what, n, told", [("nowhere", 10, "nowhere.*shapes or emoji"), ("shapes", 0, "n=0")])
def test_wrong_arguments_are_named_with_the_remedy(what, n, told):
    with pytest.raises(CourseError, match=told):
        run(what, n=n)
