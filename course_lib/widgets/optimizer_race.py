"""OptimizerRace (lesson 04): gradient descent, momentum and Adam on one surface, with one learning rate."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from ipywidgets import Dropdown, IntSlider, Layout, SelectionSlider
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.errors import CourseError, nearest
from course_lib.images import COLORBLIND_SAFE
from course_lib.lesson import new_axes
from course_lib.optim import Adam, GradientDescent, Momentum, adam_update
from course_lib.widgets.base import LABELS, Explorer, Scene, table_html

LAST = 200  # steps
FAR = 100.0  # from the middle of the map: whoever is farther out does not come back
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 1.0)
STYLES = {  # colours as in the lesson
    "gradient descent": (COLORBLIND_SAFE[3], "-", "."),
    "momentum": ("black", "--", "x"),
    "Adam": (COLORBLIND_SAFE[5], ":", "^"),
}
TICKS = {0.0001: "0.0001", 0.01: "0.01", 1.0: "1", 100.0: "100"}  # mathtext's powers are slow to draw


class Surface(NamedTuple):
    """A loss of two weights: its formula, where the race begins, its minima, and the part (x, y) that is drawn."""

    loss: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    sides: tuple[tuple[float, float], tuple[float, float]] = ((-2.4, 1.6), (-1.6, 1.6))


SURFACES = {
    "bowl": Surface(lambda x, y: (x**2 + y**2) / 2, (-2.0, 1.0), ((0.0, 0.0),)),
    "narrow valley": Surface(lambda x, y: (x**2 + 25 * y**2) / 2, (-2.0, 1.0), ((0.0, 0.0),)),
    "saddle": Surface(lambda x, y: (x**2 - y**2) / 2 + y**4 / 4, (-2.0, 0.01), ((0.0, 1.0), (0.0, -1.0))),
    "bent valley": Surface(  # Rosenbrock 1960, there with 100 in place of 10
        lambda x, y: ((1 - x) ** 2 + 10 * (y - x**2) ** 2) / 2, (-1.2, 0.3), ((1.0, 1.0),), ((-1.8, 1.8), (-0.5, 2.4))
    ),
}


class UncorrectedAdam(Adam):
    """Adam without its bias correction: `adam_update` for one tensor after the other."""

    def update(self, params, gradients, steps, exp_avgs, exp_avg_sqs):
        for tensors in zip(params, gradients, exp_avgs, exp_avg_sqs, steps, strict=True):
            adam_update(*tensors, self.lr, self.betas, self.eps, bias_correction=False)


def optimizer_race(surface: str = "narrow valley", learning_rate: float = 0.07, steps: int = 40) -> Explorer:
    """Three optimisers start at one point of a surface; watch their paths, distances and losses.

    Args:
        surface: "bowl", "narrow valley", "saddle" or "bent valley".
        learning_rate: of all three, one of those on the slider, 0.001 to 1.
        steps: 1 to 200.
    Raises:
        CourseError: an argument is none of these.
    """
    if surface not in SURFACES:
        raise CourseError(f'surface="{surface}" is unknown; {nearest(surface, SURFACES)}')
    if learning_rate not in RATES:
        raise CourseError(
            f"learning_rate={learning_rate} is not on the slider; use one of {', '.join(map(str, RATES))}"
        )
    if not 1 <= steps <= LAST:
        raise CourseError(f"steps={steps} is out of range; use 1 to {LAST}")
    looks = {"layout": Layout(width="390px"), "style": LABELS}  # two of them in a row
    choose = partial(SelectionSlider, **looks)
    ground = Dropdown(options=list(SURFACES), value=surface, description="surface", **looks)
    rate = choose(options=RATES, value=learning_rate, description="learning rate", tooltip="of all three")
    beta1 = choose(options=(0.0, 0.5, 0.8, 0.9, 0.95, 0.99), value=0.9, description="beta 1")
    beta1.tooltip = "how much of itself momentum's velocity keeps, and Adam's mean of the slopes"
    beta2 = choose(options=(0.5, 0.9, 0.99, 0.999), value=0.999, description="beta 2")
    beta2.tooltip = "how much of itself Adam's mean of the squared slopes keeps"
    correction = Dropdown(options={"on": True, "off": False}, description="bias correction", **looks)
    count = IntSlider(steps, min=1, max=LAST, description="steps", **looks)

    def draw() -> Scene:
        paths = race(ground.value, rate.value, beta1.value, beta2.value, correction.value)
        shown = {name: path[: count.value + 1] for name, path in paths.items()}
        with new_axes("", 2, 1, (9, 3.7)) as (figure, (left, right)):
            draw_map(left, ground.value, shown)
            draw_losses(right, SURFACES[ground.value], shown)
            left.legend(handles=left.lines[: len(STYLES)], loc="upper center", bbox_to_anchor=(1.1, -0.16), ncols=3)
            figure.set_layout_engine(None)  # to work one out takes as long as all the rest
            figure.subplots_adjust(0.085, 0.24, 0.99, 0.92, wspace=0.26)
        return Scene(figure, *in_words(ground.value, count.value, shown))

    about = "Which of the three wins here, and which learning rate throws one of them off the map?"
    controls = [ground, correction, rate, count, beta1, beta2]
    return Explorer("optimizer-race", "Three optimisers in a race", about, controls, draw)


@lru_cache(32)
def race(surface: str, rate: float, beta1: float, beta2: float, corrected: bool) -> Mapping[str, Tensor]:
    """Optimiser -> its path (201, 2), from the start on; nan once it has left the map for good."""
    loss, start = SURFACES[surface].loss, SURFACES[surface].start
    points = [torch.tensor(start, requires_grad=True) for _ in STYLES]
    adam = Adam if corrected else UncorrectedAdam
    optimizers = [
        GradientDescent(points[:1], rate),
        Momentum(points[1:2], rate, beta1),
        adam(points[2:], rate, (beta1, beta2)),
    ]
    track = [torch.stack(points).detach()]
    for _ in range(LAST):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(*torch.stack(points).T).sum().backward()  # every point feels the slope of its own place only
        for optimizer in optimizers:
            optimizer.step()
        track.append(torch.stack(points).detach())
    paths = torch.stack(track, 1)  # (3, 201, 2)
    gone = ~(paths.abs().amax(2, keepdim=True) < FAR)
    paths = paths.masked_fill(gone.cumsum(1) > 0, torch.nan)
    return dict(zip(STYLES, paths, strict=True))


@lru_cache(len(SURFACES))
def relief(surface: str) -> np.ndarray:
    """The height above the minimum in 14 terraces, (240, 300); its root gives shades to flat ground."""
    ground = SURFACES[surface]
    x, y = (torch.linspace(*side, n) for side, n in zip(ground.sides, (300, 240), strict=True))
    heights = above(ground, torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)).sqrt()
    return (heights / heights.max() * 14).floor().numpy()


def above(surface: Surface, points: Tensor) -> Tensor:
    """Points (..., 2) -> how much higher than the minimum the loss is there (...)."""
    return (surface.loss(*points.unbind(-1)) - surface.loss(*torch.tensor(surface.minima[0]))).clamp(min=0)


def distance(surface: Surface, points: Tensor) -> Tensor:
    """Points (..., 2) -> how far the nearest minimum is (...)."""
    return torch.stack([(points - torch.tensor(place)).norm(dim=-1) for place in surface.minima]).amin(0)


def draw_map(axis: Axes, surface: str, paths: Mapping[str, Tensor]) -> None:
    """The surface from above, dark is low, with the paths, the start and the minima."""
    ground = SURFACES[surface]
    left, right, low, high = *ground.sides[0], *ground.sides[1]
    axis.imshow(
        relief(surface), cmap="GnBu_r", alpha=0.75, extent=(left, right, low, high), origin="lower", aspect="auto"
    )
    axis.grid(False)
    for (name, path), (color, dash, mark) in zip(paths.items(), STYLES.values(), strict=True):
        axis.plot(*path.T, dash, marker=mark, color=color, linewidth=1.4, markersize=4, label=name)
    axis.plot(*ground.start, "ko", markersize=8)
    axis.plot(*zip(*ground.minima, strict=True), "*", color="white", markeredgecolor="black", markersize=13)
    axis.set(xlabel="x", ylabel="y", xticks=range(-2, 2), xlim=ground.sides[0], ylim=ground.sides[1])
    axis.set_title("from the dot to the star")


def draw_losses(axis: Axes, surface: Surface, paths: Mapping[str, Tensor]) -> None:
    """The loss above its minimum, against the step."""
    for (name, path), (color, dash, _) in zip(paths.items(), STYLES.values(), strict=True):
        axis.plot(above(surface, path).clamp(min=1e-6), dash, color=color, label=name)
    axis.set(xlabel="step", ylabel="loss, above the minimum", yscale="log", ylim=(3e-5, 1e2))
    axis.set_yticks(list(TICKS), list(TICKS.values()))
    axis.minorticks_off()
    axis.set_title("who is lower?")


def in_words(surface: str, steps: int, paths: Mapping[str, Tensor]) -> tuple[str, str]:
    """Alt text, and the words below the picture."""
    ground, rows, gaps, losses = SURFACES[surface], [], {}, {}
    for name, path in paths.items():
        gap, loss = distance(ground, path[-1]).item(), ground.loss(*path[-1]).item()
        if gap == gap:
            gaps[name], losses[name] = gap, loss
            rows.append((name, f"{gap:.4f}", f"{loss:.5f}"))
        else:
            left = path.isnan().any(1).nonzero()[0].item()
            rows.append((name, "off the map", f"left it for good at step {left}"))
    winner = "All three have left the map."
    if gaps:
        near, low = (min(ends, key=ends.get) for ends in (gaps, losses))
        winner = f"After {steps} steps the nearest to a minimum is {near}, the lowest {low}."
    told = "; ".join(f"{name}: distance {gap}, loss {loss}" for name, gap, loss in rows)
    alt = f"Map of the {surface} with the paths of three optimisers, and their losses against the step. {told}."
    return alt, winner + table_html(("optimiser", "distance to the minimum", "loss"), rows)
