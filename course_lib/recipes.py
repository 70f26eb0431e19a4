"""How each kind of preset is trained: from data to a checkpoint folder with its model card."""

import contextlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib.alignment import AlignmentModel, retrieval
from course_lib.cards import model_card, short_card
from course_lib.checkpoint import save_checkpoint
from course_lib.data.captions import vocabulary
from course_lib.data.shapes import CaptionedShapes, combinations
from course_lib.errors import CourseError
from course_lib.evaluation import PAPERS, evaluate, load_judge
from course_lib.fit import fit, warmup_cosine
from course_lib.image_encoder import ImageEncoder
from course_lib.images import from_uint8, to_uint8
from course_lib.metrics import attribute_accuracy, fit_judge
from course_lib.optim import Adam
from course_lib.presets import (
    AlignmentPreset,
    CaptionsPreset,
    GanPreset,
    JudgePreset,
    Preset,
    get_preset,
    override,
)
from course_lib.text_encoder import TextEncoder, embed_captions, embed_tokens, load_text_encoder, next_token_loss
from course_lib.text_gan import Discriminator, Generator
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.training import (
    AdversarialTrainer,
    Checkpoints,
    EmbeddedPictures,
    Listener,
    MetricsLog,
    SampleGrids,
    train,
)

RUN_FILE = "run.json"


