"""`course ablate`: what each part of the recipe is worth. One thing is changed at a time, and measured at equal cost.

Every variant trains the preset `shapes-32-live`, without its contrastive loss, for the same seconds of processor time,
on one thread, with several seeds. Each finished run is a line of a log; runs that are in the log are skipped, so that
the command can be stopped and gone on with. The table is drawn from the log.
"""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.alignment import load_alignment
from course_lib.batches import Batch, EmbeddedPictures
from course_lib.cards import machine
from course_lib.data.captions import vocabulary
from course_lib.errors import CourseError
from course_lib.evaluation import accuracy, diversity, load_judge
from course_lib.long_recipes import embed
from course_lib.optim import Adam
from course_lib.presets import get_preset
from course_lib.pretrained import MINILM_SCALE, PretrainedTextEncoder
from course_lib.text_encoder import TextEncoder, load_text_encoder
from course_lib.text_gan import Discriminator, Generator
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.training import AdversarialTrainer, Drawn, train

BASE = "shapes-32-live"
PLAIN_RECIPE = {"contrastive_weight": 0.0}  # of the base run; the preset has what the first ablation found
MARKS, N_MARK, N_SCORED = 5, 500, 2000  # marks on the way; pictures for each of them, and for the last one
UNAVERAGED = "no weight averaging"  # needs no run of its own: the base run's generator as it is


@dataclass(frozen=True)
class Variant:
    """What is different from the base; `encoder` is "frozen", "joint" (it learns too) or "MiniLM"."""

    about: str
    train: dict[str, Any] = field(default_factory=dict)
    generator: dict[str, Any] = field(default_factory=dict)
    discriminator: dict[str, Any] = field(default_factory=dict)
    encoder: str = "frozen"


BOTH_CONCATENATE = {"conditioning": "concatenation"}
VARIANTS = {
    "base": Variant("non-saturating loss, matching-aware pairs, R1, weight averaging, normalisation + projection"),
    "no matching-aware pairs": Variant("no real pictures with wrong captions", {"matching_aware": False}),
    "no R1": Variant("no gradient penalty", {"r1_weight": 0.0}),
    "hinge": Variant("hinge loss", {"loss": "hinge"}),
    "relativistic + R1 + R2": Variant("relativistic loss, both penalties", {"loss": "relativistic", "r2_weight": 0.02}),
    "G concatenation, D concatenation": Variant("caption beside the noise", {}, BOTH_CONCATENATE, BOTH_CONCATENATE),
    "G concatenation, D projection": Variant("caption beside the noise", {}, BOTH_CONCATENATE),
    "G normalisation, D concatenation": Variant("caption beside the features", {}, {}, BOTH_CONCATENATE),
    "G cross-attention, D projection": Variant("G looks at words", {}, {"conditioning": "cross-attention"}),
    "joint text encoder": Variant("the text encoder goes on learning with D", encoder="joint"),
    "MiniLM": Variant("a general text encoder, 22.7 M parameters; English captions only", encoder="MiniLM"),
    "MSE weight 0.1": Variant("pixel MSE to the real picture", {"mse_weight": 0.1}),
    "MSE weight 1": Variant("pixel MSE to the real picture", {"mse_weight": 1.0}),
    "contrastive weight 0.3": Variant("drawn pictures must find their captions", {"contrastive_weight": 0.3}),
    "contrastive weight 1": Variant("drawn pictures must find their captions", {"contrastive_weight": 1.0}),
}


class ReadInTheLoop:
    """Captions that look like their embeddings, (N, E), but are read anew, with gradients, whenever one asks."""

    def __init__(self, encoder: TextEncoder, tokenizer: Tokenizer, captions: list[str]):
        self.encoder = encoder
        self.ids, self.mask = tokenizer.encode_batch(captions, encoder.config.context_length)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> Tensor:
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return self.encoder(self.ids[rows, :longest], mask[:, :longest])[1]


