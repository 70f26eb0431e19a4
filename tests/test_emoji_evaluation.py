"""The marks for emoji are fair: real pictures get the best, pictures of something else bad ones."""

import pytest
import torch

from course_lib import emoji_evaluation
from course_lib.data.emoji import CaptionedEmoji
from course_lib.emoji_evaluation import emoji_lines, emoji_marks, load_tone_judge
from course_lib.emoji_metrics import (
    TONE_NAMES,
    NameProbe,
    ToneConfig,
    ToneJudge,
    fit_tones,
    people,
    recall_at,
    tones_of,
)


class Painter:
    """Stands in for a model: looks up the real picture of a name, or that of the name before."""

    image_size = 32

    def __init__(self, wrong: bool = False):
        emoji = CaptionedEmoji("all", 32)
        self.images = emoji.images(range(len(emoji)))
        self.rows = {emoji.caption(i): i for i in range(len(emoji))}
        self.wrong = wrong

    def sample(self, texts, n_samples=1, seed=0, **sampling):
        images = self.images[[self.rows[text] for text in texts]]
        return images.roll(1, 0) if self.wrong else images


@pytest.fixture
def quick(monkeypatch):
    """Pixels in place of both pre-trained networks' outputs: what is tested is who is compared with whom."""
    real = Painter()

    class Names:
        def embed(self, captions):
            return real.sample(captions)[:, :, ::4, ::4].flatten(1)

    monkeypatch.setattr(emoji_evaluation, "PretrainedTextEncoder", Names)
    monkeypatch.setattr(emoji_evaluation, "efficientnet_features", lambda x: x[:, :, ::4, ::4].flatten(1))


def test_the_probe_finds_a_linear_map_and_its_offset():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=random, dtype=torch.float64)
    weight = torch.randn(6, 4, generator=random, dtype=torch.float64)
    probe = NameProbe(x, x @ weight + 3, penalty=1e-9)
    names = x @ weight + 3
    torch.testing.assert_close(probe(x[:5]), names[:5] - names.mean(0))
    torch.testing.assert_close(probe.place(names[:5]), names[:5] - names.mean(0))


def test_recall_counts_the_own_name_among_the_nearest():
    names = torch.eye(4)
    predicted = names + 0.6 * names.roll(1, 0)
    assert recall_at(predicted, names, 1) == 1
    assert recall_at(names.roll(1, 0) + 0.6 * names, names, 1) == 0
    assert recall_at(names.roll(1, 0) + 0.6 * names, names, 2) == 1
    assert recall_at(names[:2], names, 1) == 1, "names without a picture are only there to confuse"


def test_real_pictures_get_the_best_marks_and_wrong_ones_bad_marks(quick):
    right, wrong = emoji_marks(Painter()), emoji_marks(Painter(wrong=True))
    assert right["train"]["n"] == 300 and right["heldout"]["candidates"] == 200
    for split in ("train", "heldout", "unseen"):
        assert right[split]["recall"] == right[split]["recall_real"] > 0.9, split
        assert wrong[split]["recall"] < 0.5, split
        assert right[split]["kernel_distance"][0] < 0.01
    assert right["heldout"]["tone"] == right["heldout"]["tone_real"] >= 0.97 > wrong["heldout"]["tone"] + 0.3
    text = emoji_lines(right)
    assert "100.0 %" in text and "heldout" in text


@pytest.mark.parametrize("size", [32, 64])
def test_the_shipped_judge_of_tones_is_right_on_people_it_never_saw(size):
    emoji = CaptionedEmoji("heldout", size)
    rows = people(emoji)
    judge, images, tones = load_tone_judge(size), emoji.images(rows), tones_of(emoji, rows)
    assert judge.accuracy(images, tones) >= 0.97
    assert judge.accuracy(images, tones[1:] + tones[:1]) < 0.5


def test_a_judge_of_tones_is_trained_on_pictures_alone_and_repeatably():
    config = ToneConfig(16, 4, networks=2)
    one, two = (fit_tones(config, 20, 16, 2e-3, seed) for seed in (0, 0))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    first, second = one.networks
    assert not torch.equal(first.output.weight, second.output.weight)
    assert one(torch.zeros(3, 3, 16, 16)).shape == (3, len(TONE_NAMES))


def test_votes_are_added_up():
    judge = ToneJudge(ToneConfig(16, 4, networks=3)).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = torch.stack([network(images).log_softmax(1) for network in judge.networks]).sum(0)
    torch.testing.assert_close(judge(images), expected)
