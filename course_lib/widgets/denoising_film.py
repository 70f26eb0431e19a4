"""DenoisingFilm (lesson 16): one drawing by diffusion, step by step, with guidance on a slider.

A film is computed once for its prompt, seed, guidance and number of steps; the slider of steps only leafs through it.
"""

import html
import math
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import torch
from ipywidgets import BoundedIntText, Button, Layout
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.batches import step_random
from course_lib.data.captions import parse
from course_lib.denoising import ALPHA_BAR, CLEAN_FROM, ddim_step, dynamic_threshold, sampling_times
from course_lib.diffusion import DiffusionTextToImage, normal, predict
from course_lib.generate import unknown_words_told
from course_lib.images import make_grid, to_pil
from course_lib.lesson import new_axes
from course_lib.text_to_image import MAX_SEED
from course_lib.widgets.base import KNOB, Explorer, Scene, loaded_judge, loaded_model, sentence_box, slider
from course_lib.widgets.prompt_studio import suggestions

MODEL, MOST_STEPS = "shapes-32-diffusion", 50
PROMPT = "a large yellow star at the top left on navy"


def denoising_film(
    prompt: str = PROMPT, seed: int = 0, guidance: float = 2.0, steps: int = 20, step: int = 7
) -> Explorer:
    """Step through a drawing: what the network sees, what it answers, and what the judge makes of the answer.

    Args:
        prompt: to begin with; seed: of the noise.
        guidance: the scale, 0 to 10.
        steps: from noise to picture, 1 to 50; step: the one that is shown at first.
    """
    text = sentence_box(prompt, suggestions(MODEL), "prompt")
    first = BoundedIntText(value=seed, min=0, max=MAX_SEED, description="seed", **KNOB)
    scale = slider(guidance, 0.0, 10.0, 0.5, "guidance", "0 does not hear the prompt, 1 is plain, more overstates it")
    count = slider(steps, 1, MOST_STEPS, 1, "steps", "From noise to picture; another number is another film")
    shown = slider(min(step, steps), 1, steps, 1, "step", "The one that is shown; the arrow keys leaf through the film")
    shown.continuous_update = True
    count.observe(lambda change: setattr(shown, "max", change["new"]), "value")
    stop = Button(description="Stop", tooltip="End the drawing", layout=Layout(width="110px"))
    films: dict[tuple[str, int, float, int], Film] = {}

    def draw() -> Scene | Iterator[Scene]:
        settings = text.value, first.value, scale.value, count.value
        if settings not in films:
            films[settings] = Film(*settings)
        film, place = films[settings], shown.value - 1
        if len(film.answers) < count.value:
            return developing(film, place)
        found.halt()  # another film may be in the making
        return film.scene(place)

    about = "Leaf through the steps. When is it decided what the picture shows, and what do the later steps add?"
    controls = [text, first, scale, count, shown, stop]
    found = Explorer("denoising-film", "The film of a drawing", about, controls, draw)
    found.stop_button(stop, "Move the step, and it goes on.")
    return found


