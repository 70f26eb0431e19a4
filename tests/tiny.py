"""What several tests share: a text-to-image model that is made in no time, and a preset that trains one in a second."""

from dataclasses import replace

import torch

from course_lib.data.captions import vocabulary
from course_lib.preset_data import ShapesConfig
from course_lib.presets import GanPreset
from course_lib.text_encoder import TextEncoder, TextEncoderConfig
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.training import TrainConfig

GENERATOR = GeneratorConfig(32, z_size=8, text_size=16, condition_size=8, width=4)
DISCRIMINATOR = DiscriminatorConfig(32, text_size=16, width=4, hidden=8)


def tiny_model(seed: int = 0, conditioning: str = "normalisation") -> TextToImage:
    """Random weights, but large ones: noise and caption are seen in the picture, and the discriminator has opinions."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer.train(["a small red circle at the center on gray", "灰色背景上，中间有一个小的红色圆形"], 300)
    encoder = TextEncoder(TextEncoderConfig(tokenizer.vocab_size, context_length=128, width=16, heads=2, layers=1))
    generator = Generator(replace(GENERATOR, conditioning=conditioning))
    discriminator = Discriminator(DISCRIMINATOR)
    for name, weight in generator.named_parameters():
        if "norm" not in name and weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    torch.nn.init.normal_(discriminator.realness.weight, std=20.0)
    return TextToImage(generator, discriminator, encoder, tokenizer, vocabulary(), {"data": {"grammar": "full"}})


def tiny_preset(**changes) -> GanPreset:
    """A preset that listens to the text encoder of a checkpoint named "tiny"."""
    settings = {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "sample_every": 3, **changes}
    data = ShapesConfig(length=200)
    return GanPreset("is tiny", "tiny", GENERATOR, DISCRIMINATOR, data, TrainConfig(**settings))