class JointTrainer(AdversarialTrainer):
    """The text encoder learns too, from how well the discriminator tells right captions from wrong ones."""

    def __init__(self, *players: Any, encoder: TextEncoder):
        super().__init__(*players)
        both = [*self.discriminator.parameters(), *encoder.requires_grad_(True).parameters()]
        self.discriminator_optimizer = Adam(both, self.config.learning_rate, self.config.betas)

    def draw(self, batch: Batch, random: torch.Generator) -> Drawn:
        """The generator takes the embeddings as they are: its gradient ends there."""
        return super().draw(batch._replace(texts=batch.texts.detach()), random)


@dataclass
class Ready:
    """A trainer with what it reads and what reads for it."""

    trainer: AdversarialTrainer
    data: EmbeddedPictures
    encoder: TextEncoder | PretrainedTextEncoder
    tokenizer: Any

    def model(self, generator: Generator) -> TextToImage:
        """A copy of what there is now, ready to draw."""
        parts = copy.deepcopy((generator, self.trainer.discriminator, self.encoder))
        return TextToImage(*parts, self.tokenizer, vocabulary(), {"data": vars(get_preset(BASE).data)})


@cache
def embedded(encoder: str, tokens: bool = False) -> tuple[EmbeddedPictures, Any, Any]:
    """The training pictures with captions read by our encoder or by MiniLM, made once for all runs."""
    data = get_preset(BASE).data
    if encoder == "MiniLM":
        reader = PretrainedTextEncoder(scale=MINILM_SCALE)
        tokenizer, data = reader.tokenizer, replace(data, language="en")
    else:
        reader, tokenizer = load_text_encoder(get_preset(BASE).text_encoder)
    return embed(data.dataset(), reader, tokenizer, torch.device("cpu"), tokens), reader, tokenizer


def prepare(variant: Variant, seed: int) -> Ready:
    """Fresh players for a variant, and their data."""
    preset = get_preset(BASE)
    tokens = variant.generator.get("conditioning") == "cross-attention"
    data, encoder, tokenizer = embedded("MiniLM" if variant.encoder == "MiniLM" else "ours", tokens)
    config = replace(preset.train, **PLAIN_RECIPE | variant.train, seed=seed, steps=10**8)
    torch.manual_seed(seed)
    size = {"text_size": encoder.config.width}
    players = (
        Generator(replace(preset.generator, **size, **variant.generator)),
        Discriminator(replace(preset.discriminator, **size, **variant.discriminator)),
    )
    if variant.encoder == "joint":
        encoder, dataset = copy.deepcopy(encoder), preset.data.dataset()
        texts = ReadInTheLoop(encoder, tokenizer, [dataset.caption(i) for i in range(len(dataset))])
        data = EmbeddedPictures(data.images, texts, data.empty)
        return Ready(JointTrainer(*players, config, encoder=encoder), data, encoder, tokenizer)
    eye = load_alignment(preset.text_encoder)[0].image_encoder if config.contrastive_weight > 0 else None
    return Ready(AdversarialTrainer(*players, config, eye), data, encoder, tokenizer)


class Marks:
    """A listener that marks the averaged generator at equal intervals of processor time, which it does not count.

    Args:
        ready: what is trained; seconds: of the whole run.
    """

    def __init__(self, ready: Ready, seconds: float):
        self.ready, self.seconds, self.uncounted, self.started = ready, seconds, 0.0, time.process_time()
        self.curve: list[tuple[float, int, float]] = []  # (seconds, steps, share with all attributes right)

    def clock(self) -> float:
        """Processor seconds spent in training."""
        return time.process_time() - self.started - self.uncounted

    def __call__(self, trainer: AdversarialTrainer, losses: dict[str, float]) -> None:
        now = self.clock()
        if now >= self.seconds * (len(self.curve) + 1) / MARKS:
            share = accuracy(self.ready.model(trainer.average.model), load_judge(32), n=N_MARK)["all"]
            self.curve.append((round(now, 1), trainer.steps_done, round(share, 4)))
            self.uncounted += self.clock() - now