class Film:
    """A drawing as it comes into being: what the network saw at each step, and what it answered.

    Args:
        prompt, seed, guidance, steps: as for `DiffusionTextToImage.sample`; the last answer is its first picture.
    """

    def __init__(self, prompt: str, seed: int, guidance: float, steps: int):
        self.model: DiffusionTextToImage = loaded_model(MODEL)
        self.prompt, self.words, self.times = prompt, self.model.encode_text([prompt]), sampling_times(steps)
        self.seen: list[Tensor] = []  # each (1, 3, S, S)
        self.answers: list[Tensor] = []
        self.rest = self.drawing(seed, guidance)  # goes on where it was stopped

    def drawing(self, seed: int, guidance: float) -> Iterator[int]:
        """DDIM step by step, as `draw_pictures` does it; yields how many are done."""
        unet, size = self.model.base, self.model.image_size
        noisy = normal([step_random(seed, 0)], torch.empty(1, 3, size, size))
        for now, before in pairwise(self.times):
            said = predict(unet, (noisy, torch.tensor([now]), *self.words), guidance)
            clean = CLEAN_FROM[unet.config.prediction](noisy, said, ALPHA_BAR[now : now + 1])
            clean = dynamic_threshold(clean)
            self.seen.append(noisy)
            self.answers.append(clean)
            yield len(self.answers)
            noisy = ddim_step(noisy, clean, ALPHA_BAR[now].item(), ALPHA_BAR[before].item(), None, 0.0)

    def scene(self, place: int) -> Scene:
        """Step number `place` (from 0) of the finished film."""
        now, steps = self.times[place], len(self.answers)
        with new_axes("", 3, 1, (9, 3.1)) as (figure, axes):
            frame(axes[0], self.seen[place], f"step {place + 1}: what the network sees")
            frame(axes[1], self.answers[place], "what it answers")
            strip(axes[2], torch.cat(self.answers), place)
        kept = ALPHA_BAR[now].item()
        when = (
            f"Step {place + 1} of {steps}, time {now}: noise is {1 - kept:.1%} of the variance, the picture {kept:.1%}."
        )
        sees, right = self.verdicts(place)
        lines = [when, sees, right, *unknown_words_told(self.model, MODEL, [self.prompt])[0]]
        alt = f"What the network sees, its answer, and all {steps} answers, for: {self.prompt}. {when} {sees}"
        return Scene(figure, alt, "<br>".join(html.escape(line) for line in lines if line))

    @cached_property
    def readings(self) -> list[dict[str, str]]:
        """What the judge sees in each answer of the finished film: attribute -> value."""
        judge = loaded_judge(self.model.image_size)
        return [
            {name: values[k] for (name, values), k in zip(judge.readable.items(), row, strict=True)}
            for row in judge.read(torch.cat(self.answers)).tolist()
        ]

    def verdicts(self, place: int) -> tuple[str, str]:
        """What the judge sees in an answer, and in how many of all answers it sees all that the prompt names."""
        wanted, seen = parse(self.prompt), self.readings[place]
        named = {name: wanted[name] for name in seen if name in wanted}
        told = [f"{name} {value}{mark(value, named.get(name))}" for name, value in seen.items()]
        right = sum(all(row[name] == value for name, value in named.items()) for row in self.readings)
        everything = (
            f"It sees all that the prompt names in {right} of the {len(self.answers)} answers." if named else ""
        )
        return f"In the answer the judge sees: {', '.join(told)}.", everything


def mark(seen: str, wanted: str | None) -> str:
    """ " ✓", " ✗", or nothing if it was not asked for."""
    return "" if wanted is None else " ✓" if seen == wanted else " ✗"


def developing(film: Film, place: int) -> Iterator[Scene]:
    """Compute what is missing, telling how far it is, then show a step."""
    for done in film.rest:
        yield Scene(None, words=f"Drawing: step {done} of {len(film.times) - 1} ...")
    yield film.scene(place)


def frame(axis: Axes, picture: Tensor, title: str) -> None:
    """A picture (1, 3, S, S) and what it is."""
    axis.imshow(to_pil(picture[0]), interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title, fontsize=10.5)


def strip(axis: Axes, pictures: Tensor, place: int) -> None:
    """All answers (N, 3, S, S), row by row, with a frame around one."""
    columns, side = math.ceil(math.sqrt(len(pictures))), pictures.shape[-1] + 2
    axis.imshow(to_pil(make_grid(pictures, columns)), interpolation="nearest")
    axis.set_axis_off()
    x, y = side * (place % columns), side * (place // columns)
    axis.plot([x, x + side, x + side, x, x], [y, y, y + side, y + side, y], color="#D55E00", lw=2.5)
    axis.set_title(f"all {len(pictures)} answers, row by row", fontsize=10.5)
