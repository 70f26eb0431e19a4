"""Named settings for everything that `course train` can train: data, sizes, steps. Any run can be repeated by name.

A preset says *what* to train, `recipes.py` knows *how*. The order of the table is the order in which the shipped
models were made: each one uses only those above it. At the end: the reader's own pictures, at the sizes of papers.
"""

from dataclasses import dataclass, replace
from typing import Any

from course_lib.checkpoint import dataclass_from_dict
from course_lib.diffusion_training import DiffusionTrainConfig
from course_lib.emoji_metrics import ToneConfig
from course_lib.errors import CourseError, nearest, require_range
from course_lib.gan import DCGANConfig
from course_lib.image_encoder import ImageEncoderConfig
from course_lib.metrics import JudgeConfig
from course_lib.preset_data import DataConfig, EmojiConfig, FolderConfig, ShapesConfig
from course_lib.pretrained import MINILM
from course_lib.text_encoder import TextEncoderConfig
from course_lib.text_gan import DiscriminatorConfig, GeneratorConfig
from course_lib.training import TrainConfig
from course_lib.unet import DiffusionConfig
from course_lib.vae import VAEConfig


@dataclass(frozen=True)
class FitConfig:
    """How to run the plain training loop: steps, pictures or captions a step, peak learning rate, seed."""

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self):
        require_range("steps", self.steps, 1, 10**8)
        require_range("batch_size", self.batch_size, 2, 10_000)
        require_range("learning_rate", self.learning_rate, 1e-9, 1)
        require_range("seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class CaptionsPreset:
    """A tokenizer and a text encoder that learns to foretell the next token of captions."""

    about: str
    text_encoder: TextEncoderConfig
    data: DataConfig = ShapesConfig()
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class AlignmentPreset:
    """A text encoder that goes on to learn, with an image encoder, which caption belongs to which picture.

    `shift` moves each picture by up to so many pixels: few pictures look like more.
    """

    about: str
    text_encoder: str
    image_encoder: ImageEncoderConfig
    data: DataConfig = ShapesConfig()
    train: FitConfig = FitConfig()
    shift: int = 0


@dataclass(frozen=True)
class JudgePreset:
    """A classifier of attributes, trained on real pictures."""

    about: str
    judge: JudgeConfig
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class TonesPreset:
    """Classifiers of the skin tone of emoji, trained on real pictures."""

    about: str
    tones: ToneConfig
    train: FitConfig = FitConfig()
    data: EmojiConfig = EmojiConfig()


@dataclass(frozen=True)
class VAEPreset:
    """A variational autoencoder; it does not listen to captions."""

    about: str
    vae: VAEConfig
    data: ShapesConfig = ShapesConfig()
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class DCGANPreset:
    """A GAN that draws whatever it likes; it does not listen to captions. `r1_weight` is of its gradient penalty."""

    about: str
    players: DCGANConfig
    data: ShapesConfig = ShapesConfig()
    train: FitConfig = FitConfig()
    r1_weight: float = 0.05


@dataclass(frozen=True)
class GanPreset:
    """A text-to-image GAN that listens to a frozen text encoder. With `base`, both players grow out of that model's."""

    about: str
    text_encoder: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    data: DataConfig = ShapesConfig()
    train: TrainConfig = TrainConfig()
    base: str | None = None


@dataclass(frozen=True)
class DiffusionPreset:
    """A stage of text-to-image diffusion. With `base`, the model whose pictures it doubles in size."""

    about: str
    text_encoder: str
    unet: DiffusionConfig
    data: DataConfig = ShapesConfig()
    train: DiffusionTrainConfig = DiffusionTrainConfig()
    base: str | None = None


Short = CaptionsPreset | AlignmentPreset | JudgePreset | TonesPreset | VAEPreset | DCGANPreset
Preset = Short | GanPreset | DiffusionPreset
TEXT_SIZE = 96  # width of the text encoder, so length of a caption's embedding
EMOJI_TEXT_SIZE = 128

PRESETS: dict[str, Preset] = {
    "judge-32": JudgePreset("reads attributes off pictures of 32 x 32", JudgeConfig(32), FitConfig(steps=2000)),
    "judge-64": JudgePreset("reads attributes off pictures of 64 x 64", JudgeConfig(64, 16), FitConfig(steps=2000)),
    "judge-64-pairs": JudgePreset(
        "reads attributes off pictures of two objects, 64 x 64", JudgeConfig(64, 16, "pair"), FitConfig(steps=1000)
    ),
    "tones-32": TonesPreset(
        "reads the skin tone off emoji of 32 x 32", ToneConfig(32, 32), FitConfig(2000, 64, 1e-3), EmojiConfig(32)
    ),
    "tones-64": TonesPreset(
        "reads the skin tone off emoji of 64 x 64", ToneConfig(64, 16), FitConfig(1000, 64, 2e-3), EmojiConfig(64)
    ),
    "gpt-captions": CaptionsPreset(
        "foretells the next token of English and Chinese captions",
        TextEncoderConfig(vocab_size=512, context_length=64, width=TEXT_SIZE, heads=4, layers=2),
        train=FitConfig(steps=1000, batch_size=64),
    ),
    "align-shapes-32": AlignmentPreset(
        "knows which caption belongs to which picture",
        "gpt-captions",
        ImageEncoderConfig(32, 32, TEXT_SIZE),
        ShapesConfig(captions="noisy"),
        FitConfig(steps=2500),
    ),
    "align-shapes-64": AlignmentPreset(
        "knows which caption belongs to which picture, of one object or of two",
        "align-shapes-32",
        ImageEncoderConfig(64, 16, TEXT_SIZE),
        ShapesConfig(64, length=40_000, captions="noisy", scene="mixed"),
        FitConfig(steps=5000, batch_size=64),  # each picture brings its twin along
    ),
    "shapes-32": GanPreset(
        "draws the full grammar of shapes at 32 x 32",
        "align-shapes-32",
        GeneratorConfig(32, text_size=TEXT_SIZE),
        DiscriminatorConfig(32, text_size=TEXT_SIZE),
        train=TrainConfig(steps=8000),
    ),
    "shapes-32-live": GanPreset(
        "draws the full grammar of shapes at 32 x 32 after a few minutes of training",
        "align-shapes-32",
        GeneratorConfig(32, text_size=TEXT_SIZE),
        DiscriminatorConfig(32, text_size=TEXT_SIZE),
        ShapesConfig(length=8000),
        TrainConfig(steps=2000, contrastive_weight=0.3),
    ),
    "shapes-64": GanPreset(
        "draws the full grammar of shapes at 64 x 64, one object or two and how they stand",
        "align-shapes-64",
        GeneratorConfig(64, text_size=TEXT_SIZE, condition_size=96, width=24),
        DiscriminatorConfig(64, text_size=TEXT_SIZE),
        ShapesConfig(64, length=40_000, scene="mixed"),
        TrainConfig(steps=7000),
    ),
    "vae-shapes-32": VAEPreset(
        "draws shapes from points of a latent space",
        VAEConfig(32, width=16, latent_size=10, pixel_std=1.0),
        ShapesConfig(captions="canonical"),
        FitConfig(steps=6000, batch_size=32, learning_rate=4e-3),
    ),
    "gan-shapes-32": DCGANPreset(
        "draws shapes from noise, a DCGAN",
        DCGANConfig(32),
        ShapesConfig(captions="canonical"),
        FitConfig(steps=8000, batch_size=64),
        r1_weight=0.2,
    ),
    "shapes-32-diffusion": DiffusionPreset(
        "draws the full grammar of shapes at 32 x 32 by diffusion, the first stage of a small Imagen",
        "align-shapes-32",
        DiffusionConfig(32, TEXT_SIZE, width=32),
    ),
    "shapes-64-diffusion": DiffusionPreset(
        "draws the full grammar of shapes at 64 x 64 by diffusion in two stages, a small Imagen",
        "align-shapes-32",
        DiffusionConfig(64, TEXT_SIZE, width=24, super_resolution=True),
        ShapesConfig(64),
        DiffusionTrainConfig(steps=6000, batch_size=32),
        base="shapes-32-diffusion",
    ),
    "gpt-emoji": CaptionsPreset(
        "foretells the next token of the names of emoji",
        TextEncoderConfig(vocab_size=1024, context_length=64, width=EMOJI_TEXT_SIZE, heads=4, layers=2),
        EmojiConfig(style="both"),
        FitConfig(steps=600, batch_size=64),
    ),
    "align-emoji-64": AlignmentPreset(
        "knows which name belongs to which emoji",
        "gpt-emoji",
        ImageEncoderConfig(64, 24, EMOJI_TEXT_SIZE),
        EmojiConfig(64, style="both"),
        FitConfig(steps=2000),
        shift=4,
    ),
    "emoji-32": GanPreset(
        "draws Twemoji by their names at 32 x 32",
        "align-emoji-64",
        GeneratorConfig(32, text_size=EMOJI_TEXT_SIZE, condition_size=128, width=64),
        DiscriminatorConfig(32, text_size=EMOJI_TEXT_SIZE, width=64),
        EmojiConfig(32),
        TrainConfig(steps=10_000, learning_rate=6e-4, mode_seeking_weight=0.0, mse_weight=10.0, shift=2),
    ),
    "emoji-64": GanPreset(
        "draws Twemoji and OpenMoji by their names at 64 x 64",
        "align-emoji-64",
        GeneratorConfig(64, text_size=EMOJI_TEXT_SIZE, condition_size=128, width=64, grown=True),
        DiscriminatorConfig(64, text_size=EMOJI_TEXT_SIZE, width=64),
        EmojiConfig(64, style="both"),
        TrainConfig(steps=22_000, learning_rate=6e-4, mode_seeking_weight=0.0, mse_weight=10.0, shift=4),
        base="emoji-32",
    ),
}

PUBLISHED = {  # pictures, and how often each is shown
    "cub": ("birds of CUB-200-2011", 11_788, 600),
    "flowers": ("flowers of Flowers102", 8_189, 600),
    "coco": ("everyday scenes of COCO 2014", 82_783, 120),
}
PHOTO_SIZES, PHOTO_WIDTH, PHOTO_BATCH = (64, 128, 256), 64, 64
MINILM_SIZE = 384


def folder_preset(name: str, image_size: int) -> GanPreset:
    """The preset for photographs like a published data set's. R1 grows with the number of pixels.

    Source: how often birds and scenes are shown: AttnGAN's settings (Xu et al. 2018, arXiv:1711.10485); R1: Karras et
    al. 2020, arXiv:2006.06676, appendix C (gamma = 0.0002 pixels / batch).
    """
    pictures, length, passes = PUBLISHED[name]
    return GanPreset(
        f"draws {pictures}, or what your own folder holds, at {image_size} x {image_size}",
        MINILM,
        GeneratorConfig(image_size, z_size=128, text_size=MINILM_SIZE, condition_size=128, width=PHOTO_WIDTH),
        DiscriminatorConfig(image_size, text_size=MINILM_SIZE, width=PHOTO_WIDTH),
        FolderConfig(image_size, length=length),
        TrainConfig(
            steps=length * passes // PHOTO_BATCH,
            batch_size=PHOTO_BATCH,
            learning_rate=4e-4,
            r1_weight=0.0002 * image_size**2 / PHOTO_BATCH,
            average_decay=0.999,
            checkpoint_every=1000,
            sample_every=1000,
        ),
    )


PRESETS |= {f"{name}-{size}": folder_preset(name, size) for name in PUBLISHED for size in PHOTO_SIZES}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        CourseError: there is none of that name; suggests the nearest.
    """
    if name not in PRESETS:
        raise CourseError(f'preset="{name}" is unknown; {nearest(name, PRESETS)}')
    return PRESETS[name]


def override(preset: Preset, changes: dict[str, Any], data: dict[str, Any] | None = None) -> Preset:
    """The preset with some of its training settings changed, or with other data of its kind: another folder.

    Raises:
        CourseError: this kind of preset has no such setting, or the value is wrong.
    """
    train = dataclass_from_dict(type(preset.train), {**vars(preset.train), **changes}, "training settings")
    if not data:
        return replace(preset, train=train)
    if not isinstance(getattr(preset, "data", None), FolderConfig):
        fitting = [name for name, other in PRESETS.items() if isinstance(getattr(other, "data", None), FolderConfig)]
        raise CourseError(f"this preset has pictures of its own, not {data}; those for a folder: {', '.join(fitting)}")
    data = dataclass_from_dict(FolderConfig, {**vars(preset.data), **data}, "data settings")
    return replace(preset, train=train, data=data)
