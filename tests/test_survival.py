"""A training that is killed without warning, again and again, ends as if nothing had happened."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from test_training import TEXT_SIZE, make_data

from course_lib.checkpoint import load_checkpoint
from course_lib.long_recipes import go_on
from course_lib.scale import ScaledTrainer
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.training import TrainConfig

STEPS, KILLS, MOST_STEPS_A_LIFE = 500, 20, 22


def life(folder: str) -> None:
    """One process: train from where the one before was killed, as `course train --resume` does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(16, 8, TEXT_SIZE, 8, width=4))
    discriminator = Discriminator(DiscriminatorConfig(16, TEXT_SIZE, width=4, hidden=16))
    config = TrainConfig(steps=STEPS, batch_size=8, checkpoint_every=3, r1_every=4)
    data = make_data(32, 16)
    go_on(ScaledTrainer(generator, discriminator, config), data, [], Path(folder), lambda: False, None)


def steps_told(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="needs quick new processes")
def test_twenty_kills_at_random_moments_leave_no_trace(tmp_path):
    """Also in the middle of a save: every third step writes a checkpoint, which takes longer than the three steps."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["test_survival"])
    chance = random.Random(0)
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        folder.mkdir()
    for _ in range(KILLS):
        begun, more = steps_told(tmp_path / "killed"), chance.randint(1, MOST_STEPS_A_LIFE)
        process = processes.Process(target=life, args=(str(tmp_path / "killed"),))
        process.start()
        while process.is_alive() and steps_told(tmp_path / "killed") < begun + more:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        assert process.is_alive(), "it must be killed, not be finished"
        process.kill()
        process.join()
    for name in ("killed", "whole"):
        process = processes.Process(target=life, args=(str(tmp_path / name),))
        process.start()
        process.join(300)
        assert process.exitcode == 0
    states = [load_checkpoint(tmp_path / name / "checkpoints" / "last") for name in ("killed", "whole")]
    (killed, told), (whole, also_told) = states
    assert told["steps_done"] == also_told["steps_done"] == STEPS and killed.keys() == whole.keys()
    assert [name for name in whole if not killed[name].equal(whole[name])] == []
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("killed", "whole")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == list(range(1, STEPS + 1))
