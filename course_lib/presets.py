"""Named settings for everything that `course train` can train: data, sizes, steps. Any run can be repeated by name.

A preset says *what* to train, `recipes.py` knows *how*. The order of the table is the order in which the shipped
models were made: each one uses only those above it.
"""

from dataclasses import dataclass, replace
from typing import Any

from course_lib.checkpoint import dataclass_from_dict
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest, require_range
from course_lib.image_encoder import ImageEncoderConfig
from course_lib.metrics import JudgeConfig
from course_lib.text_encoder import TextEncoderConfig
from course_lib.text_gan import DiscriminatorConfig, GeneratorConfig
from course_lib.training import TrainConfig


@dataclass(frozen=True)
class ShapesConfig:
    """Which captioned shapes to train on; the arguments of `CaptionedShapes`."""

    image_size: int = 32
    length: int = 20_000
    language: str = "both"
    captions: str = "varied"
    seed: int = 0
    grammar: str = "full"

    def dataset(self, split: str = "train") -> CaptionedShapes:
        """The data set it describes."""
        return CaptionedShapes(split=split, **vars(self))


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
    data: ShapesConfig = ShapesConfig()
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class AlignmentPreset:
    """A text encoder that goes on to learn, with an image encoder, which caption belongs to which picture."""

    about: str
    text_encoder: str
    image_encoder: ImageEncoderConfig
    data: ShapesConfig = ShapesConfig()
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class JudgePreset:
    """A classifier of attributes, trained on real pictures."""

    about: str
    judge: JudgeConfig
    train: FitConfig = FitConfig()


@dataclass(frozen=True)
class GanPreset:
    """A text-to-image GAN that listens to a frozen text encoder."""

    about: str
    text_encoder: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    data: ShapesConfig = ShapesConfig()
    train: TrainConfig = TrainConfig()


Preset = CaptionsPreset | AlignmentPreset | JudgePreset | GanPreset
TEXT_SIZE = 96  # width of the text encoder, so length of a caption's embedding

PRESETS: dict[str, Preset] = {
    "judge-32": JudgePreset("reads attributes off pictures of 32 x 32", JudgeConfig(32), FitConfig(steps=2000)),
    "judge-64": JudgePreset("reads attributes off pictures of 64 x 64", JudgeConfig(64, 16), FitConfig(steps=2000)),
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
        TrainConfig(steps=2000),
    ),
}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        CourseError: there is none of that name; suggests the nearest.
    """
    if name not in PRESETS:
        raise CourseError(f'preset="{name}" is unknown; {nearest(name, PRESETS)}')
    return PRESETS[name]


def override(preset: Preset, changes: dict[str, Any]) -> Preset:
    """The preset with some of its training settings changed.

    Raises:
        CourseError: this kind of preset has no such setting, or the value is wrong.
    """
    train = dataclass_from_dict(type(preset.train), {**vars(preset.train), **changes}, "training settings")
    return replace(preset, train=train)
