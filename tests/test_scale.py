"""The faster ways to train: several processes equal one, lower precision stays near, what can't be is said."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training import TEXT_SIZE, make_data

from course_lib.batches import Batch
from course_lib.errors import CourseError
from course_lib.scale import ScaleConfig, ScaledTrainer, World
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.training import AdversarialTrainer, TrainConfig

SIZES = {"text_size": TEXT_SIZE, "width": 8}
SETTINGS = {"batch_size": 16, "steps": 50, "r1_every": 4, "text_noise": 0.1, "mse_weight": 0.1, "shift": 1}


def players():
    torch.manual_seed(0)
    sizes = GeneratorConfig(16, z_size=8, condition_size=8, **SIZES)
    return Generator(sizes), Discriminator(DiscriminatorConfig(16, hidden=32, **SIZES))


def trainer(kind=AdversarialTrainer, settings=(), **options):
    config = TrainConfig(**SETTINGS | dict(settings))
    return kind(*players(), config, **options)


def losses_of(one, steps: int = 50) -> list[dict[str, float]]:
    data, dtype = make_data(64, 16), next(one.generator.parameters()).dtype
    draw = data.batch
    data.batch = lambda *how: Batch(*(x if x is None or x.dtype == torch.bool else x.to(dtype) for x in draw(*how)))
    return [one.step(data) for _ in range(steps)]


def test_one_process_in_full_precision_changes_nothing():
    plain, scaled = trainer(), trainer(ScaledTrainer)
    assert losses_of(plain, 6) == losses_of(scaled, 6)


def run_processes(tmp_path: Path, count: int, *arguments: str) -> list[str]:
    """This file as `count` processes that know of each other; returns what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    runs = [
        subprocess.Popen(command, env=os.environ | together | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **pipes)
        for rank in range(count)
    ]
    told = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * count, told
    return told


@pytest.fixture
def double():
    """Numbers of 64 bits: Adam's first steps make large what rounding left of a gradient that should be zero."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("settings", [{}, {"loss": "relativistic", "r2_weight": 0.02}], ids=["usual", "relativistic"])
def test_two_processes_equal_one_step_by_step(tmp_path, settings):
    """2 x 8 pictures and 1 x 16, 50 steps: every loss to 1e-5, and then every weight and statistic."""
    told = run_processes(tmp_path, 2, str(tmp_path), repr(settings))
    alone = trainer(settings=settings)
    expected = losses_of(alone)
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for step, (one, many) in enumerate(zip(expected, state["losses"], strict=True)):
            assert many == pytest.approx(one, rel=1e-5, abs=1e-5), f"step {step}: {told[rank]}"
        for name, part in {"generator": alone.generator, "discriminator": alone.discriminator}.items():
            for key, value in part.state_dict().items():
                torch.testing.assert_close(state[name][key], value, rtol=1e-5, atol=1e-5, msg=f"{name}.{key}")


def test_bfloat16_stays_near_and_keeps_its_weights_in_full_precision():
    plain, low = trainer(), trainer(ScaledTrainer, scale=ScaleConfig("bfloat16"))
    for one, other in zip(losses_of(plain, 5), losses_of(low, 5), strict=True):
        assert one != other and other == pytest.approx(one, rel=0.05, abs=0.05)
    assert {p.dtype for p in low.generator.parameters()} == {torch.float32}


def test_r1_is_computed_in_full_precision(monkeypatch):
    low, seen = trainer(ScaledTrainer, scale=ScaleConfig("bfloat16"), settings={"r1_every": 1}), []
    original = Discriminator.features

    def features(self, images):
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(self, images)

    monkeypatch.setattr(Discriminator, "features", features)
    losses_of(low, 1)
    assert seen == [False, True, True], "real pictures, whose slope R1 wants; fakes for D; fakes for G"


def test_on_a_cpu_bfloat16_is_not_compiled(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled all the same"))
    both = trainer(ScaledTrainer, scale=ScaleConfig("bfloat16", "yes"))
    both.step(make_data(64, 16))
    assert not both.skipped and "gradients that are no numbers; going on without" in capsys.readouterr().out


def test_a_machine_that_cannot_compile_is_told_so_once_and_trains(monkeypatch, capsys):
    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda network, **_: no_compiler)
    plain, scaled = trainer(), trainer(ScaledTrainer, scale=ScaleConfig(compile="yes"))
    assert losses_of(plain, 3) == losses_of(scaled, 3)
    out = capsys.readouterr().out
    assert out.count("torch.compile is not possible here (RuntimeError: no C++ compiler); going on without it.") == 1


def test_shares_that_do_not_come_out_even_and_unknown_ways_are_refused():
    assert [World(rank, 3).own(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(CourseError, match="batch_size=16 can't be shared by 3 processes"):
        World(0, 3).own(16)
    with pytest.raises(CourseError, match='precision="float16"'):
        ScaleConfig("float16")
    with pytest.raises(CourseError, match='compile="maybe"'):
        ScaleConfig(compile="maybe")


def one_of_many(folder: Path, settings: dict) -> None:
    """What each process of `run_processes` does."""
    from course_lib.scale import join_world

    torch.set_default_dtype(torch.float64)
    world, _ = join_world(torch.device("cpu"))
    mine = trainer(ScaledTrainer, settings=settings, world=world)
    state = {"losses": losses_of(mine)}
    state |= {"generator": mine.generator.state_dict(), "discriminator": mine.discriminator.state_dict()}
    torch.save(state, folder / f"{world.rank}.pt")


if __name__ == "__main__":
    import ast

    one_of_many(Path(sys.argv[1]), ast.literal_eval(sys.argv[2]))
