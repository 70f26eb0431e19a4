"""LossExplorer (lesson 03): one logit, one target; MSE, cross-entropy and their gradients."""

from functools import cache

import torch
from ipywidgets import Dropdown, FloatSlider
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.lesson import new_axes
from course_lib.losses import bce_with_logits, mse_loss
from course_lib.widgets.base import LABELS, WIDE, Explorer, Scene, table_html

CURVES = {"MSE of the sigmoid": "-", "BCE with logits": "--"}


def loss_explorer(logit: float = -2.0, target: float = 1.0) -> Explorer:
    """Move prediction and target; watch both losses and their gradients, also where the sigmoid is saturated.

    Args:
        logit: of the prediction, -100 to 100; target: 0 to 1.
    """
    position = FloatSlider(logit, min=-100, max=100, step=0.5, description="logit", layout=WIDE, style=LABELS)
    truth = FloatSlider(target, min=0, max=1, step=0.05, description="target", layout=WIDE, style=LABELS)
    span = Dropdown(options={"-8 to 8": 8, "-100 to 100": 100}, description="axis", style=LABELS)

    def draw() -> Scene:
        x, y = position.value, truth.value
        if abs(x) > span.value:
            span.value = 100  # the point would be off the page
        point = losses_and_gradients(torch.tensor([x]), y)
        with new_axes("", 2, 1, (9, 3.2)) as (figure, axes):
            grid, *pairs = curves(span.value, y)
            labels = "loss", "derivative with respect to the logit"
            for axis, pair, marks, label in zip(axes, pairs, point, labels, strict=True):
                plot(axis, grid, pair, torch.tensor([x]), marks)
                axis.set(xlabel="logit", ylabel=label)
            figure.set_layout_engine(None)  # to work one out takes as long as all the rest
            figure.subplots_adjust(0.071, 0.152, 0.995, 0.975, wspace=0.2)
        (mse, bce), (mse_slope, bce_slope) = ([value.item() for value in pair] for pair in point)
        rows = [("MSE", f"{mse:.4f}", f"{mse_slope:+.2e}"), ("BCE", f"{bce:.4f}", f"{bce_slope:+.2e}")]
        words = f"prediction {1 / (1 + torch.tensor(-x).exp().item()):.4f}, target {y:.2f}"
        alt = f"Losses and gradients over the logit. At logit {x:g} with target {y:g}: MSE {mse:.4f}, BCE {bce:.4f}."
        return Scene(figure, alt, words + table_html(("loss", "value", "gradient"), rows))

    about = "Put the logit far on the wrong side: whose gradient is still there?"
    return Explorer("loss-explorer", "Losses and their gradients", about, [position, truth, span], draw)


def losses_and_gradients(logits: Tensor, target: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of every single logit (N,): (MSE, BCE), and the derivatives of both, each (N,)."""
    logits = logits.clone().requires_grad_()
    wanted = torch.full_like(logits, target)
    losses = (lambda x, t: mse_loss(x.sigmoid(), t)), bce_with_logits
    values = [torch.stack([loss(x, t) for x, t in zip(logits, wanted, strict=True)]) for loss in losses]
    slopes = [torch.autograd.grad(value.sum(), logits)[0] for value in values]
    return tuple(value.detach() for value in values), tuple(slopes)


@cache
def curves(span: int, target: float) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logits (161,) from -span to span and their `losses_and_gradients`; kept, for only the point moves."""
    grid = torch.linspace(-span, span, 161)
    return grid, *losses_and_gradients(grid, target)


def plot(axis: Axes, grid: Tensor, pair: tuple[Tensor, Tensor], x: Tensor, points: tuple[Tensor, Tensor]) -> None:
    """Two curves over the logits, and where the sliders stand on each."""
    for (name, dash), curve, point in zip(CURVES.items(), pair, points, strict=True):
        (line,) = axis.plot(grid, curve, dash, label=name)
        axis.plot(x, point, "o", color=line.get_color(), markersize=9)
    axis.legend(fontsize=9)
