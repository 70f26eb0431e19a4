"""How each kind of short training goes: from data to a checkpoint folder with its card, in minutes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.alignment import AlignmentModel, retrieval, unit
from course_lib.batches import moved, step_random
from course_lib.cards import energy_wh, machine, short_card
from course_lib.checkpoint import save_checkpoint
from course_lib.data.pictures import CaptionedPictures
from course_lib.data.shapes import CaptionedShapes, combinations
from course_lib.emoji_metrics import fit_tones, people, tones_of
from course_lib.evaluation import PAPERS, SCENES
from course_lib.fit import fit, warmup_cosine
from course_lib.gan import AdversarialStep, DCGANDiscriminator, DCGANGenerator
from course_lib.image_encoder import ImageEncoder
from course_lib.images import from_uint8, to_uint8
from course_lib.metrics import attribute_accuracy, fit_judge
from course_lib.optim import Adam, WeightAverage
from course_lib.preset_data import EmojiConfig
from course_lib.presets import AlignmentPreset, CaptionsPreset, DCGANPreset, JudgePreset, Preset, TonesPreset, VAEPreset
from course_lib.text_encoder import TextEncoder, embed_captions, load_text_encoder, next_token_loss
from course_lib.tokenizer import Tokenizer
from course_lib.vae import VAE


def train_captions(name: str, preset: CaptionsPreset, out: Path, device: torch.device) -> Path:
    """Learn a tokenizer from captions, then next-token prediction (lesson 07)."""
    started = time.monotonic()
    dataset = preset.data.dataset()
    captions = [dataset.caption(i) for i in range(len(dataset))]
    tokenizer = Tokenizer.train(captions, preset.text_encoder.vocab_size)
    torch.manual_seed(preset.train.seed)
    encoder = TextEncoder(preset.text_encoder).to(device)
    ids, mask = tokenizer.encode_batch(captions, preset.text_encoder.context_length)
    batch = random_rows(preset, device, ids, mask)
    losses = run_fit(encoder, batch, next_token_loss, preset, "reading captions")
    unread = preset.data.dataset("heldout")
    unread = [unread.caption(i) for i in range(min(1000, len(unread)))]
    ids, mask = tokenizer.encode_batch(unread, preset.text_encoder.context_length)
    with torch.no_grad():
        nats = next_token_loss(encoder, ids.to(device), mask.to(device)).item()
    scores = {"train nats per token": sum(losses[-50:]) / len(losses[-50:]), "heldout nats per token": nats}
    tensors = {f"text_encoder.{key}": x for key, x in encoder.state_dict().items()}
    config = {"kind": "text-encoder", "text_encoder": vars(encoder.config)}
    return finish(name, preset, out, tensors, config, scores, time.monotonic() - started, tokenizer)


def train_alignment(name: str, preset: AlignmentPreset, out: Path, device: torch.device) -> Path:
    """Teach a pre-trained text encoder, together with a new image encoder, what belongs together (lesson 08)."""
    started = time.monotonic()
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    torch.manual_seed(preset.train.seed)
    model = AlignmentModel(encoder.requires_grad_(True), ImageEncoder(preset.image_encoder)).to(device)
    model.image_encoder.to(memory_format=torch.channels_last)
    dataset = preset.data.dataset()
    kinds = [dataset, *filter(None, [dataset.twins()])]  # each picture brings its twin along
    images = torch.stack([all_pictures(kind) for kind in kinds], 1)  # (N, 1 or 2, 3, S, S)
    captions = [kind.caption(i) for i in range(len(dataset)) for kind in kinds]
    ids, mask = (
        x.unflatten(0, (-1, len(kinds))) for x in tokenizer.encode_batch(captions, encoder.config.context_length)
    )
    batch = random_rows(preset, device, ids, mask, images)
    random = step_random(preset.train.seed, 0)

    def loss(model: AlignmentModel, *rows: Tensor) -> Tensor:
        ids, mask, images = (x.flatten(0, 1) for x in rows)  # (B, ...)
        longest = int(mask.sum(1).max())  # padding beyond the longest caption of the batch is wasted work
        images = moved(from_uint8(images), preset.shift, random).contiguous(memory_format=torch.channels_last)
        return model(images, ids[:, :longest], mask[:, :longest])

    run_fit(model, batch, loss, preset, "matching captions and pictures")
    model.eval()
    scores = alignment_scores(model, tokenizer, preset)
    config = {"kind": "alignment", "text_encoder": vars(encoder.config), "image_encoder": vars(preset.image_encoder)}
    return finish(name, preset, out, model.state_dict(), config, scores, time.monotonic() - started, tokenizer)


def alignment_scores(model: AlignmentModel, tokenizer: Tokenizer, preset: AlignmentPreset) -> dict[str, float]:
    """R@1 on pictures of captions that were not trained on: does each picture find its caption?"""
    if isinstance(preset.data, EmojiConfig):
        exam = preset.data.dataset("heldout")
        recall = {k: emoji_retrieval(model, tokenizer, exam, k) for k in (1, 10)}
        return {f"R@{k} among {len(exam)} held-out people": share for k, share in recall.items()}
    scenes = SCENES[preset.data.scene]
    scores = {
        f"R@1 among 192 {scene}, {paper}": shapes_retrieval(model, tokenizer, scene, *PAPERS[paper])
        for scene in scenes
        for paper in PAPERS
    }
    if "pair" in scenes:
        scores["own caption before its twin's, 1,000 pairs"] = twins_told_apart(model, tokenizer)
    return scores


def twins_told_apart(model: AlignmentModel, tokenizer: Tokenizer) -> float:
    """The share of pairs whose picture is nearer to its caption than to its words in another order; chance is 0.5."""
    exam = CaptionedShapes("all", model.image_encoder.config.image_size, 1, length=1000, scene="pair")
    twins = exam.twins()
    rows = [i for i in range(len(exam)) if twins.caption(i) != exam.caption(i)]
    with torch.no_grad():
        seen = unit(model.image_encoder(exam.images(rows, model.log_scale.device)))
    own, other = (
        unit(embed_captions(model.text_encoder, tokenizer, [x.caption(i) for i in rows])) for x in (exam, twins)
    )
    return ((seen * own).sum(1) > (seen * other).sum(1)).float().mean().item()


def emoji_retrieval(model: AlignmentModel, tokenizer: Tokenizer, exam: CaptionedPictures, k: int) -> float:
    """R@k over all of a split; embeddings are compared as they are, without training's moved pictures."""
    texts = embed_captions(model.text_encoder, tokenizer, [exam.caption(i) for i in range(len(exam))])
    with torch.no_grad():
        return retrieval(model.image_encoder(exam.images(range(len(exam)), model.log_scale.device)), texts, k)


