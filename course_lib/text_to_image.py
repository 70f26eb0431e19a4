"""A sentence in, pictures out: the whole model behind one class. Built in chapter 14.

`TextToImage` holds the four trained parts (tokenizer, text encoder, generator, discriminator) and the ways to draw:
plain GAN sampling in one pass, refinement of the noise in several steps under the discriminator's eye, guidance of that
refinement by the caption, and starting from a picture.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.batches import step_random
from course_lib.checkpoint import (
    CONFIG,
    dataclass_from_dict,
    load_kind,
    load_weights,
    save_checkpoint,
)
from course_lib.data.captions import words_of
from course_lib.errors import CourseError, require_range
from course_lib.losses import mse_loss
from course_lib.optim import Adam
from course_lib.pretrained import PretrainedConfig, PretrainedTextEncoder, PretrainedTokenizer
from course_lib.text_encoder import TextEncoder, TextEncoderConfig, embed_captions, embed_tokens
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.tokenizer import Tokenizer

REFINE_STEP = 0.05  # length of one refinement step, in units of the noise's variance
SEARCH_STEPS, SEARCH_RATE, SEARCH_STARTS = 60, 0.1, 64  # searching the noise for a given picture
SEARCH_PRIOR = 0.01  # what a nat of the discriminator's doubt is worth, in mean squared difference of pixels
Caption = tuple[Tensor, Tensor | None]  # embedding (B, E), and tokens (B, T, E) for generators that read them
MAX_SEED = 2**32 - 1
MAX_BYTES = 10**9  # of all the pictures that one call draws


def require_few(prompts: int, n_samples: int, image_size: int) -> None:
    """CourseError if the pictures of one call would fill the memory."""
    most = MAX_BYTES // (4 * 3 * image_size**2)
    if prompts * n_samples > most:
        raise CourseError(f"n_samples={n_samples} for {prompts:,} prompts: ask for at most {most:,} pictures at once")


class TextToImage(Module):
    """A text-to-image GAN, ready to draw.

    Args:
        generator, discriminator, text_encoder, tokenizer: the trained parts.
        vocabulary: the words of its training captions, to warn of others.
        training: how it was trained (preset, seed, steps ...): kept in its configuration.
    Raises:
        CourseError: the parts were not made for each other.

    >>> model = TextToImage.from_pretrained("shapes-32")
    >>> model.sample(["a small red circle at the center on gray"], n_samples=8).shape
    torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        text_encoder: TextEncoder | PretrainedTextEncoder,
        tokenizer: Tokenizer | PretrainedTokenizer,
        vocabulary: Iterable[str] = (),
        training: dict[str, Any] | None = None,
    ):
        super().__init__()
        own = generator.config.image_size, text_encoder.config.width
        for name, player in (("generator", generator), ("discriminator", discriminator)):
            sizes = player.config.image_size, player.config.text_size
            if sizes != own:
                raise CourseError(f"the {name} has (image_size, text_size)={sizes}, not {own}; use parts of one model")
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
        folder, tensors, config = load_kind(name_or_path, "text-to-image", "shapes-32")
        if not all(x.isfinite().all() for x in tensors.values()):
            raise CourseError(f'"{folder}" has weights that are not finite, so its training failed; train it again')
        model = cls._from_config(config, folder)
        tensors = {name: value.float() for name, value in tensors.items()}
        if isinstance(model.text_encoder, PretrainedTextEncoder):  # has its weights from where it lives
            tensors |= {f"text_encoder.{name}": value for name, value in model.text_encoder.state_dict().items()}
        load_weights(model, tensors, folder)
        return model.to(device)

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> "TextToImage":
        """The model that a checkpoint describes, with fresh weights."""

        def part(name: str, config_class: type) -> Any:
            return dataclass_from_dict(config_class, config.get(name), f"{folder / CONFIG}, {name}")

        vocabulary, facts = config.get("vocabulary", []), config.get("training", {})
        if type(vocabulary) is not list or type(facts) is not dict:
            raise CourseError(f'"{folder / CONFIG}" is damaged; copy it again')
        described = config.get("text_encoder")
        if isinstance(described, dict) and "source" in described:
            found = part("text_encoder", PretrainedConfig)
            encoder = PretrainedTextEncoder(found.source, scale=found.scale)
            tokenizer = encoder.tokenizer
        else:
            encoder = TextEncoder(part("text_encoder", TextEncoderConfig))
            tokenizer = Tokenizer.load(folder / "tokenizer.json")
            if tokenizer.vocab_size > encoder.config.vocab_size:
                raise CourseError(f'"{folder / CONFIG}" is damaged or of another tokenizer.json; copy both again')
        generator = Generator(part("generator", GeneratorConfig))
        discriminator = Discriminator(part("discriminator", DiscriminatorConfig))
        return cls(generator, discriminator, encoder, tokenizer, map(str, vocabulary), facts)

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the model as a checkpoint folder.

        Args:
            folder: where.
            card: the model card, Markdown, saved as README.md.

        A `PretrainedTextEncoder` is saved by name: who loads the model needs its package or folder too.
        """
        config = {"kind": "text-to-image", "image_size": self.image_size}
        config |= {name: vars(getattr(self, name).config) for name in ("generator", "discriminator", "text_encoder")}
        config |= {"vocabulary": sorted(self.vocabulary), "training": self.training_facts}
        tensors, files = self.state_dict(), {"README.md": card}
        if isinstance(self.text_encoder, PretrainedTextEncoder):
            tensors = {name: x for name, x in tensors.items() if not name.startswith("text_encoder.")}
        else:
            files["tokenizer.json"] = self.tokenizer.to_json()
        return save_checkpoint(folder, tensors, config, files)

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
            CourseError: there is no prompt, or one is empty or longer than the encoder reads.
        """
        for text in texts or [""]:
            if not any(letter.isprintable() and not letter.isspace() for letter in text):
                raise CourseError(f'the prompt {text!r} is empty; say what to draw, such as "a small red circle"')
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
        mask: Tensor | None = None,
        truncation: float = 1.0,
    ) -> Tensor:
        """Draw pictures.

        Args:
            texts: a prompt or several.
            n_samples: pictures for each prompt.
            steps_per_sample: refinement steps on the noise (see `refine`); 0 is plain GAN sampling.
            guidance_scale: how strongly refinement follows the prompt: the discriminator's logit is extrapolated from
                the empty caption (0) to the prompt (1) and beyond. Without refinement steps it does nothing. (Not
                classifier-free guidance: that extrapolates the predictions of a denoiser.)
            image: (3, S, S) in [-1, 1]: begin with noise that draws a picture near this one, then follow the text.
            seed: the same seed gives the same pictures, whatever the batch size.
            batch_size: pictures computed at a time.
            mask: (S, S) bool, True where `image` is to be painted anew; the rest of it is kept (in-painting).
            truncation: the noise is multiplied by this, 0 to 1: the smaller, the more usual the pictures and the more
                alike; at 0 one for each prompt, at 1 nothing changes. Brock et al. 2018, arXiv:1809.11096, draw large
                numbers again instead; at equal diversity that measured no better here, and scaling moves each
                picture gradually. Refinement begins there, and spreads the noise again.
        Returns:
            (len(texts) * n_samples, 3, S, S) in [-1, 1], text-major: all pictures of the first prompt come first.
        Raises:
            CourseError: a prompt is empty or too long, a number is out of range, the pictures are too many, or two
                settings exclude each other.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        require_range("n_samples", n_samples, 1, 10_000)
        require_range("steps_per_sample", steps_per_sample, 0, 1_000)
        require_range("guidance_scale", guidance_scale, 0, 100)
        require_range("seed", seed, 0, MAX_SEED)
        require_range("batch_size", batch_size, 1, 10_000)
        require_range("truncation", truncation, 0, 1)
        require_few(len(texts), n_samples, self.image_size)
        if mask is not None and (image is None or mask.shape != image.shape[1:]):
            raise CourseError("mask goes with an image of the same height and width; give both")
        if image is not None and truncation != 1:
            raise CourseError(f"truncation={truncation} is for random noise, an image's is searched; leave one out")
        conditions = self.encode_text(texts)  # (N, E)
        conditions = conditions.repeat_interleave(n_samples, 0)  # (N * n_samples, E)
        tokens = None
        if self.generator.reads_tokens:
            tokens = embed_tokens(self.text_encoder, self.tokenizer, texts).repeat_interleave(n_samples, 0)
        z_size, random = self.generator.config.z_size, torch.Generator().manual_seed(seed)
        starts = truncation * torch.randn(len(conditions), z_size, generator=random).to(self.device)
        pictures = []
        for rows in torch.arange(len(conditions)).split(batch_size):
            z, caption = starts[rows], (conditions[rows], None if tokens is None else tokens[rows])
            if image is not None:
                z = self.search(image.to(self.device), z, caption, None if mask is None else mask.to(self.device))
            # each picture has its own source of chance, whatever else is in its batch
            kicks = [torch.randn(steps_per_sample, z_size, generator=step_random(seed, int(row) + 1)) for row in rows]
            z = self.refine(z, caption, torch.stack(kicks, 1).to(self.device), guidance_scale)
            with torch.no_grad():
                drawn = self.generator(z, *caption)
            pictures.append(drawn if mask is None else torch.where(mask.to(drawn.device), drawn, image.to(drawn)))
        return torch.cat(pictures)

    def refine(self, z: Tensor, caption: Caption, kicks: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Langevin steps on the noise under the discriminator's logit.

        Each step climbs log p(z) + logit(G(z), caption): the density of noises whose pictures the discriminator
        takes for real. It needs a logit that estimates a log density ratio, which BCE training gives. The difference
        between the logits with the caption and with the empty one is what the caption adds: guidance multiplies it.

        Args:
            z: (B, Z); caption: for each its embedding, and its tokens or None; kicks: (steps, B, Z) from N(0, 1), the
                random part of each step.
            guidance_scale: see `sample`.
        Returns:
            (B, Z).
        Source: Che et al. 2020, arXiv:2003.06060, algorithm 1.
        """
        empty = self.unconditional().expand_as(caption[0])
        for kick in kicks:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                features = self.discriminator.features(self.generator(z, *caption))
                with_text, without = (self.discriminator.match(features, text) for text in (caption[0], empty))
                energy = z.square().sum() / 2 - torch.lerp(without, with_text, float(guidance_scale)).sum()
                (gradient,) = torch.autograd.grad(energy, z)
            z = z - REFINE_STEP / 2 * gradient + REFINE_STEP**0.5 * kick
        return z.detach()

    def search(self, image: Tensor, z: Tensor, caption: Caption, mask: Tensor | None = None) -> Tensor:
        """Noise that makes the generator draw, for this caption, a picture near a given one.

        What the caption says is drawn as it says; what it leaves open (the ground, say) is taken from the picture, as
        far as the noise reaches. First the best of some random starts, then Adam on the pixels' mean squared error,
        while the discriminator sees to it that what the caption asks for does not vanish.

        Args:
            image: (3, S, S) in [-1, 1]; z: (B, Z) where to start from; caption: as for `refine`.
            mask: (S, S) bool, True where the picture does not count; None: all of it counts.
        Returns:
            (B, Z).
        """
        size = self.image_size
        if image.shape != (3, size, size):
            raise CourseError(f"image has shape {tuple(image.shape)}; this model wants (3, {size}, {size})")
        counts = torch.ones(size, size, device=z.device) if mask is None else (~mask).float()  # (S, S)
        z = torch.stack([self.best_start(start, i, image, counts, caption) for i, start in enumerate(z)])
        z = z.requires_grad_(True)
        optimizer = Adam([z], lr=SEARCH_RATE)
        with torch.enable_grad():
            for _ in range(SEARCH_STEPS):
                drawn = self.generator(z, *caption)
                far = len(z) * mse_loss(drawn * counts, (image * counts).expand_as(drawn))
                unlike = z.square().sum() / 2 - self.discriminator(drawn, caption[0]).sum()  # as in `refine`
                loss = far + SEARCH_PRIOR * unlike
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return z.detach()

    def best_start(self, start: Tensor, row: int, image: Tensor, counts: Tensor, caption: Caption) -> Tensor:
        """Of some random noises, (Z,), the one that draws caption number `row` nearest to the image."""
        random = torch.Generator().manual_seed(int(start.abs().sum() * 1e4))  # other noises for every sample
        tries = torch.randn(SEARCH_STARTS, len(start), generator=random).to(start)
        text, tokens = (None if x is None else x[row].expand(SEARCH_STARTS, *x[row].shape) for x in caption)
        errors = ((self.generator(tries, text, tokens) - image) * counts).square().flatten(1).mean(1)
        return tries[errors.argmin()]
