"""A sentence in, pictures out: the whole model behind one class. Built in chapter 14.

`TextToImage` holds the four trained parts (tokenizer, text encoder, generator, discriminator) and the ways to draw:
plain GAN sampling in one pass, refinement of the noise in several steps under the discriminator's eye, guidance that
overstates the caption, and starting from a picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.checkpoint import dataclass_from_dict, find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from course_lib.data.captions import words_of
from course_lib.errors import CourseError
from course_lib.losses import mse_loss
from course_lib.optim import Adam
from course_lib.text_encoder import TextEncoder, TextEncoderConfig, embed_captions
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.tokenizer import Tokenizer

REFINE_STEP = 0.05  # length of one refinement step, in units of the noise's variance
SEARCH_STEPS, SEARCH_RATE, SEARCH_STARTS = 60, 0.1, 64  # searching the noise for a given picture


class TextToImage(Module):
    """A text-to-image GAN, ready to draw.

    Args:
        generator, discriminator, text_encoder, tokenizer: the trained parts.
        vocabulary: the words of its training captions, to warn of others.
        training: how it was trained (preset, seed, steps ...): kept in its configuration.

    >>> model = TextToImage.from_pretrained("shapes-32")
    >>> model.sample(["a small red circle at the center on gray"], n_samples=8).shape
    torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        vocabulary: Sequence[str] = (),
        training: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.generator, self.discriminator, self.text_encoder = generator, discriminator, text_encoder
        self.tokenizer, self.vocabulary, self.training_facts = tokenizer, frozenset(vocabulary), training or {}
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "cpu") -> "TextToImage":
        """Load a model.

        Args:
            name_or_path: a name under data/checkpoints/, such as "shapes-32", or a folder.
            device: where it shall compute.
        Raises:
            CourseError: no such checkpoint, or a damaged, foreign or differently built one.
        """
        folder = find_checkpoint(name_or_path)
        tensors, config = load_checkpoint(folder)
        if config.get("kind") != "text-to-image":
            raise CourseError(
                f'"{folder}" holds a {config.get("kind", "foreign")} checkpoint, not a text-to-image one; '
                'use one such as "shapes-32"'
            )

        def part(name: str, config_class: type) -> Any:
            return dataclass_from_dict(config_class, config.get(name), f"{folder / 'config.json'}, {name}")

        model = cls(
            Generator(part("generator", GeneratorConfig)),
            Discriminator(part("discriminator", DiscriminatorConfig)),
            TextEncoder(part("text_encoder", TextEncoderConfig)),
            Tokenizer.load(folder / "tokenizer.json"),
            config.get("vocabulary", ()),
            config.get("training"),
        )
        load_weights(model, {name: value.float() for name, value in tensors.items()}, folder)
        return model.to(device)

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the model as a checkpoint folder.

        Args:
            folder: where.
            card: the model card, Markdown, saved as README.md.
        """
        config = {"kind": "text-to-image", "image_size": self.image_size}
        config |= {name: vars(getattr(self, name).config) for name in ("generator", "discriminator", "text_encoder")}
        config |= {"vocabulary": sorted(self.vocabulary), "training": self.training_facts}
        files = {"tokenizer.json": self.tokenizer.to_json(), "README.md": card}
        return save_checkpoint(folder, self.state_dict(), config, files)

    @property
    def image_size(self) -> int:
        """Width and height of its pictures in pixels."""
        return self.generator.config.image_size

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.parameters()).device

    def unknown_words(self, text: str) -> list[str]:
        """The words of a prompt that no training caption had, in order, each once."""
        return [w for w in dict.fromkeys(words_of(text)) if self.vocabulary and w not in self.vocabulary]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Prompts -> (len(texts), E), what the generator hears.

        Raises:
            CourseError: a prompt is empty or longer than the encoder reads.
        """
        for text in texts:
            if not text.strip():
                raise CourseError('the prompt is empty; say what to draw, such as "a small red circle"')
        return embed_captions(self.text_encoder, self.tokenizer, texts, device=self.device)

    def unconditional(self) -> Tensor:
        """(E,): the embedding of the empty caption, which the generator was trained with now and then."""
        return embed_captions(self.text_encoder, self.tokenizer, [""], device=self.device)[0]

    def sample(
        self,
        texts: str | Sequence[str],
        n_samples: int = 4,
        steps_per_sample: int = 0,
        guidance_scale: float = 1.0,
        image: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Draw pictures.

        Args:
            texts: a prompt or several.
            n_samples: pictures for each prompt.
            steps_per_sample: refinement steps on the noise (see `refine`); 0 is plain GAN sampling.
            guidance_scale: how far to overstate the prompt, from the empty caption through the prompt and beyond; 1
                is the prompt itself. (Not classifier-free guidance: that mixes two predictions of a denoiser.)
            image: (3, S, S) in [-1, 1]: begin with noise that draws a picture near this one, then follow the text.
            seed: the same seed gives the same pictures, whatever the batch size.
            batch_size: pictures computed at a time.
        Returns:
            (len(texts) * n_samples, 3, S, S) in [-1, 1], text-major: all pictures of the first prompt come first.
        Raises:
            CourseError: a prompt is empty or too long, or a number is out of range.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        _require_range("n_samples", n_samples, 1, 10_000)
        _require_range("steps_per_sample", steps_per_sample, 0, 1_000)
        _require_range("guidance_scale", guidance_scale, 0, 100)
        _require_range("batch_size", batch_size, 1, 10_000)
        empty = self.unconditional()
        conditions = empty + guidance_scale * (self.encode_text(texts) - empty)  # (N, E)
        conditions = conditions.repeat_interleave(n_samples, 0)  # (N * n_samples, E)
        random = torch.Generator().manual_seed(seed)
        starts = torch.randn(len(conditions), self.generator.config.z_size, generator=random).to(self.device)
        kicks = torch.randn(steps_per_sample, *starts.shape, generator=random).to(self.device)
        pictures = []
        for rows in torch.arange(len(conditions)).split(batch_size):
            z, condition = starts[rows], conditions[rows]
            if image is not None:
                z = self.search(image.to(self.device), z, condition)
            z = self.refine(z, condition, kicks[:, rows])
            with torch.no_grad():
                pictures.append(self.generator(z, condition))
        return torch.cat(pictures)

    def refine(self, z: Tensor, condition: Tensor, kicks: Tensor) -> Tensor:
        """Langevin steps on the noise under the discriminator's logit.

        Each step climbs log p(z) + logit(G(z), condition): the density of noises whose pictures the discriminator
        takes for real. It needs a logit that estimates a log density ratio, which BCE training gives.

        Args:
            z: (B, Z); condition: (B, E); kicks: (steps, B, Z) from N(0, 1), the random part of each step.
        Returns:
            (B, Z).
        Source: Che et al. 2020, arXiv:2003.06060, algorithm 1.
        """
        for kick in kicks:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                energy = z.square().sum() / 2 - self.discriminator(self.generator(z, condition), condition).sum()
                (gradient,) = torch.autograd.grad(energy, z)
            z = z - REFINE_STEP / 2 * gradient + REFINE_STEP**0.5 * kick
        return z.detach()

    def search(self, image: Tensor, z: Tensor, condition: Tensor) -> Tensor:
        """Noise that makes the generator draw, for this caption, a picture near a given one.

        What the caption says is drawn as it says; what it leaves open (where, how large, on what ground) is taken
        from the picture. First the best of some random starts, then Adam on the pixels' mean squared error.

        Args:
            image: (3, S, S) in [-1, 1]; z: (B, Z) where to start from; condition: (B, E).
        Returns:
            (B, Z).
        """
        size = self.image_size
        if image.shape != (3, size, size):
            raise CourseError(f"image has shape {tuple(image.shape)}; this model wants (3, {size}, {size})")
        found = []
        for start, text in zip(z, condition, strict=True):
            random = torch.Generator().manual_seed(int(start.abs().sum() * 1e4))  # other starts for every sample
            tries = torch.randn(SEARCH_STARTS, len(start), generator=random).to(start)
            errors = (self.generator(tries, text.expand(SEARCH_STARTS, -1)) - image).square().flatten(1).mean(1)
            found.append(tries[errors.argmin()])
        z = torch.stack(found).requires_grad_(True)
        optimizer = Adam([z], lr=SEARCH_RATE)
        with torch.enable_grad():
            for _ in range(SEARCH_STEPS):
                drawn = self.generator(z, condition)
                loss = len(z) * mse_loss(drawn, image.expand_as(drawn)) + 1e-3 * z.square().mean(1).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return z.detach()


def _require_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise CourseError(f"{name}={value} is out of range; use {low} to {high}")
