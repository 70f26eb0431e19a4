"""Flags are those of the audit, search and pages count what captions say, and the audit can be stopped."""

import json
import time

import pytest
from explorers import controls, plain, settled

from course_lib.data import CaptionedFolder, CaptionedShapes
from course_lib.data.audit import audit
from course_lib.errors import CourseError
from course_lib.images import save_image, to_pil
from course_lib.widgets import dataset_browser


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
