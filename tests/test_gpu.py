"""What only a GPU can show: passes that are compiled or recorded there compute what plain ones compute."""

import pytest
import torch
from test_scale import SETTINGS, players
from test_training import make_data

from course_lib.scale import ScaleConfig, ScaledTrainer
from course_lib.training import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
STEPS = 12  # three with R1: recorded passes are recorded again there, and then replayed


def losses(scale: ScaleConfig) -> list[dict[str, float]]:
    """Of some steps of small players on the GPU."""
    device, data = torch.device("cuda"), make_data(64, 16)
    for name in ("images", "texts", "empty"):
        setattr(data, name, getattr(data, name).to(device))
    trainer = ScaledTrainer(*(player.to(device) for player in players()), TrainConfig(**SETTINGS), scale=scale)
    told = [trainer.step(data) for _ in range(STEPS)]
    assert not trainer.skipped and not trainer.cannot_compile, trainer.skipped
    return told


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["no", "yes", "cuda-graph"])
def test_passes_in_every_way_give_nearly_the_same_losses(way, precision):
    """Nearly: cuDNN may round to TF32, sums have another order, and Adam's first steps make large what that leaves of a
    gradient that should be zero."""
    for plain, fast in zip(losses(ScaleConfig()), losses(ScaleConfig(precision, way)), strict=True):
        assert fast == pytest.approx(plain, rel=0.1, abs=0.05)