def run_variant(name: str, seed: int, seconds: float) -> list[dict[str, Any]]:
    """Train one variant with one seed; returns the lines of the log."""
    ready = prepare(VARIANTS[name], seed)
    marks, trainer = Marks(ready, seconds), ready.trainer
    train(trainer, ready.data, [marks], seconds=seconds, progress=None, clock=marks.clock)
    facts = {"seed": seed, "cpu_seconds": seconds, "steps": trainer.steps_done, "machine": machine()}
    rows = [{"variant": name, **facts, **scores(ready.model(trainer.average.model)), "curve": marks.curve}]
    if name == "base":
        rows.append({"variant": UNAVERAGED, **facts, **scores(ready.model(trainer.generator))})
    return rows


def scores(model: TextToImage) -> dict[str, Any]:
    """Accuracy on held-out captions in English, and diversity."""
    shares = accuracy(model, load_judge(model.image_size), n=N_SCORED)
    return {"accuracy": {k: round(v, 4) for k, v in shares.items()}, "diversity": round(diversity(model), 3)}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The runs that were finished; none if there is no log.

    Raises:
        CourseError: a line of it is not what a run writes.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        for row in rows:
            hash((row["variant"], row["seed"], row["cpu_seconds"], cells([row])))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        told = f'log="{path}" is no log of ablations ({type(error).__name__}: {error})'
        raise CourseError(f"{told}; mend it, or give another file") from error
    return rows


def missing(rows: list[dict[str, Any]], seeds: int, seconds: float) -> Iterator[tuple[str, int]]:
    """(variant, seed) of the runs that are not in the log, all variants of one seed first."""
    done = {(row["variant"], row["seed"]) for row in rows if row["cpu_seconds"] == seconds}
    yield from ((name, seed) for seed in range(seeds) for name in VARIANTS if (name, seed) not in done)


def ablate(log: Path, table: Path, seeds: int, seconds: float) -> None:
    """Run what is missing and write the table.

    Args:
        log: a line of JSON a run; table: the Markdown drawn from it.
        seeds: runs a variant.
        seconds: of processor time a run; runs of another length do not count.
    """
    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()  # that one can't write there is told before the first run, not after it
    for name, seed in (bar := tqdm(list(missing(read_log(log), seeds, seconds)), desc="ablations")):
        bar.set_postfix_str(f"{name}, seed {seed}")
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in run_variant(name, seed, seconds)]
        with log.open("a", encoding="utf-8") as file:
            file.writelines(lines)
        write_table(log, table, seconds)
    write_table(log, table, seconds)


def write_table(log: Path, table: Path, seconds: float) -> None:
    """The log's runs of this length as Markdown: mean and spread over seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    counted = [row for row in read_log(log) if row["cpu_seconds"] == seconds]
    for row in counted:
        groups.setdefault(row["variant"], []).append(row)
    machines = "; ".join(dict.fromkeys(str(row.get("machine", "a machine not named")) for row in counted))
    lines = [f"| {name} | {about(name)} | {cells(rows)} |" for name, rows in groups.items()]
    text = f"""# What each part is worth

Written by `course ablate --seconds {seconds:g}` from `{log.name}`. Each run: {seconds:g} seconds of processor time
({machines}),
the preset `{BASE}` without its contrastive loss, with one thing changed. Steps: how many fitted into the
time. Marks: {N_SCORED} held-out English captions, the share of pictures with all attributes right, and with the shape
right, in percent; diversity, as a share of that of real pictures. Mean ± standard deviation over seeds.

| variant | what is different | seeds | steps | all attributes | shape | diversity |
|---|---|---|---|---|---|---|
"""
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def about(name: str) -> str:
    """What a variant changes."""
    return VARIANTS[name].about if name in VARIANTS else "the base run's generator as it is"


def cells(rows: list[dict[str, Any]]) -> str:
    """One variant's numbers."""
    shares = {key: [100 * row["accuracy"][key] for row in rows] for key in ("all", "shape")}
    steps, spread = mean(row["steps"] for row in rows), [row["diversity"] for row in rows]
    parts = [str(len(rows)), f"{steps:.0f}", *(f"{mean_and_spread(v, 1)}" for v in shares.values())]
    return " | ".join([*parts, mean_and_spread(spread, 2)])


def mean_and_spread(values: list[float], digits: int) -> str:
    """ "98.1 ± 0.4"; the mean alone if there is one value."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"
