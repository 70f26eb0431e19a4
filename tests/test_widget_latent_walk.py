"""LatentWalk: its directions are principal components, its pictures the VAE's, its words what the judge reads."""

import numpy as np
import pytest
import torch
from explorers import controls

from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.vae import VAE
from course_lib.widgets import latent_walk
from course_lib.widgets.latent_walk import changes, load_latents, noise_walk

NAME = "vae-shapes-32"


def principal_components():
    """By another way: the eigenvectors of the covariance, the largest first, and their standard deviations."""
    vae, every = VAE.from_pretrained(NAME), CaptionedShapes("all", 32, length=1920)
    with torch.no_grad():
        codes = vae.encode(every.images(range(1920)))[0].double().numpy()
    values, vectors = np.linalg.eigh(np.cov(codes.T, bias=True))
    return vectors.T[::-1], np.sqrt(values[::-1])


def test_the_directions_are_the_principal_components():
    vectors, spreads = principal_components()
    space = load_latents(NAME)
    ours = space.directions.double().numpy()
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), spreads, rtol=1e-3)
    cosines = np.abs((ours * vectors).sum(1)) / spreads
    assert (cosines[:4] > 0.999).all() and (np.abs(ours).argmax(1) == ours.argmax(1)).all()
    np.testing.assert_allclose(space.shares.numpy(), spreads**2 / (spreads**2).sum(), rtol=2e-3)


def test_a_slider_walks_so_many_standard_deviations_and_the_button_leads_back():
    explorer = latent_walk(start=3)
    parts, judge = controls(explorer), load_judge(32)

    def told(images):
        sure = [logits.softmax(1)[0] for logits in judge(images)]
        read = [v[p.argmax()] for p, v in zip(sure, SINGLE.values(), strict=True) if p.max() >= 0.9]
        return f"VAE now: {', '.join(read)}."

    space = load_latents(NAME)
    real = CaptionedShapes("heldout", 32, length=1920).images([3])
    at_first = told(space.vae.reconstruct(real))
    assert at_first in explorer.words.value
    parts["direction 1"].value = -2
    far = told(space.vae.decode(space.vae.encode(real)[0] - 2 * space.directions[0]))
    assert far in explorer.words.value and far != at_first and "direction 1 at -2.0" in explorer.picture.value
    parts["back to the picture"].click()
    assert at_first in explorer.words.value and parts["direction 1"].value == 0
    explorer.close()


def test_the_gan_walks_straight_from_noise_to_noise():
    walk = noise_walk("gan-shapes-32", 13)
    assert walk.shape == (9, 3, 32, 32) and not torch.equal(walk[0], walk[8])
    torch.testing.assert_close(noise_walk("gan-shapes-32", 13), walk)
    explorer = latent_walk()
    before = explorer.words.value
    controls(explorer)["GAN: way"].value = 1.0
    assert explorer.words.value != before and "GAN at 1.000" in explorer.picture.value
    explorer.close()


def test_changes_are_told_in_order_and_doubt_is_left_out():
    walk = [["large", "red", None, "center", "navy"], ["large", None, None, "center", "gray"]]
    walk += [["large", "blue", "star", "center", "gray"]]
    assert changes(walk) == "color red → blue; background navy → gray"
    assert changes(walk[:1]) == "nothing that it is sure of"


@pytest.mark.parametrize("wrong", [{"directions": 7}, {"directions": 0}, {"start": 8}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(CourseError, match="use 1 to 6 directions and a start from 0 to 7"):
        latent_walk(**wrong)
