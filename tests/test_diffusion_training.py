"""The training of a denoiser: it learns, and a run that was stopped ends in the very same weights."""

import copy

import pytest
import torch

from course_lib.batches import EmbeddedPictures
from course_lib.diffusion_training import DiffusionTrainConfig, DiffusionTrainer
from course_lib.errors import CourseError
from course_lib.training import train
from course_lib.unet import DiffusionConfig, UNet

TOKENS, TEXT_SIZE = 5, 16


def make_data(n: int = 24, size: int = 16) -> EmbeddedPictures:
    """Black pictures with one caption, white ones with another, the second caption shorter."""
    white = torch.arange(n) % 2
    images = (white * 255).to(torch.uint8)[:, None, None, None].expand(n, 3, size, size).contiguous()
    words = torch.randn(2, TOKENS, TEXT_SIZE, generator=torch.Generator().manual_seed(0))
    words[1, 3:] = 0
    return EmbeddedPictures(images, words[white, 0], torch.zeros(TEXT_SIZE), words[white], torch.zeros(1, TEXT_SIZE))


def make_trainer(steps: int = 8, super_resolution: bool = False, **settings) -> DiffusionTrainer:
    torch.manual_seed(0)
    unet = UNet(DiffusionConfig(16, TEXT_SIZE, width=8, super_resolution=super_resolution))
    return DiffusionTrainer(unet, DiffusionTrainConfig(steps=steps, batch_size=8, **settings))


def weights(trainer: DiffusionTrainer) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": x for name, part in trainer.parts().items() for key, x in part.state_dict().items()}


def test_the_loss_falls():
    trainer, losses = make_trainer(steps=300, learning_rate=3e-3), []
    train(trainer, make_data(), [lambda trainer, step: losses.append(step["loss"])], progress=None)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20]), (losses[:10], losses[-10:])


@pytest.mark.parametrize("super_resolution", [False, True])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, super_resolution):
    data = make_data()
    whole = make_trainer(super_resolution=super_resolution)
    train(whole, data, progress=None)
    stopped = make_trainer(super_resolution=super_resolution)
    train(stopped, data, stop=lambda: stopped.steps_done == 3, progress=None)
    stopped.save(tmp_path / "state")
    resumed = make_trainer(super_resolution=super_resolution)
    resumed.load(tmp_path / "state")
    assert resumed.steps_done == 3
    train(resumed, data, progress=None)
    ours, theirs = weights(resumed), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_average_follows_the_network_slowly():
    trainer = make_trainer(average_decay=0.9)
    before = copy.deepcopy(trainer.average.model.state_dict())
    trainer.step(make_data())
    name = "stem.weight"
    moved, network = trainer.average.model.state_dict()[name] - before[name], trainer.unet.state_dict()[name]
    torch.testing.assert_close(moved, 0.1 * (network - before[name]), atol=1e-7, rtol=1e-4)


def test_padding_beyond_the_longest_caption_changes_nothing():
    data = make_data()
    padded = copy.copy(data)
    padded.tokens = torch.cat([data.tokens, torch.zeros(len(data.tokens), 4, TEXT_SIZE)], dim=1)
    assert make_trainer().step(data) == make_trainer().step(padded)


@pytest.mark.parametrize(
    "name, value", [("steps", 0), ("batch_size", 0), ("learning_rate", 0.0), ("average_decay", 1.5), ("seed", -1)]
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(CourseError, match=f"{name}={value}"):
        DiffusionTrainConfig(**{name: value})
