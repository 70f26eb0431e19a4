"""GanArena (lesson 10): a GAN on a ring of eight heaps, trained live, with the switches of the failure museum."""

from collections.abc import Iterator

import torch
from ipywidgets import Button, Dropdown, FloatLogSlider, HBox, Layout
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.errors import CourseError, nearest
from course_lib.gan import (
    GAN_LOSSES,
    AdversarialStep,
    MLPDiscriminator,
    MLPGenerator,
    covered_modes,
    ring_centers,
    ring_of_gaussians,
)
from course_lib.lesson import new_axes
from course_lib.widgets.base import Explorer, Scene, quiet

# name -> layers of both players and whether they are initialised; what `AdversarialStep` is told
MUSEUM = {
    "healthy": ((2, False), {"learning_rates": (2e-3, 4e-3), "r1_weight": 0.01}),
    "mode collapse: 10 steps of G for one of D": (
        (2, False),
        {"learning_rates": (4e-3, 4e-3), "generator_steps": 10},
    ),
    "dominant D: 10 steps of D for one of G": (
        (2, False),
        {"learning_rates": (2e-4, 4e-3), "discriminator_steps": 10, "loss": "saturating"},
    ),
    "missing initialisation: 8 layers": ((8, False), {"learning_rates": (5e-4, 1e-3)}),
    "its cure: 8 layers, initialised": ((8, True), {"learning_rates": (5e-4, 1e-3)}),
    "one common loss: L_D + L_G": ((2, False), {"learning_rates": (2e-3, 4e-3), "joint": True}),
}
BATCH, SHOWN = 128, 500  # real points in a round, and points of G that are drawn and counted
EVERY = 20  # rounds between pictures
LONGEST = 1000  # rounds that one press of Start plays