def shapes_retrieval(model: AlignmentModel, tokenizer: Tokenizer, scene: str, language: str, captions: str) -> float:
    """R@1 over 192 held-out combinations (of single objects these are all): does each picture find its caption?"""
    size = model.image_encoder.config.image_size
    exam = CaptionedShapes("heldout", size, 0, language, len(combinations("single", "heldout")), captions, scene)
    device = model.log_scale.device
    texts = embed_captions(model.text_encoder, tokenizer, [exam.caption(i) for i in range(len(exam))])
    with torch.no_grad():
        return retrieval(model.image_encoder(exam.images(range(len(exam)), device)), texts)


def train_judge(name: str, preset: JudgePreset, out: Path, device: torch.device) -> Path:
    """Train a judge and count its own mistakes on fresh real pictures (lesson 15)."""
    started = time.monotonic()
    settings = preset.train
    judge = fit_judge(preset.judge, settings.steps, settings.batch_size, settings.learning_rate, settings.seed, "judge")
    fresh = CaptionedShapes("all", preset.judge.image_size, 12345, length=10_000, scene=preset.judge.scene)
    scenes = [fresh.attributes(i) for i in range(len(fresh))]
    scores = attribute_accuracy(judge, torch.cat([fresh.images(rows) for rows in chunks(len(fresh))]), scenes)
    config = {"kind": "judge", "judge": vars(preset.judge)}
    return finish(name, preset, out, judge.state_dict(), config, scores, time.monotonic() - started)


def train_tones(name: str, preset: TonesPreset, out: Path, device: torch.device) -> Path:
    """Train judges of skin tones and count their mistakes on people that they never saw (lesson 15)."""
    started = time.monotonic()
    settings = preset.train
    judge = fit_tones(
        preset.tones, settings.steps, settings.batch_size, settings.learning_rate, settings.seed, "skin tones"
    )
    unseen = preset.data.dataset("heldout")
    rows = people(unseen)
    scores = {f"right on {len(rows)} held-out people": judge.accuracy(unseen.images(rows), tones_of(unseen, rows))}
    config = {"kind": "tones", "tones": vars(preset.tones)}
    return finish(name, preset, out, judge.state_dict(), config, scores, time.monotonic() - started)


