"""The ablations change what they name, skip what is done, and tell the truth of their log."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import DISCRIMINATOR, GENERATOR

from course_lib import ablation
from course_lib.ablation import UNAVERAGED, VARIANTS, Variant, ablate, mean_and_spread, missing, prepare, run_variant
from course_lib.batches import step_random
from course_lib.errors import CourseError
from course_lib.presets import get_preset
from course_lib.pretrained import MINILM, find_pretrained


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The real preset with few pictures, small players and short marks."""
    preset = get_preset(ablation.BASE)
    data, train = replace(preset.data, length=60), replace(preset.train, batch_size=6)
    sizes = {"generator": replace(GENERATOR, text_size=96), "discriminator": replace(DISCRIMINATOR, text_size=96)}
    preset = replace(preset, data=data, train=train, **sizes)
    monkeypatch.setattr(ablation, "get_preset", lambda name: preset)
    monkeypatch.setattr(ablation, "N_MARK", 4)
    monkeypatch.setattr(ablation, "N_SCORED", 8)
    monkeypatch.setattr(ablation, "MARKS", 2)
    monkeypatch.setattr(ablation, "diversity", lambda model: 0.5)
    ablation.embedded.cache_clear()
    yield
    ablation.embedded.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(name):
    if VARIANTS[name].encoder == "MiniLM":
        try:
            find_pretrained(MINILM)
        except CourseError as error:
            pytest.skip(str(error))
    rows = run_variant(name, 0, 0.3)
    assert [row["variant"] for row in rows] == [name, *([UNAVERAGED] if name == "base" else [])]
    assert rows[0]["steps"] > 0 and 1 <= len(rows[0]["curve"]) <= 2
    assert set(rows[0]["accuracy"]) == {"size", "color", "shape", "position", "background", "all"}


def test_variants_differ_from_the_base_in_what_they_name():
    base = prepare(VARIANTS["base"], 0).trainer
    changed = prepare(VARIANTS["relativistic + R1 + R2"], 0).trainer
    differ = {k for k, v in vars(base.config).items() if getattr(changed.config, k) != v}
    assert differ == {"loss", "r2_weight"}
    weights = zip(base.generator.parameters(), changed.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)  # one seed: one beginning
    other = prepare(VARIANTS["base"], 1).trainer
    assert not torch.equal(base.generator.start.weight, other.generator.start.weight)


def test_a_joint_text_encoder_learns_from_the_discriminator_alone():
    ready = prepare(Variant("", encoder="joint"), 0)
    trainer, encoder = ready.trainer, ready.encoder
    random = step_random(0, 0)
    batch = ready.data.batch(6, 0.0, 0.0, random)
    drawn = trainer.draw(batch, random)
    before = [p.clone() for p in encoder.parameters()]
    trainer.generator_step(batch, drawn, random)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    trainer.discriminator_step(batch, drawn, random)
    assert not all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    frozen = prepare(VARIANTS["base"], 0).encoder
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))  # a copy learned


def test_only_missing_runs_are_run(tmp_path, monkeypatch):
    ran = []

    def pretend(name, seed, seconds):
        ran.append((name, seed))
        shares = {"all": 0.5 + seed / 10, "shape": 0.75}
        row = {"seed": seed, "cpu_seconds": seconds, "steps": 10, "accuracy": shares, "diversity": 0.5, "curve": []}
        return [{"variant": name, **row}]

    monkeypatch.setattr(ablation, "run_variant", pretend)
    monkeypatch.setattr(ablation, "VARIANTS", {name: VARIANTS[name] for name in ("base", "hinge")})
    log, table = tmp_path / "logs" / "runs.jsonl", tmp_path / "table.md"
    ablate(log, table, seeds=1, seconds=5)
    assert ran == [("base", 0), ("hinge", 0)]
    ablate(log, table, seeds=2, seconds=5)
    assert ran[2:] == [("base", 1), ("hinge", 1)]
    ablate(log, table, seeds=2, seconds=5)
    assert len(ran) == 4 and len(log.read_text().splitlines()) == 4
    assert list(
        missing([json.loads(line) for line in log.read_text().splitlines()], 1, 6)
    )  # another length is another run
    assert (
        "| base | " in table.read_text() and "| 2 | 10 | 55.0 ± 7.1 | 75.0 ± 0.0 | 0.50 ± 0.00 |" in table.read_text()
    )


def test_one_run_has_no_spread():
    assert mean_and_spread([98.06], 1) == "98.1" and mean_and_spread([1.0, 3.0], 1) == "2.0 ± 1.4"
