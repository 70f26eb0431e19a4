"""What is special about four explorers: a race of optimisers, a convolution step by step, a browser of data, a map."""

import json
import re
import time

import pytest
import torch
from torch.nn import functional as F

from course_lib.data import CaptionedFolder, CaptionedShapes
from course_lib.data.audit import audit
from course_lib.errors import CourseError
from course_lib.images import save_image, to_pil
from course_lib.widgets import convolution_stepper, dataset_browser, latent_map, optimizer_race
from course_lib.widgets.base import Explorer, leaves
from course_lib.widgets.convolution_stepper import NUMBERS, PICTURE
from course_lib.widgets.latent_map import CANVAS, STAMP, lay_out
from course_lib.widgets.optimizer_race import SURFACES


def controls(found: Explorer) -> dict:
    return {control.description: control for control in leaves(found.children[1:2])}


def settled(found: Explorer) -> Explorer:
    for task in found.tasks:
        task.join(60)
    return found


def rows(found: Explorer) -> list[list[str]]:
    """The cells of the table in the words below the picture."""
    lines = re.findall(r"<tr>(.*?)</tr>", found.words.value)
    return [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in lines[1:]]


def plain(found: Explorer) -> str:
    return re.sub(r"\s*<[^>]*>\s*", " ", found.words.value)


# ---- optimizer_race


@pytest.mark.parametrize(("surface", "rate"), [("narrow valley", 0.05), ("saddle", 0.1), ("bent valley", 0.02)])
def test_the_race_goes_as_torch_optim_goes(surface, rate):
    ground = SURFACES[surface]
    found = optimizer_race(surface, rate, steps=30)
    controls(found)["beta 1"].value = 0.8
    theirs = {
        "gradient descent": lambda point: torch.optim.SGD([point], rate),
        "momentum": lambda point: torch.optim.SGD([point], rate, momentum=0.8),
        "Adam": lambda point: torch.optim.Adam([point], rate, (0.8, 0.999)),
    }
    for (name, gap, loss), make in zip(rows(found), theirs.values(), strict=True):
        point = torch.tensor(ground.start, requires_grad=True)
        optimizer = make(point)
        for _ in range(30):
            optimizer.zero_grad()
            ground.loss(*point).backward()
            optimizer.step()
        away = min((point - torch.tensor(place)).norm().item() for place in ground.minima)
        assert name in theirs and gap == f"{away:.4f}" and loss == f"{ground.loss(*point).item():.5f}"


def test_the_minima_are_minima():
    for ground in SURFACES.values():
        for place in ground.minima:
            point = torch.tensor(place, requires_grad=True)
            (slope,) = torch.autograd.grad(ground.loss(*point), point)
            around = [ground.loss(*(point + 0.1 * torch.randn(2))) for _ in range(20)]
            assert slope.norm() < 1e-5 and min(around) > ground.loss(*point)


def test_without_its_correction_adams_first_step_is_3_16_times_as_long():
    found = optimizer_race("bowl", 0.1, steps=1)
    gap = {}
    for corrected in (True, False):
        controls(found)["bias correction"].value = corrected
        gap[corrected] = float(rows(found)[2][1])
    start = torch.tensor([-2.0, 1.0])
    for corrected, length in ((True, 0.1), (False, 0.1 * (1 - 0.9) / (1 - 0.999) ** 0.5)):
        assert abs((start + length * torch.tensor([1.0, -1.0])).norm() - gap[corrected]) < 1e-3


def test_who_leaves_the_map_is_told_and_the_others_go_on():
    found = optimizer_race("narrow valley", 0.2)  # beyond two over the curvature, 0.08
    (descent, momentum, adam), alt = rows(found), found.picture.value
    assert descent[1] == momentum[1] == "off the map" and float(adam[1]) < 1
    # its y is 1 at first and multiplied by 1 - 0.2 * 25 = -4 at each step: beyond 100 after step 4
    assert descent[2] == "left it for good at step 4" and "left it for good at step 4" in alt
    assert "the nearest to a minimum is Adam" in plain(found) and found.alarm.value == ""


@pytest.mark.parametrize(("wrong", "remedy"), [({"surface": "bowls"}, '"bowl"'), ({"steps": 0}, "1 to 200")])
def test_a_race_that_cannot_be_is_refused(wrong, remedy):
    with pytest.raises(CourseError, match=remedy):
        optimizer_race(**wrong)


