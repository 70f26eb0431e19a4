"""Words that know pictures: contrastive image-text training, a small CLIP. Built in chapter 08.

A text encoder that has only read captions knows which words follow which. Here it learns what they look like: the
vector of a caption is pulled to the vector of its picture and pushed from those of the other pictures in the batch.
"a tiny azure hoop" and "很小的天蓝色环形" end up in one place because they name the same pictures.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from course_lib.checkpoint import dataclass_from_dict, find_checkpoint, load_checkpoint, load_weights
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.layers import average_pool2d
from course_lib.losses import contrastive_loss
from course_lib.text_encoder import TextEncoder, embed_captions, load_text_encoder
from course_lib.tokenizer import Tokenizer


class AlignmentModel(Module):
    """A text encoder and an image encoder that share one embedding space.

    Args:
        text_encoder: pooled output (B, E).
        image_encoder: output (B, E), the same E.
    Source: Radford et al. 2021, arXiv:2103.00020.
    """

    def __init__(self, text_encoder: TextEncoder, image_encoder: ImageEncoder):
        super().__init__()
        if text_encoder.config.width != image_encoder.config.output_size:
            raise ValueError(
                f"text width {text_encoder.config.width} and image output_size {image_encoder.config.output_size} "
                "differ; give both encoders the same embedding size"
            )
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.log_scale = Parameter(torch.tensor(math.log(10.0)))  # learned inverse temperature

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Contrastive loss of a batch: images (B, 3, S, S), ids and mask (B, T) -> () in nats."""
        _, pooled = self.text_encoder(ids, mask)  # (B, E)
        same = (ids[:, None] == ids[None]).all(-1)  # (B, B): equal captions are no negatives
        scale = self.log_scale.exp().clamp(max=100.0)
        return contrastive_loss(unit(self.image_encoder(images)), unit(pooled), scale, same)

    @torch.no_grad()
    def similarity(self, images: Tensor, captions: Sequence[str], tokenizer: Tokenizer) -> Tensor:
        """How well each picture fits each caption: images (B, 3, S, S), N captions -> cosines (B, N) in [-1, 1].

        Larger pictures are averaged down to the size that the model knows.
        """
        images = average_pool2d(images, images.shape[-1] // self.image_encoder.config.image_size)
        texts = embed_captions(self.text_encoder, tokenizer, captions)
        return unit(self.image_encoder(images.to(texts.device))) @ unit(texts).T


def load_alignment(name_or_path: str | Path, device: torch.device | str = "cpu") -> tuple[AlignmentModel, Tokenizer]:
    """A trained alignment model, frozen and in eval mode, with its tokenizer.

    Args:
        name_or_path: a name under data/checkpoints/, such as "align-shapes-32", or a folder.
        device: where it shall compute.
    Raises:
        CourseError: no such checkpoint, or one of another kind.
    """
    encoder, tokenizer = load_text_encoder(name_or_path)
    folder = find_checkpoint(name_or_path)
    tensors, config = load_checkpoint(folder)
    image_config = dataclass_from_dict(ImageEncoderConfig, config.get("image_encoder"), folder / "config.json")
    model = AlignmentModel(encoder, ImageEncoder(image_config))
    load_weights(model, tensors, folder)
    return model.to(device).eval().requires_grad_(False), tokenizer


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., E) scaled to length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-8)


@torch.no_grad()
def retrieval(image_embeddings: Tensor, text_embeddings: Tensor, k: int = 1) -> float:
    """R@k: the share of pictures whose own caption is among the k nearest captions.

    Args:
        image_embeddings, text_embeddings: (N, E); row i of both belongs together.
        k: how many captions count.
    """
    similarity = unit(image_embeddings) @ unit(text_embeddings).T  # (N, N)
    top = similarity.topk(k, dim=1).indices  # (N, k)
    return (top == torch.arange(len(top), device=top.device)[:, None]).any(1).float().mean().item()