def choose_device(device: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
        CourseError: another word, or CUDA was asked for and is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise CourseError(f'device="{device}" is unknown; use auto, cpu or cuda')
    if device == "cuda" and not torch.cuda.is_available():
        raise CourseError("device=cuda, but this torch sees no CUDA device; use device=cpu or device=auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def writable_folder(path: Path) -> Path:
    """Make a folder and prove that one can write there.

    Raises:
        CourseError: one can't.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"words to pixels")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f'"{path}" cannot be written to ({reason}); choose another folder') from error
    return path


def start_run(name: str, changes: dict[str, Any], out: Path, device: torch.device) -> Path | None:
    """Train a preset in a new folder.

    Args:
        name: of the preset; changes: training settings instead of the preset's.
        out: the run's folder; made here.
        device: where to compute.
    Returns:
        The folder of the trained model; None if Ctrl-C ended the run early (its state is saved).
    Raises:
        CourseError: unknown preset or setting, the folder holds something, or a model that the preset builds on is not
            there.
    """
    preset = override(get_preset(name), changes)
    if out.is_dir() and any(out.iterdir()):
        raise CourseError(f'out="{out}" is not empty; choose a new folder, or go on with the run in it: --resume')
    require_parts(preset)
    settings = {"preset": name, "train": vars(preset.train)}
    (writable_folder(out) / RUN_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return run(name, preset, out, device)


def require_parts(preset: Preset) -> None:
    """Load what a preset builds on, so that a missing part is told before hours of training, not after them."""
    if isinstance(preset, GanPreset | AlignmentPreset):
        load_text_encoder(preset.text_encoder)
    if isinstance(preset, GanPreset):
        load_judge(preset.generator.image_size)


def resume_run(out: Path, device: torch.device) -> Path | None:
    """Go on with the run in a folder, by its own settings; a finished one is only reported.

    Raises:
        CourseError: there is no run, or its settings are damaged.
    """
    try:
        settings = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
        name = str(settings["preset"])
        preset = override(get_preset(name), dict(settings["train"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CourseError(f'resume="{out}" holds no run ({RUN_FILE}: {error}); start one with --preset') from error
    if (out / "model").is_dir():
        print(f"{out} is finished.")
        return out / "model"
    return run(name, preset, out, device)


def run(name: str, preset: Preset, out: Path, device: torch.device) -> Path | None:
    """Train a preset of any kind."""
    if isinstance(preset, GanPreset):
        with stop_on_interrupt() as stop:
            return train_gan(name, preset, out, device, stop)
    recipe = {CaptionsPreset: train_captions, AlignmentPreset: train_alignment, JudgePreset: train_judge}[type(preset)]
    return recipe(name, preset, out, device)


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C asks the loop to end after the step at hand; a second Ctrl-C ends the program at once."""
    asked = threading.Event()

    def ask(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught
        signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


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
    images = all_pictures(dataset)
    ids, mask = tokenizer.encode_batch([dataset.caption(i) for i in range(len(dataset))], encoder.config.context_length)
    batch = random_rows(preset, device, ids, mask, images)

    def loss(model: AlignmentModel, ids: Tensor, mask: Tensor, images: Tensor) -> Tensor:
        longest = int(mask.sum(1).max())  # padding beyond the longest caption of the batch is wasted work
        images = from_uint8(images).contiguous(memory_format=torch.channels_last)
        return model(images, ids[:, :longest], mask[:, :longest])

    run_fit(model, batch, loss, preset, "matching captions and pictures")
    model.eval()
    scores = {f"R@1 among 192, {paper}": shapes_retrieval(model, tokenizer, *PAPERS[paper]) for paper in PAPERS}
    config = {"kind": "alignment", "text_encoder": vars(encoder.config), "image_encoder": vars(preset.image_encoder)}
    return finish(name, preset, out, model.state_dict(), config, scores, time.monotonic() - started, tokenizer)


def shapes_retrieval(model: AlignmentModel, tokenizer: Tokenizer, language: str, captions: str) -> float:
    """R@1 over the 192 held-out combinations: does each picture find its caption?"""
    size = model.image_encoder.config.image_size
    exam = CaptionedShapes("heldout", size, 0, language, len(combinations("single", "heldout")), captions)
    device = model.log_scale.device
    texts = embed_captions(model.text_encoder, tokenizer, [exam.caption(i) for i in range(len(exam))])
    with torch.no_grad():
        return retrieval(model.image_encoder(exam.images(range(len(exam)), device)), texts)


def train_judge(name: str, preset: JudgePreset, out: Path, device: torch.device) -> Path:
    """Train a judge and count its own mistakes on fresh real pictures (lesson 15)."""
    started = time.monotonic()
    settings = preset.train
    judge = fit_judge(preset.judge, settings.steps, settings.batch_size, settings.learning_rate, settings.seed, "judge")
    fresh = CaptionedShapes("all", preset.judge.image_size, seed=12345, length=10_000)
    scenes = [fresh.attributes(i) for i in range(len(fresh))]
    scores = attribute_accuracy(judge, torch.cat([fresh.images(rows) for rows in chunks(len(fresh))]), scenes)
    config = {"kind": "judge", "judge": vars(preset.judge)}
    return finish(name, preset, out, judge.state_dict(), config, scores, time.monotonic() - started)


def train_gan(
    name: str, preset: GanPreset, out: Path, device: torch.device, stop: Callable[[], bool] = lambda: False
) -> Path | None:
    """Train a text-to-image GAN in a run folder, or go on with the run that is there (lesson 12).

    Returns:
        The folder of the finished model; None if `stop` ended the run early (its state is saved).
    """
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    dataset = preset.data.dataset()
    trainer = new_trainer(preset, device)
    data = embed(dataset, encoder, tokenizer, device, trainer.generator.reads_tokens)
    state = out / "checkpoints" / "last"
    if state.is_dir() or state.with_name(".last.old").is_dir():  # a save that was cut short leaves only that
        trainer.load(state)
    prompts = preset.data.dataset("heldout")
    prompts = embed_captions(encoder, tokenizer, [prompts.caption(i) for i in range(32)])
    listeners: list[Listener] = [
        MetricsLog(out / "metrics.jsonl", trainer.steps_done),
        SampleGrids(out / "samples", prompts, preset.train.sample_every),
        Checkpoints(state, preset.train.checkpoint_every),
    ]
    train(trainer, data, listeners, stop=stop, progress=name)
    trainer.save(state)
    if trainer.steps_done < preset.train.steps:
        return None
    facts = {"preset": name, "data": vars(preset.data), "train": vars(preset.train), "seconds": round(trainer.seconds)}
    model = TextToImage(trainer.average.model, trainer.discriminator, encoder, tokenizer, vocabulary(), facts)
    marks = evaluate(model)
    return model.save_pretrained(out / "model", model_card(name, preset, marks, trainer.seconds, model))


def new_trainer(preset: GanPreset, device: torch.device) -> AdversarialTrainer:
    """Both players with fresh weights from the preset's seed."""
    torch.manual_seed(preset.train.seed)
    generator, discriminator = Generator(preset.generator).to(device), Discriminator(preset.discriminator).to(device)
    return AdversarialTrainer(generator, discriminator, preset.train)


def embed(
    dataset: CaptionedShapes, encoder: TextEncoder, tokenizer: Tokenizer, device: torch.device, tokens: bool = False
) -> EmbeddedPictures:
    """Draw every picture and read every caption once, before training; if asked, keep each caption's tokens too."""
    captions = ["", *(dataset.caption(i) for i in range(len(dataset)))]
    texts = embed_captions(encoder, tokenizer, captions)
    pictures = all_pictures(dataset).to(device)
    if not tokens:
        return EmbeddedPictures(pictures, texts[1:], texts[0])
    read = embed_tokens(encoder, tokenizer, captions).half()  # half the memory: (N + 1, T, E)
    return EmbeddedPictures(pictures, texts[1:], texts[0], read[1:], read[0])


def all_pictures(dataset: CaptionedShapes) -> Tensor:
    """Every picture of the data set as bytes: (N, 3, S, S) uint8."""
    return torch.cat([to_uint8(dataset.images(rows)) for rows in chunks(len(dataset))])


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
    files = {"README.md": short_card(name, preset, scores, seconds)}
    if tokenizer is not None:
        files["tokenizer.json"] = tokenizer.to_json()
    return save_checkpoint(out / "model", tensors, {**config, "training": facts}, files)