def train_vae(name: str, preset: VAEPreset, out: Path, device: torch.device) -> Path:
    """Train a variational autoencoder (lesson 09)."""
    started = time.monotonic()
    torch.manual_seed(preset.train.seed)
    model, random = VAE(preset.vae).to(device), step_random(preset.train.seed, 0)
    batch = random_rows(preset, device, all_pictures(preset.data.dataset()))
    run_fit(model, batch, lambda vae, images: vae.loss(from_uint8(images), random=random), preset, "drawing again")
    model.eval()
    unseen = preset.data.dataset("heldout")
    with torch.no_grad():
        parts = model.elbo_parts(unseen.images(range(min(1000, len(unseen))), device), random)
    scores = {f"heldout {part}, nats a picture": x.mean().item() for part, x in parts._asdict().items()}
    config = {"kind": "vae", "vae": vars(preset.vae)}
    return finish(name, preset, out, model.state_dict(), config, scores, time.monotonic() - started)


def train_dcgan(name: str, preset: DCGANPreset, out: Path, device: torch.device) -> Path:
    """Train a DCGAN (lesson 10)."""
    started, settings = time.monotonic(), preset.train
    torch.manual_seed(settings.seed)
    generator, discriminator = DCGANGenerator(preset.players).to(device), DCGANDiscriminator(preset.players).to(device)
    rates = (settings.learning_rate, settings.learning_rate)
    play = AdversarialStep(
        generator, discriminator, learning_rates=rates, r1_weight=preset.r1_weight, seed=settings.seed
    )
    average, losses = WeightAverage(generator), {}
    batch = random_rows(preset, device, all_pictures(preset.data.dataset()))
    for step in tqdm(range(settings.steps), desc="forging"):
        losses = play(from_uint8(*batch(step)))
        average.update(generator)
    tensors = {f"generator.{key}": x for key, x in average.model.state_dict().items()}
    tensors |= {f"discriminator.{key}": x for key, x in discriminator.state_dict().items()}
    config = {"kind": "dcgan", "players": vars(preset.players)}
    return finish(name, preset, out, tensors, config, losses, time.monotonic() - started)


def all_pictures(dataset: CaptionedPictures) -> Tensor:
    """Every picture of the data set as bytes: (N, 3, S, S) uint8."""
    return pictures_of(dataset, range(len(dataset)))


def pictures_of(dataset: CaptionedPictures, indices: Sequence[int]) -> Tensor:
    """These pictures as bytes, some at a time: (N, 3, S, S) uint8."""
    return torch.cat([to_uint8(dataset.images(indices[rows.start : rows.stop])) for rows in chunks(len(indices))])


def chunks(length: int, size: int = 500) -> list[range]:
    """The indices 0 ... length - 1 in ranges of `size`."""
    return [range(i, min(i + size, length)) for i in range(0, length, size)]


def random_rows(preset: Preset, device: torch.device, *columns: Tensor) -> Callable[[int], tuple[Tensor, ...]]:
    """step -> the same random rows of each column."""
    random = torch.Generator().manual_seed(preset.train.seed)

    def batch(step: int) -> tuple[Tensor, ...]:
        rows = torch.randint(len(columns[0]), (preset.train.batch_size,), generator=random)
        return tuple(column[rows].to(device) for column in columns)

    return batch


def run_fit(model: torch.nn.Module, batch: Callable, loss: Callable, preset: Preset, progress: str) -> list[float]:
    """`fit` with Adam, and a learning rate that rises over a twentieth of the run and then falls along a cosine."""
    settings = preset.train
    schedule = warmup_cosine(settings.learning_rate, settings.steps, settings.steps // 20)
    optimizer = Adam(model.parameters())
    return fit(model, batch, loss, optimizer, settings.steps, learning_rate=schedule, progress=progress)


def finish(
    name: str,
    preset: Preset,
    out: Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    scores: dict[str, float],
    seconds: float,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Save what a short training made, with its card."""
    facts = {"preset": name, "train": vars(preset.train), "seconds": round(seconds), "scores": scores}
    facts |= {"watt_hours": round(energy_wh(seconds), 1), "machine": machine()}
    files = {"README.md": short_card(name, preset, facts)}
    if tokenizer is not None:
        files["tokenizer.json"] = tokenizer.to_json()
    return save_checkpoint(out / "model", tensors, {**config, "training": facts}, files)
