"""How the long trainings go, text-to-image GANs and diffusion: they can be stopped, and gone on with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from course_lib.alignment import load_alignment
from course_lib.batches import EmbeddedPictures
from course_lib.cards import energy_wh, machine, write_card
from course_lib.data.pictures import CaptionedPictures
from course_lib.diffusion import DiffusionTextToImage
from course_lib.diffusion_training import DiffusionTrainer
from course_lib.errors import CourseError
from course_lib.image_encoder import ImageEncoder
from course_lib.listeners import Checkpoints, MetricsLog, SampleGrids
from course_lib.marks import marks_of
from course_lib.models import AnyModel
from course_lib.preset_data import data_record
from course_lib.presets import DiffusionPreset, GanPreset
from course_lib.pretrained import MINILM, MINILM_SCALE, PretrainedTextEncoder, PretrainedTokenizer
from course_lib.recipes import pictures_of
from course_lib.scale import ALONE, PLAIN, ScaleConfig, ScaledTrainer, World
from course_lib.text_encoder import TextEncoder, embed_captions, embed_tokens, load_text_encoder
from course_lib.text_gan import Discriminator, Generator, grow_
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.training import Listener, Trainer, train
from course_lib.unet import UNet

STATE = Path("checkpoints", "last")  # in a run's folder
EXAM = 2000  # pictures for each kind of caption on a model card
DIFFUSION_EXAM, DIFFUSION_STEPS, DIFFUSION_SCALE = 500, 50, 2.0  # a slow model's card: pictures, steps, guidance


@dataclass(frozen=True)
class Run:
    """A long training and its folder.

    Args:
        name: of the preset; preset: its settings.
        out: the folder; device: where to compute.
        stop: asked before every step; True ends the run early.
        steps_before: at which it was once thought to be finished.
        scale: how to compute; world: which of how many processes this is. Only the first one writes.
    """

    name: str
    preset: GanPreset | DiffusionPreset
    out: Path
    device: torch.device
    stop: Callable[[], bool] = lambda: False
    steps_before: Sequence[int] = ()
    scale: ScaleConfig = PLAIN
    world: World = ALONE


def train_gan(run: Run) -> Path | None:
    """Train a text-to-image GAN, or go on with the run that is in its folder (lesson 12).

    Returns:
        The folder of the finished model; None if `stop` ended the run early (its state is saved).
    """
    preset, device = run.preset, run.device
    encoder, tokenizer = load_reader(preset.text_encoder, device)
    dataset = preset.data.dataset()
    trainer = new_trainer(preset, device, run.scale, run.world)
    data = embed(dataset, encoder, tokenizer, device, trainer.generator.reads_tokens)
    prompts = preset.data.dataset("heldout")
    prompts = embed_captions(encoder, tokenizer, [prompts.caption(i) for i in range(min(32, len(prompts)))])
    listeners = [SampleGrids(run.out / "samples", prompts, preset.train.sample_every)]
    if not go_on(trainer, data, listeners, run.out, run.stop, run.name, run.world):
        return None
    parts = trainer.average.model, trainer.discriminator, encoder, tokenizer
    model = TextToImage(*parts, preset.data.vocabulary(), facts_of(run, trainer))
    return finish_model(model, run.out, EXAM) if run.world.rank == 0 else run.out / "model"


def train_diffusion(run: Run) -> Path | None:
    """Train a stage of diffusion, or go on with the run that is in its folder (lesson 16).

    Returns:
        The folder of the finished model; None if `stop` ended the run early (its state is saved).
    Raises:
        CourseError: it is asked to be faster in ways that only the GAN's trainer knows.
    """
    if run.scale != PLAIN or run.world != ALONE:
        raise CourseError("precision, compile and several processes are for GANs; leave them out for diffusion")
    preset, device = run.preset, run.device
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    torch.manual_seed(preset.train.seed)
    trainer = DiffusionTrainer(UNet(preset.unet).to(device), preset.train)
    data = embed(preset.data.dataset(), encoder, tokenizer, device, tokens=True)
    if not go_on(trainer, data, [], run.out, run.stop, run.name):
        return None
    stages = (trainer.average.model, None)
    if preset.base is not None:
        stages = (DiffusionTextToImage.from_pretrained(preset.base, device).base, trainer.average.model)
    model = DiffusionTextToImage(*stages, encoder, tokenizer, preset.data.vocabulary(), facts_of(run, trainer))
    sampling = {"steps_per_sample": DIFFUSION_STEPS, "guidance_scale": DIFFUSION_SCALE}
    return finish_model(model, run.out, DIFFUSION_EXAM, **sampling)


def finish_model(model: AnyModel, out: Path, n: int, **sampling: Any) -> Path:
    """Save a trained model, mark it on n pictures for each kind of caption, and write its card."""
    folder = model.save_pretrained(out / "model")
    write_card(folder, model, marks_of(model, n=n, **sampling), **sampling)
    return folder


def go_on(
    trainer: Trainer,
    data: EmbeddedPictures,
    listeners: list[Listener],
    out: Path,
    stop: Callable[[], bool],
    name: str,
    world: World = ALONE,
) -> bool:
    """Train from where the run in this folder stopped, with its log and its checkpoints; True when it is finished."""
    state = out / STATE
    if has_state(out):
        trainer.load(state)
    if world.rank > 0:
        train(trainer, data, stop=stop, progress=None)
        return trainer.steps_done >= trainer.config.steps
    listeners = [
        MetricsLog(out / "metrics.jsonl", trainer.steps_done),
        *listeners,
        Checkpoints(state, trainer.config.checkpoint_every),
    ]
    train(trainer, data, listeners, stop=stop, progress=name)
    trainer.save(state)
    return trainer.steps_done >= trainer.config.steps


def has_state(out: Path) -> bool:
    """True if a run's folder holds a checkpoint to go on from; a save that was cut short leaves only the one before."""
    return any((out / STATE).with_name(name).is_dir() for name in (STATE.name, f".{STATE.name}.old"))


