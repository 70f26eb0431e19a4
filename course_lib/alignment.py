"""Words that know pictures: contrastive image-text training, a small CLIP. Built in chapter 08.

A text encoder that has only read captions knows which words follow which. Here it learns what they look like: the
vector of a caption is pulled to the vector of its picture and pushed from those of the other pictures in the batch.
"a tiny azure hoop" and "很小的天蓝色环形" end up in one place because they name the same pictures.
"""

import math

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from course_lib.image_encoder import ImageEncoder
from course_lib.losses import contrastive_loss
from course_lib.text_encoder import TextEncoder


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
