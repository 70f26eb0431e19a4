"""What self-supervised training is worth: linear probes on pixels, on an untrained and on a trained encoder.

`python tests/measure_features.py [STEPS]` prints a table: 1,000 labelled pictures, 2,000 others to be read. Pixels get
the penalty that reads these best, the features the usual one; so the comparison leans towards the pixels.
"""

import sys
import time

import torch
from torch import Tensor

from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig, linear_probe, pretrain


def labelled(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 32, 32) of all combinations and the index of each attribute's value (n, A)."""
    shapes = CaptionedShapes("all", 32, seed, length=n)
    scenes = [shapes.attributes(i) for i in range(n)]
    labels = [[values.index(scene[name]) for name, values in SINGLE.items()] for scene in scenes]
    return shapes.images(range(n)), torch.tensor(labels)


def accuracies(features: Tensor, labels: Tensor, others: Tensor, truth: Tensor, penalty: float = 0.01) -> list[float]:
    """The probe's accuracy for each attribute."""
    return [linear_probe(features, labels[:, i], others, truth[:, i], penalty) for i in range(labels.shape[1])]


@torch.no_grad()
def main(steps: int = 200) -> None:
    """Train, probe, print."""
    started = time.process_time()
    (images, labels), (others, truth) = labelled(1000, seed=1), labelled(2000, seed=2)
    pixels = [accuracies(images.flatten(1), labels, others.flatten(1), truth, p) for p in (0.01, 0.1, 1.0, 10.0)]
    rows = {"pixels": max(pixels, key=sum)}
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(32, 32, 256)).eval()
    rows["untrained encoder"] = accuracies(encoder(images), labels, encoder(others), truth)
    with torch.enable_grad():
        pretrain(encoder, CaptionedShapes("train", 32, seed=7, length=8000).images(range(8000)), steps)
    rows["self-supervised"] = accuracies(encoder(images), labels, encoder(others), truth)
    print(f"{'':18}" + "".join(f"{name:>11}" for name in [*SINGLE, "mean"]))
    for name, row in rows.items():
        print(f"{name:18}" + "".join(f"{100 * x:11.1f}" for x in [*row, sum(row) / len(row)]))
    gain = 100 * (sum(rows["self-supervised"]) - sum(rows["pixels"])) / len(SINGLE)
    print(f"{gain:.1f} points over pixels after {steps} steps, {time.process_time() - started:.0f} CPU-seconds")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
