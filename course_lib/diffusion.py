"""Diffusion: pictures drawn by taking noise away, step by step, under the caption's guidance. Built in chapter 16.

The training loss of a `UNet`, how one stage draws, and `DiffusionTextToImage`, which has the `sample` of `TextToImage`
and may have a second stage that doubles the size of what the first one drew. The arithmetic is in `denoising`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.batches import step_random
from course_lib.checkpoint import dataclass_from_dict, load_kind, load_weights, save_checkpoint
from course_lib.data.captions import words_of
from course_lib.denoising import (
    ALPHA_BAR,
    CLEAN_FROM,
    TARGETS,
    TIMES,
    add_noise,
    ddim_sample,
    dynamic_threshold,
    guide,
    sampling_times,
)
from course_lib.errors import CourseError, require_range
from course_lib.layers import average_pool2d
from course_lib.losses import mse_loss
from course_lib.text_encoder import TextEncoder, TextEncoderConfig, embed_tokens
from course_lib.text_to_image import require_few
from course_lib.tokenizer import Tokenizer
from course_lib.unet import DiffusionConfig, UNet

IMAGE_TIME = 700  # how far a given picture is dissolved before it is drawn anew
LOW_TIME = 100  # how noisy the small picture is when its large one is drawn ...
MAX_LOW_TIME = 500  # ... and at most while that is learned


def diffusion_loss(
    unet: UNet, images: Tensor, tokens: Tensor, mask: Tensor, random: torch.Generator, text_dropout: float = 0.1
) -> Tensor:
    """Add noise of a random strength and ask what was added: the mean squared error of the answer.

    A stage of super-resolution is also shown the picture at half its size, itself noisy to a random degree, so that it
    does not trust every pixel of what the first stage will draw.

    Args:
        images: (B, 3, S, S) in [-1, 1].
        tokens, mask: (B, T, E) and (B, T), their captions (see `embed_tokens`).
        random: source of all chance, on the CPU.
        text_dropout: share of the captions that is withheld, so that drawing without one is learned too.
    Returns:
        ().
    Source: Ho et al. 2020, eq. 14; Ho & Salimans 2022, algorithm 1; Saharia et al. 2022, section 2.4.
    """
    time = torch.randint(1, TIMES + 1, (len(images),), generator=random)
    noise = torch.randn(images.shape, generator=random).to(images)
    keep = (torch.rand(len(images), 1, generator=random) >= text_dropout).to(mask.device)
    noisy = add_noise(images, noise, ALPHA_BAR[time])
    low = ()
    if unet.config.super_resolution:
        low_time = torch.randint(MAX_LOW_TIME + 1, (len(images),), generator=random)
        low = noisy_low(average_pool2d(images, 2), low_time, random)
    prediction = unet(noisy, time.to(images.device), tokens, mask & keep, *low)
    return mse_loss(prediction, TARGETS[unet.config.prediction](images, noise, ALPHA_BAR[time]))


def noisy_low(low: Tensor, time: Tensor, *randoms: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise augmentation: small pictures (B, 3, H, W) made noisy to the time (B,), and that time, on their device.

    Source: Ho et al. 2021, arXiv:2106.15282 ("conditioning augmentation").
    """
    return add_noise(low, normal(randoms, low), ALPHA_BAR[time]), time.to(low.device)


