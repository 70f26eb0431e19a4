"""Neighbours and what they share are counted right, by any encoder."""

import pytest
import torch
from explorers import controls, plain, rows
from torch.nn import functional as F

from course_lib.data import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.widgets import latent_map
from course_lib.widgets.latent_map import CANVAS, STAMP, lay_out


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
