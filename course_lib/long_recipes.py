"""How the long trainings go, text-to-image GANs and diffusion: they can be stopped, and gone on with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from course_lib.batches import EmbeddedPictures
from course_lib.cards import energy_wh, write_card
from course_lib.data.pictures import CaptionedPictures
from course_lib.diffusion import DiffusionTextToImage
from course_lib.diffusion_training import DiffusionTrainer
from course_lib.listeners import Checkpoints, MetricsLog, SampleGrids
from course_lib.marks import marks_of
from course_lib.models import AnyModel
from course_lib.presets import DiffusionPreset, GanPreset, data_record
from course_lib.recipes import all_pictures
from course_lib.text_encoder import TextEncoder, embed_captions, embed_tokens, load_text_encoder
from course_lib.text_gan import Discriminator, Generator, grow_
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.training import AdversarialTrainer, Listener, Trainer, train
from course_lib.unet import UNet

EXAM = 2000  # pictures for each kind of caption on a model card
DIFFUSION_EXAM, DIFFUSION_STEPS, DIFFUSION_SCALE = (
    500,
    50,
    2.0,
)  # pictures, steps and guidance of the card of a model that is slow to draw


def train_gan(
    name: str,
    preset: GanPreset,
    out: Path,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    steps_before: Sequence[int] = (),
) -> Path | None:
    """Train a text-to-image GAN in a run folder, or go on with the run that is there (lesson 12).

    Returns:
        The folder of the finished model; None if `stop` ended the run early (its state is saved).
    """
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    dataset = preset.data.dataset()
    trainer = new_trainer(preset, device)
    data = embed(dataset, encoder, tokenizer, device, trainer.generator.reads_tokens)
    prompts = preset.data.dataset("heldout")
    prompts = embed_captions(encoder, tokenizer, [prompts.caption(i) for i in range(32)])
    listeners = [SampleGrids(out / "samples", prompts, preset.train.sample_every)]
    if not go_on(trainer, data, listeners, out, stop, name):
        return None
    facts = facts_of(name, preset, trainer, steps_before)
    parts = trainer.average.model, trainer.discriminator, encoder, tokenizer
    model = TextToImage(*parts, preset.data.vocabulary(), facts)
    return finish_model(model, out, EXAM)


def train_diffusion(
    name: str,
    preset: DiffusionPreset,
    out: Path,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    steps_before: Sequence[int] = (),
) -> Path | None:
    """Train a stage of diffusion in a run folder, or go on with the run that is there (lesson 16).

    Returns:
        The folder of the finished model; None if `stop` ended the run early (its state is saved).
    """
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    torch.manual_seed(preset.train.seed)
    trainer = DiffusionTrainer(UNet(preset.unet).to(device), preset.train)
    data = embed(preset.data.dataset(), encoder, tokenizer, device, tokens=True)
    if not go_on(trainer, data, [], out, stop, name):
        return None
    facts, stages = facts_of(name, preset, trainer, steps_before), (trainer.average.model, None)
    if preset.base is not None:
        stages = (DiffusionTextToImage.from_pretrained(preset.base, device).base, trainer.average.model)
    model = DiffusionTextToImage(*stages, encoder, tokenizer, preset.data.vocabulary(), facts)
    sampling = {"steps_per_sample": DIFFUSION_STEPS, "guidance_scale": DIFFUSION_SCALE}
    return finish_model(model, out, DIFFUSION_EXAM, **sampling)


def finish_model(model: AnyModel, out: Path, n: int, **sampling: Any) -> Path:
    """Save a trained model, mark it on n pictures for each kind of caption, and write its card."""
    folder = model.save_pretrained(out / "model")
    write_card(folder, model, marks_of(model, n=n, **sampling), **sampling)
    return folder


def go_on(
    trainer: Trainer, data: EmbeddedPictures, listeners: list[Listener], out: Path, stop: Callable[[], bool], name: str
) -> bool:
    """Train from where the run in this folder stopped, with its log and its checkpoints; True when it is finished."""
    state = out / "checkpoints" / "last"
    if state.is_dir() or state.with_name(".last.old").is_dir():  # a save that was cut short leaves only that
        trainer.load(state)
    listeners = [
        MetricsLog(out / "metrics.jsonl", trainer.steps_done),
        *listeners,
        Checkpoints(state, trainer.config.checkpoint_every),
    ]
    train(trainer, data, listeners, stop=stop, progress=name)
    trainer.save(state)
    return trainer.steps_done >= trainer.config.steps


def facts_of(
    name: str, preset: GanPreset | DiffusionPreset, trainer: Trainer, steps_before: Sequence[int]
) -> dict[str, Any]:
    """What a model keeps of its training."""
    record = data_record(preset.data)
    spent = {"seconds": round(trainer.seconds), "watt_hours": round(energy_wh(trainer.seconds), 1)}
    return {"preset": name, "data": record, "train": vars(preset.train), "steps_before": list(steps_before), **spent}


def new_trainer(preset: GanPreset, device: torch.device) -> AdversarialTrainer:
    """Both players with fresh weights from the preset's seed; those of its base where it has one."""
    torch.manual_seed(preset.train.seed)
    generator, discriminator = Generator(preset.generator).to(device), Discriminator(preset.discriminator).to(device)
    if preset.base is not None:
        small = TextToImage.from_pretrained(preset.base, device)
        grow_(generator, small.generator)
        grow_(discriminator, small.discriminator)
    return AdversarialTrainer(generator, discriminator, preset.train)


def embed(
    dataset: CaptionedPictures, encoder: TextEncoder, tokenizer: Tokenizer, device: torch.device, tokens: bool = False
) -> EmbeddedPictures:
    """Draw every picture and read every caption once, before training; if asked, keep each caption's tokens too."""
    captions = ["", *(dataset.caption(i) for i in range(len(dataset)))]
    texts = embed_captions(encoder, tokenizer, captions)
    pictures, twins = all_pictures(dataset).to(device), dataset.twins()
    if twins is not None:
        twins = embed_captions(encoder, tokenizer, [twins.caption(i) for i in range(len(dataset))])
    if not tokens:
        return EmbeddedPictures(pictures, texts[1:], texts[0], twins=twins)
    read = embed_tokens(encoder, tokenizer, captions).half()  # half the memory: (N + 1, T, E)
    return EmbeddedPictures(pictures, texts[1:], texts[0], read[1:], read[0], twins)