def facts_of(run: Run, trainer: Trainer) -> dict[str, Any]:
    """What a model keeps of its training."""
    watt_hours = round(energy_wh(trainer.seconds) * run.world.size, 1)
    facts = {"preset": run.name, "data": data_record(run.preset.data), "train": vars(run.preset.train)}
    facts |= {"steps_before": list(run.steps_before), "scale": vars(run.scale), "processes": run.world.size}
    return facts | {"seconds": round(trainer.seconds), "watt_hours": watt_hours, "machine": machine()}


def new_trainer(
    preset: GanPreset, device: torch.device, scale: ScaleConfig = PLAIN, world: World = ALONE
) -> ScaledTrainer:
    """Both players with fresh weights from the preset's seed; those of its base where it has one.

    Raises:
        CourseError: the contrastive loss is asked for, and no image encoder of such pictures is at hand.
    """
    torch.manual_seed(preset.train.seed)
    generator, discriminator = Generator(preset.generator).to(device), Discriminator(preset.discriminator).to(device)
    if preset.base is not None:
        small = TextToImage.from_pretrained(preset.base, device)
        grow_(generator, small.generator)
        grow_(discriminator, small.discriminator)
    eye = image_encoder_for(preset, device) if preset.train.contrastive_weight > 0 else None
    return ScaledTrainer(generator, discriminator, preset.train, eye, scale, world)


def image_encoder_for(preset: GanPreset, device: torch.device) -> ImageEncoder:
    """The image encoder that learned together with the preset's text encoder, frozen; see `new_trainer`."""
    wanted = f"contrastive_weight={preset.train.contrastive_weight} needs an image encoder"
    if preset.text_encoder == MINILM:
        raise CourseError(f"{wanted}, and none has learned together with {MINILM}; use --contrastive_weight 0")
    eye, size = load_alignment(preset.text_encoder, device)[0].image_encoder, preset.generator.image_size
    if eye.config.image_size != size:
        seen = f"that of {preset.text_encoder} sees {eye.config.image_size} x {eye.config.image_size}"
        raise CourseError(f"{wanted} for pictures of {size} x {size}, and {seen}; use --contrastive_weight 0")
    return eye


Reader = tuple[TextEncoder | PretrainedTextEncoder, Tokenizer | PretrainedTokenizer]


def load_reader(name: str, device: torch.device) -> Reader:
    """A frozen text encoder and its tokenizer: MiniLM by its name, or one of ours."""
    if name != MINILM:
        return load_text_encoder(name, device)
    encoder = PretrainedTextEncoder(name, device, MINILM_SCALE)
    return encoder, encoder.tokenizer


def embed(
    dataset: CaptionedPictures,
    encoder: TextEncoder | PretrainedTextEncoder,
    tokenizer: Tokenizer | PretrainedTokenizer,
    device: torch.device,
    tokens: bool = False,
) -> EmbeddedPictures:
    """Draw every picture and read every caption once, before training; if asked, keep each caption's tokens too."""
    captions = ["", *(dataset.caption(i) for i in range(len(dataset)))]
    texts = embed_captions(encoder, tokenizer, captions)
    kept, twins = dataset.distinct(), dataset.twins()  # each picture is kept once
    places = {index: place for place, index in enumerate(kept)}
    pictures, shown = pictures_of(dataset, kept).to(device), torch.tensor([places[i] for i in dataset.same_picture()])
    shown = shown.to(device) if len(kept) < len(dataset) else None
    if twins is not None:
        twins = embed_captions(encoder, tokenizer, [twins.caption(i) for i in range(len(dataset))])
    if not tokens:
        return EmbeddedPictures(pictures, texts[1:], texts[0], twins=twins, shown=shown)
    read = embed_tokens(encoder, tokenizer, captions).half()  # half the memory: (N + 1, T, E)
    return EmbeddedPictures(pictures, texts[1:], texts[0], read[1:], read[0], twins, shown)