# ---- convolution_stepper

SETTINGS = [
    ("-1 1; -1 1", 1, 0, 1),
    ("1 2 3; 4 5 6; 7 8 9", 2, 1, 1),
    ("1 -2 3", 1, 1, 3),
    ("1 2; 3 4; 5 6; 7 8", 3, 2, 2),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
@pytest.mark.parametrize(("text", "stride", "padding", "dilation"), SETTINGS)
def test_after_the_last_step_the_numbers_are_torchs(text, stride, padding, dilation, transposed):
    found = convolution_stepper(text, transposed=transposed)
    hands = controls(found)
    for name, value in {"stride": stride, "padding": padding, "dilation": dilation}.items():
        hands[name].value = value
    hands["step"].value = hands["step"].max
    kernel = torch.tensor([[float(x) for x in row.split()] for row in text.split(";")])[None, None]
    if transposed:  # the margin, which the padding crops, is shown too
        theirs = F.conv_transpose2d(NUMBERS[None, None], kernel, None, stride, 0, 0, 1, dilation)[0, 0]
    else:
        theirs = F.conv2d(PICTURE[None, None], kernel, None, stride, padding, dilation)[0, 0]
    ours = re.search(r"row by row: (.*?)\.<br>", found.words.value)[1].split("; ")
    assert torch.equal(torch.tensor([[float(x) for x in row.split()] for row in ours]), theirs)
    assert "All steps together are equal to conv" in plain(found) and found.alarm.value == ""


def test_each_window_is_multiplied_and_added_in_words():
    found = convolution_stepper(step=1)
    hands = controls(found)
    hands["step"].value = 18  # row 4 of five, column 3: the foot of the edge
    assert "Window 18 of 25, for row 4, column 3 of the output: 0·(-1) + 2·1 + 1·(-1) + 1·1 = 2." in plain(found)
    assert "= 2." in found.picture.value
    hands["stride"].value = 3  # now there are 2 x 2 windows: the slider may not point beyond the last
    assert hands["step"].value == hands["step"].max == 4 and "Window 4 of 4" in plain(found)


@pytest.mark.parametrize("wrong", ["1 2; 3", "", "a b", "1 2 3 4 5", "nan"])
def test_a_kernel_that_cannot_be_read_is_told_in_words(wrong):
    found = convolution_stepper()
    before = found.picture.value
    controls(found)["kernel"].value = wrong
    assert "cannot be read" in found.alarm.value and "equally long" in found.alarm.value
    assert found.picture.value == before
    controls(found)["kernel"].value = "1"
    assert found.alarm.value == "" and "Window" in plain(found)


def test_what_does_not_fit_is_told_in_words():
    found = convolution_stepper("1 1 1 1; 1 1 1 1; 1 1 1 1; 1 1 1 1")
    controls(found)["dilation"].value = 3
    assert "dilation=3 spreads the kernel over 10 pixels, and the padded picture has 6" in found.alarm.value
    controls(found)["padding"].value = 2
    assert found.alarm.value == "" and "Window 1 of 1" in plain(found)


# ---- dataset_browser


@pytest.fixture
def folder(tmp_path) -> CaptionedFolder:
    """Eighty pictures; two of them are blurred, three are copies of others under other captions."""
    source, entries = CaptionedShapes("all", 32, seed=3, length=80), []
    for i, image in enumerate(source.images(range(80))):
        if i < 2:
            to_pil(image).resize((4, 4)).resize((32, 32)).save(tmp_path / f"{i}.png")
        else:
            save_image(source[i - 70][0] if i >= 77 else image, tmp_path / f"{i}.png")
        entries.append(json.dumps({"file_name": f"{i}.png", "text": f"{i}: {source.caption(i)}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(entries), encoding="utf-8")
    return CaptionedFolder(tmp_path, 32, "all")


def test_the_flags_are_those_of_the_audit(folder):
    found = settled(dataset_browser("mine", "all", own={"mine": folder}))
    report = {check.name: round(check.value * 80) for check in audit(folder).checks}
    assert report["blurred"] == 2 and report["near-duplicates"] == 3  # the copies; flagged are their originals too
    told = "Flags of the 80 that the audit looked at: 2 blurred, 0 flat, 6 near-duplicate."
    assert told in plain(found)
    controls(found)["show"].value = "near-duplicate"
    place = {folder.attributes(i)["file_name"]: i + 1 for i in range(80)}
    for copy, original in ((77, 7), (78, 8), (79, 9)):
        pair = place[f"{copy}.png"], place[f"{original}.png"]
        assert f"{min(pair)} (near-duplicate of {max(pair)}), {max(pair)} (near-duplicate of" in plain(settled(found))
    found.close()


def test_search_and_pages_count_what_captions_say():
    found = settled(dataset_browser(search="azure"))
    data = CaptionedShapes("train", 64, length=600, captions="varied")
    wanted = [i for i in range(600) if "azure" in data.caption(i)]
    assert len(wanted) > 24 and f'{len(wanted)} of 600 captions contain "azure"' in plain(found)
    controls(found)["page"].value = 2
    settled(found)
    for i in wanted[12:24]:
        assert f"{i + 1}: {data.caption(i)}" in found.picture.value
    controls(found)["search"].value = "crimson"  # and the page is the first again
    assert "Page 1 of" in plain(settled(found)) and "Page 1 of 1." not in plain(found)
    controls(found)["search"].value = "zebra"
    assert 'Page 1 of 1. 0 of 600 captions contain "zebra"' in plain(settled(found))
    found.close()


def test_the_audit_can_be_stopped_and_a_split_that_is_not_there_is_told():
    class Slow(CaptionedShapes):
        def with_split(self, split):
            return self

        def images(self, indices, device="cpu"):
            time.sleep(0.2)
            return super().images(indices, device)

    found = dataset_browser("slow", own={"slow": Slow("train", 32, length=1000)})
    time.sleep(0.5)
    controls(found)["Stop the audit"].click()
    assert found.tasks == [] and "audit" in plain(found) and "Flags of" not in plain(found)
    controls(found)["data set"].value = "shapes"
    controls(found)["split"].value = "unseen"
    assert "unseen" in found.alarm.value and "use train, heldout or all" in found.alarm.value
    found.close()
    with pytest.raises(CourseError, match='"emoji"'):
        dataset_browser("emojis")


# ---- latent_map


def test_neighbours_and_what_they_share_are_counted_right():
    data = CaptionedShapes("heldout", 32, length=300)
    vectors = data.images(range(300)).flatten(1)
    found = latent_map("pixels", number=12)
    fits = F.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    order = [[j for j in row.argsort(descending=True).tolist() if j != i][:5] for i, row in enumerate(fits)]
    assert f"Nearest by pixels: {', '.join(str(j + 1) for j in order[11])}." in plain(found)
    for name, mine, mean, chance in rows(found):
        value = [data.attributes(i)[name] for i in range(300)]
        same = [sum(value[j] == value[i] for j in order[i]) for i in range(300)]
        others = sum(value[i] == value[j] for i in range(300) for j in range(300) if i != j)
        assert mine == f"{same[11]} of 5" and mean == f"{sum(same) / 1500:.0%}"
        assert chance == f"{others / (300 * 299):.0%}"


def test_the_map_goes_along_the_directions_of_greatest_variance():
    torch.manual_seed(0)
    stretch = torch.randn(3 * 32 * 32, 6) * torch.tensor([9.0, 4.0, 1, 1, 1, 1])
    images = CaptionedShapes("heldout", 32, length=300).images(range(300))
    vectors = F.normalize(images.flatten(1) @ stretch, dim=1)
    values, directions = torch.linalg.eigh(torch.cov(vectors.T))  # ascending
    corners = lay_out(lambda x: x.flatten(1) @ stretch).corners.float()
    for axis, place in enumerate((-1, -2)):
        along = vectors @ directions[:, place]
        assert abs(torch.corrcoef(torch.stack([along, corners[:, axis]]))[0, 1]) > 0.999
        assert corners[:, axis].min() == 0 and corners[:, axis].max() == CANVAS[axis] - STAMP


def test_an_encoder_of_ones_own_comes_first_and_wrong_names_are_refused():
    found = latent_map(own={"reds only": lambda images: images[:, 0].flatten(1)})
    assert "Nearest by reds only" in plain(found)
    controls(found)["features"].value = "pixels"
    controls(found)["picture"].value = 300
    assert "Picture 300: " in plain(found) and "Nearest by pixels" in plain(found) and found.alarm.value == ""
    for wrong in ({"features": "pixel"}, {"number": 301}):
        with pytest.raises(CourseError, match='"pixels"|1 to 300'):
            latent_map(**wrong)