class Arena:
    """One game: the players, what they have been told, and what has happened so far.

    Args:
        case: a name of `MUSEUM`.
    """

    def __init__(self, case: str):
        (layers, initialise), settings = MUSEUM[case]
        with torch.random.fork_rng(devices=[]):  # the notebook's own dice stay as they were
            torch.manual_seed(0)
            players = [kind(layers=layers, initialise=initialise) for kind in (MLPGenerator, MLPDiscriminator)]
        self.game = AdversarialStep(*players, **settings)
        self.random = torch.Generator().manual_seed(0)
        self.losses: list[tuple[float, float]] = []  # of each round: D's, G's
        self.covered: list[tuple[int, int, float]] = []  # round, heaps found, share of points that lie in one
        self.look()

    def change(self, loss: str, rates: tuple[float, float]) -> None:
        """From the next round on: another loss, other learning rates of G and D."""
        self.game.loss = loss
        self.game.generator_optimizer.lr, self.game.discriminator_optimizer.lr = rates

    def round(self) -> None:
        """Each player answers the other once, or as often as the case wants."""
        told = self.game(ring_of_gaussians(BATCH, self.random))
        self.losses.append((told["loss_d"], told["loss_g"]))

    def look(self) -> None:
        """What G draws now, always from the same noise, and how many heaps it has found."""
        noise = torch.randn(SHOWN, self.game.generator.z_size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.points = self.game.generator(noise)
        self.covered.append((len(self.losses), *covered_modes(self.points, ring_centers())))

    def play(self, rounds: int) -> Iterator[None]:
        """So many rounds; hands over whenever there is something to look at."""
        for _ in range(rounds):
            self.round()
            if len(self.losses) % EVERY == 0:
                self.look()
                yield

    def told(self) -> str:
        """Round, losses, heaps."""
        number, heaps, good = self.covered[-1]
        losses = "nothing played yet"
        if self.losses:
            losses = "loss of D {:.3f}, of G {:.3f}".format(*self.losses[-1])
        return f"Round {number}: {losses}; {heaps} of 8 modes covered, {good:.0%} of the points lie in one."

    def scene(self) -> Scene:
        """Points and D's opinion; losses; heaps found."""
        with new_axes("", 3, 1, (9, 3.4)) as (figure, (ring, losses, heaps)):
            draw_ring(ring, self.points, self.opinion())
            for (name, dash), values in zip((("D", "-"), ("G", "--")), zip(*self.losses, strict=True), strict=False):
                losses.plot(range(1, len(values) + 1), values, dash, label=f"loss of {name}", linewidth=1.2)
            losses.set(xlabel="round", ylabel="loss", ylim=(-1, 4))
            if self.losses:
                losses.legend(fontsize=8, loc="upper right")
            numbers, found, _ = zip(*self.covered, strict=True)
            heaps.plot(numbers, found, "o-", markersize=3, linewidth=1.2)
            heaps.set(xlabel="round", ylabel="modes covered", ylim=(-0.3, 8.3), yticks=range(0, 9, 2))
            for axis in (losses, heaps):
                axis.locator_params(axis="x", nbins=5)
                axis.margins(x=0.08)
        alt = f"Left, G's points among the eight heaps of a ring; middle, losses; right, modes covered. {self.told()}"
        return Scene(figure, alt, self.told())

    def opinion(self) -> Tensor:
        """D's probability that a point is real, over the square from -3 to 3: (31, 31), the first row at the bottom."""
        side = torch.linspace(-3, 3, 31)
        with torch.no_grad():
            logits = self.game.discriminator(torch.cartesian_prod(side, side))
        return logits.sigmoid().view(31, 31).T


def gan_arena(case: str = "healthy", rounds: int = 160) -> Explorer:
    """Train a GAN on points of a plane, live: Start, Pause, Step, Reset; change loss and learning rates as it plays.

    Args:
        case: of the failure museum, a name of `MUSEUM` or the beginning of one.
        rounds: played before the explorer opens.
    Raises:
        CourseError: there is no such case.
    """
    found = [name for name in MUSEUM if name.startswith(case)]
    if not found:
        raise CourseError(f'case="{case}" is not in the museum; {nearest(case, MUSEUM)}')
    state = {"arena": Arena(found[0])}
    for _ in state["arena"].play(rounds):
        pass
    museum = quiet(
        Dropdown(options=list(MUSEUM), value=found[0], description="museum", layout=Layout(width="400px"), style=STYLE)
    )
    loss = Dropdown(options=list(GAN_LOSSES), description="loss", layout=Layout(width="270px"), style=STYLE)
    rate = {"min": -4, "max": -1.5, "step": 0.1, "readout_format": ".1e", "layout": Layout(width="340px")}
    rates = [FloatLogSlider(description=f"{name}'s rate", **rate, style=STYLE) for name in "GD"]
    hints = {
        "Start": f"plays {LONGEST} rounds, a picture every {EVERY}",
        "Pause": "stops after the round at hand; Start goes on",
        "Step": "plays one round",
        "Reset": "a new game with the museum's settings",
    }
    buttons = {
        name: Button(description=name, tooltip=hint, layout=Layout(width="80px")) for name, hint in hints.items()
    }

    def set_controls() -> None:
        game = state["arena"].game
        values = game.loss, game.generator_optimizer.lr, game.discriminator_optimizer.lr
        for control, value in zip((loss, *rates), values, strict=True):  # each draws, and tells the game all three
            control.value = value

    def draw() -> Scene:
        arena = state["arena"]
        arena.change(loss.value, (rates[0].value, rates[1].value))
        return arena.scene()

    def start(_: Button) -> None:
        arena = state["arena"]
        explorer.run(lambda: (arena.scene() for _ in arena.play(LONGEST)))

    def step(_: Button) -> None:
        explorer.halt()
        state["arena"].round()
        state["arena"].look()
        explorer.refresh()

    def reset(_: object) -> None:
        explorer.halt()
        state["arena"] = Arena(museum.value)
        set_controls()
        explorer.refresh()

    set_controls()
    about = "Press Start. Then visit the museum, and cure a patient while it plays: another loss, other learning rates."
    controls = [museum, loss, *rates, HBox(list(buttons.values()))]
    explorer = Explorer("gan-arena", "The adversarial game, live", about, controls, draw)
    for name, action in (("Start", start), ("Pause", explorer.halt), ("Step", step), ("Reset", reset)):
        buttons[name].on_click(action)
    museum.observe(reset, "value")
    return explorer


STYLE = {"description_width": "70px"}


def draw_ring(axis: Axes, points: Tensor, opinion: Tensor) -> None:
    """Data's heaps as circles, G's points, and behind them what D thinks."""
    axis.imshow(opinion.numpy(), extent=(-3, 3, -3, 3), origin="lower", vmin=0, vmax=1, cmap="Greys", alpha=0.5)
    axis.plot(
        *ring_centers().T.numpy(), "o", markersize=13, fillstyle="none", color="#D55E00", label="heaps of the data"
    )
    axis.plot(*points.T.numpy(), ".", markersize=2.5, color="#0072B2", label="G's points")
    axis.set(xlabel="dark: D takes it for real", xlim=(-3, 3), ylim=(-3, 3.7), xticks=(), yticks=())
    axis.legend(fontsize=8, loc="upper center", ncols=2, markerscale=0.6, columnspacing=1)