def normal(randoms: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """N(0, 1) of the shape (B, ...) of `like`, in equal parts from each source: a source for each picture, or one."""
    shape = (len(like) // len(randoms), *like.shape[1:])
    return torch.cat([torch.randn(shape, generator=random) for random in randoms]).to(like)


@torch.no_grad()
def draw_pictures(
    unet: UNet, tokens: Tensor, mask: Tensor, randoms: Sequence[torch.Generator], steps: int,
    guidance_scale: float = 1.0, threshold: Callable[[Tensor], Tensor] = dynamic_threshold,
    low: Tensor | None = None, image: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One stage draws: DDIM without fresh noise, guided, thresholded.

    Args:
        tokens, mask: (B, T, E) and (B, T), a caption for each picture.
        randoms: a source of chance for each picture, on the CPU.
        steps: 1 to 1000.
        guidance_scale: see `guide`; 1 costs half of any other.
        threshold: `dynamic_threshold` or `static_threshold`.
        low: (B, 3, S / 2, S / 2) what a stage of super-resolution shall double.
        image: (3, S, S) to begin from, dissolved to time 700, instead of from noise.
    Returns:
        (B, 3, S, S) in [-1, 1].
    Source: for `image`, Meng et al. 2022 (SDEdit), algorithm 1, arXiv:2108.01073.
    """
    size, device, start = unet.config.image_size, tokens.device, TIMES if image is None else IMAGE_TIME
    noisy = normal(randoms, torch.empty(len(tokens), 3, size, size, device=device))
    if image is not None:
        noisy = add_noise(image.to(device).expand_as(noisy), noisy, ALPHA_BAR[start : start + 1])
    low_inputs = () if low is None else noisy_low(low, torch.full((len(low),), LOW_TIME), *randoms)

    def denoise(noisy: Tensor, time: int) -> Tensor:
        inputs = (noisy, torch.full((len(noisy),), time, device=device), tokens, mask, *low_inputs)
        prediction = predict(unet, inputs, guidance_scale)
        return threshold(CLEAN_FROM[unet.config.prediction](noisy, prediction, ALPHA_BAR[time : time + 1]))

    return ddim_sample(denoise, noisy, sampling_times(min(steps, start), start), ALPHA_BAR)


def predict(unet: UNet, inputs: tuple[Tensor, ...], guidance_scale: float) -> Tensor:
    """What the network says of its inputs, guided; with and without the captions in one pass of twice the size."""
    if guidance_scale == 1:
        return unet(*inputs)
    noisy, time, tokens, mask, *low = (torch.cat([x, x]) for x in inputs)
    mask[len(mask) // 2 :] = False
    return guide(*unet(noisy, time, tokens, mask, *low).chunk(2), guidance_scale)


class DiffusionTextToImage(Module):
    """Text-to-image diffusion, ready to draw; used like `TextToImage`.

    Args:
        base: draws pictures from captions.
        upscaler: doubles their size, or None.
        text_encoder, tokenizer: read the captions.
        vocabulary: the words of its training captions, to warn of others.
        training: how it was trained: kept in its configuration.
    Raises:
        CourseError: the sizes of the parts do not fit.
    """

    def __init__(
        self, base: UNet, upscaler: UNet | None, text_encoder: TextEncoder, tokenizer: Tokenizer,
        vocabulary: Sequence[str] = (), training: dict[str, Any] | None = None,
    ):  # fmt: skip
        super().__init__()
        require_fit(base.config, upscaler and upscaler.config, text_encoder.config.width)
        self.base, self.upscaler, self.text_encoder, self.tokenizer = base, upscaler, text_encoder, tokenizer
        self.vocabulary, self.training_facts = frozenset(vocabulary), training or {}
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "cpu") -> "DiffusionTextToImage":
        """Load a model.

        Args:
            name_or_path: a name under data/checkpoints/ or a folder.
            device: where it shall compute.
        Raises:
            CourseError: no such checkpoint, or a damaged, foreign or differently built one.
        """
        folder, tensors, config = load_kind(name_or_path, "diffusion", "shapes-32-diffusion")

        def part(name: str, config_class: type) -> Any:
            return dataclass_from_dict(config_class, config.get(name), f"{folder / 'config.json'}, {name}")

        model = cls(
            UNet(part("base", DiffusionConfig)),
            UNet(part("upscaler", DiffusionConfig)) if config.get("upscaler") is not None else None,
            TextEncoder(part("text_encoder", TextEncoderConfig)),
            Tokenizer.load(folder / "tokenizer.json"),
            config.get("vocabulary", ()),
            config.get("training"),
        )
        load_weights(model, {name: value.float() for name, value in tensors.items()}, folder)
        return model.to(device)

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the model as a checkpoint folder; `card` is the model card, Markdown, saved as README.md."""
        parts = {name: getattr(self, name) for name in ("base", "upscaler", "text_encoder")}
        config = {"kind": "diffusion", "image_size": self.image_size}
        config |= {name: part and vars(part.config) for name, part in parts.items()}
        config |= {"vocabulary": sorted(self.vocabulary), "training": self.training_facts}
        files = {"tokenizer.json": self.tokenizer.to_json(), "README.md": card}
        return save_checkpoint(folder, self.state_dict(), config, files)

    @property
    def image_size(self) -> int:
        """Width and height of its pictures in pixels."""
        return (self.upscaler or self.base).config.image_size

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.parameters()).device

    def unknown_words(self, text: str) -> list[str]:
        """The words of a prompt that no training caption had, in order, each once."""
        return [w for w in dict.fromkeys(words_of(text)) if self.vocabulary and w not in self.vocabulary]

    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> tokens (N, T, E) and mask (N, T); CourseError if one is empty or longer than the encoder reads."""
        if not all(text.strip() for text in texts):
            raise CourseError('the prompt is empty; say what to draw, such as "a small red circle"')
        tokens = embed_tokens(self.text_encoder, self.tokenizer, texts)
        return tokens, tokens.any(-1)

    @torch.no_grad()
    def sample(
        self,
        texts: str | Sequence[str],
        n_samples: int = 4,
        steps_per_sample: int = 20,
        guidance_scale: float = 2.0,
        image: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Draw pictures.

        Args:
            texts: a prompt or several.
            n_samples: pictures for each prompt.
            steps_per_sample: steps from noise to picture, 1 to 1000, of each stage.
            guidance_scale: classifier-free guidance; 1 is off and twice as quick.
            image: (3, S, S) in [-1, 1]: begin with this picture, dissolved for the most part, then follow the text.
            seed: the same seed gives the same pictures, whatever the batch size.
            batch_size: pictures computed at a time.
        Returns:
            (len(texts) * n_samples, 3, S, S) in [-1, 1], text-major: all pictures of the first prompt come first.
        Raises:
            CourseError: a prompt is empty or too long, a number or the image's size is out of range, or the pictures
                are too many.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        self.check(n_samples, steps_per_sample, guidance_scale, image, seed, batch_size)
        require_few(len(texts), n_samples, self.image_size)
        tokens, mask = self.encode_text(texts)
        pictures = []
        for rows in torch.arange(len(texts) * n_samples).split(batch_size):
            randoms = [step_random(seed, row) for row in rows.tolist()]  # one for each picture: batches do not matter
            of = rows.to(self.device) // n_samples  # (B,): which prompt
            pictures.append(self.draw(tokens[of], mask[of], randoms, steps_per_sample, guidance_scale, image))
        return torch.cat(pictures)

    def check(
        self, n_samples: int, steps_per_sample: int, guidance_scale: float, image: Tensor | None, seed: int,
        batch_size: int,
    ) -> None:  # fmt: skip
        """CourseError if a setting of `sample` is out of range, or the image not of the model's size."""
        require_range("n_samples", n_samples, 1, 10_000)
        require_range("steps_per_sample", steps_per_sample, 1, TIMES)
        require_range("guidance_scale", guidance_scale, 0, 100)
        require_range("seed", seed, 0, 2**32 - 1)
        require_range("batch_size", batch_size, 1, 10_000)
        wanted = (3, self.image_size, self.image_size)
        if image is not None and image.shape != wanted:
            raise CourseError(f"image has shape {tuple(image.shape)}; this model wants {wanted}")

    def draw(
        self, tokens: Tensor, mask: Tensor, randoms: Sequence[torch.Generator], steps: int, guidance_scale: float,
        image: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Both stages for one batch, arguments as for `draw_pictures`; an image is halved for the first stage."""
        if image is not None and self.upscaler is not None:
            image = average_pool2d(image[None], 2)[0]
        pictures = draw_pictures(self.base, tokens, mask, randoms, steps, guidance_scale, image=image)
        if self.upscaler is not None:
            pictures = draw_pictures(self.upscaler, tokens, mask, randoms, steps, guidance_scale, low=pictures)
        return pictures


def require_fit(base: DiffusionConfig, upscaler: DiffusionConfig | None, text_size: int) -> None:
    """CourseError if two stages and a text encoder of width `text_size` cannot work together."""
    if base.super_resolution or base.text_size != text_size:
        raise CourseError(f"base={base} does not fit; it needs super_resolution=False and text_size={text_size}")
    if upscaler is not None:
        wanted = {"super_resolution": True, "text_size": text_size, "image_size": 2 * base.image_size}
        if any(getattr(upscaler, name) != value for name, value in wanted.items()):
            raise CourseError(f"upscaler={upscaler} does not fit; it needs {wanted}")
