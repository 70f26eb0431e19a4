"""PromptStudio (lessons 00 and 14): a sentence, the model's knobs, pictures, and what the judge reads off them.

Picture number i is drawn with the seed plus i, so that each can be drawn again by itself.
"""

import html
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, IntSlider, Layout
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.data.captions import PAIR, SINGLE, parse, scene_of
from course_lib.data.shapes import CaptionedShapes
from course_lib.demo import EMOJI_PROMPTS, PROMPTS
from course_lib.errors import CourseError, nearest
from course_lib.evaluation import SCENES, scene_of_training
from course_lib.generate import GenerateConfig, settings_of, slug, unknown_words_told
from course_lib.images import save_image, to_pil
from course_lib.lesson import new_axes
from course_lib.metrics import attribute_accuracy
from course_lib.models import AnyModel, shipped_configs
from course_lib.provenance import provenance_text
from course_lib.runs import writable_folder
from course_lib.text_to_image import MAX_SEED, TextToImage
from course_lib.widgets.base import (
    KNOB,
    SAMPLES,
    Explorer,
    Scene,
    as_html,
    loaded_judge,
    loaded_model,
    quiet,
    sentence_box,
    slider,
    with_words,
)

MOST, REMEMBERED = 8, 10  # pictures at once, drawings in the history
GLANCE = 0.3  # seconds that a drawing may take before it tells of its progress


def prompt_studio(
    prompt: str = PROMPTS[0],
    model: str = "shapes-32",
    n_samples: int = 4,
    seed: int = 0,
    save_path: str | Path = SAMPLES,
) -> Explorer:
    """Type a sentence, choose a model and turn its knobs: pictures, the time they took, and the judge's verdict.

    Args:
        prompt: to begin with.
        model: of the text-to-image models under data/checkpoints.
        n_samples: pictures, 1 to 8.
        seed: of the first picture; the next ones have the next seeds.
        save_path: folder for the PNGs; `samples` of the project by default.
    Raises:
        CourseError: there is no such model.
    """
    models = list(shipped_configs())
    if model not in models:
        raise CourseError(f'model="{model}" is none of the text-to-image models here; {nearest(model, models)}')
    text = sentence_box(prompt, suggestions(model), "prompt")
    which = Dropdown(options=models, value=model, description="model", **KNOB)
    first = BoundedIntText(value=seed, min=0, max=MAX_SEED - MOST, description="seed", **KNOB)
    how_many = IntSlider(n_samples, min=1, max=MOST, description="pictures", **KNOB)
    truncation = slider(1.0, 0, 1, 0.05, "truncation", "Below 1 the noise shrinks: more usual, more alike")
    steps = slider(0, 0, 40, 1, "steps", "Of refinement (GAN), or from noise to picture (diffusion)")
    guidance = slider(1.0, 0, 10, 0.5, "guidance", "How strongly the steps follow the prompt")
    past = quiet(Dropdown(options=[("this drawing", None)], description="history", **KNOB))
    buttons = {
        "Other noise": "The next seeds", "Stop": "End the drawing", "Save": "PNG files that say how they were made"
    }  # fmt: skip
    other, stop, save = (Button(description=k, tooltip=v, layout=Layout(width="110px")) for k, v in buttons.items())
    knobs = {"texts": text, "model_path": which, "n_samples": how_many, "seed": first}
    knobs |= {"steps_per_sample": steps, "guidance_scale": guidance, "truncation": truncation}
    history: list[tuple[dict[str, Any], Tensor]] = []  # settings and pictures, the newest first
    saved, strip = HTML(), HTML()

    def suit(_: Any = None) -> None:
        """What the chosen model's knobs are."""
        is_gan = shipped_configs().get(which.value, {}).get("kind") == "text-to-image"
        text.options, truncation.disabled = suggestions(which.value), not is_gan
        steps.min, steps.value, guidance.value = (0, 0, 1.0) if is_gan else (1, 20, 2.0)

    suit()
    which.observe(suit, "value")

    def draw() -> Iterator[Scene]:
        return drawing({name: knob.value for name, knob in knobs.items()}, remember)

    def remember(settings: dict[str, Any], pictures: Tensor) -> None:
        history[:] = [(settings, pictures), *(entry for entry in history if entry[0] != settings)][:REMEMBERED]
        if len(history) > 1:
            past.options = [("this drawing", None), *((line_of(entry[0]), entry[0]) for entry in history[1:])]
        strip.value, saved.value = strip_html(history), ""

    def go_back(change: dict[str, Any]) -> None:
        for name, value in (change["new"] or {}).items():
            knobs[name].value = value

    def store(_: Any) -> None:
        def tell() -> None:
            names = write(*history[0], Path(save_path))
            told = f"Saved in {save_path}: {', '.join(names)}"
            saved.value = f'<div role="note">{html.escape(told)}</div>'

        with_words(found.alarm, tell)

    about = "Ask for something. Do size, color, shape, place and ground come as you said? Then change one word."
    controls = [text, which, first, how_many, truncation, steps, guidance, past, other, stop, save]
    found = Explorer("prompt-studio", "Prompt studio", about, controls, draw)
    found.children = (*found.children, saved, strip)
    past.observe(go_back, "value")
    other.on_click(lambda _: setattr(first, "value", first.value + how_many.value))
    found.stop_button(stop, "Move anything, and it draws again.")
    save.on_click(store)
    return found


@cache
def suggestions(name: str) -> tuple[str, ...]:
    """Prompts in the language of a shipped model: captions that it was not trained on."""
    training = shipped_configs().get(name, {}).get("training") or {}
    data = training.get("data") or {}
    if data.get("data_set", "shapes") != "shapes":
        return EMOJI_PROMPTS
    kinds = [
        CaptionedShapes("heldout", language=language, scene=scene, grammar=data.get("grammar", "full"), length=12)
        for scene in SCENES[data.get("scene", "single")]
        for language in ("en", "zh")
    ]
    return (*PROMPTS, *(exam.caption(i) for exam in kinds for i in range(len(exam))))


def drawing(settings: dict[str, Any], done: Callable[[dict[str, Any], Tensor], None]) -> Iterator[Scene]:
    """Draw one picture after the other; tell how far it is, in case it takes long, and at the end show all.

    Args:
        settings: texts (one prompt), model_path, n_samples, seed, steps_per_sample, guidance_scale, truncation.
        done: called with the settings and the pictures (n_samples, 3, S, S).
    """
    started, pictures = time.monotonic(), []
    model = loaded_model(settings["model_path"])
    for i in range(settings["n_samples"]):
        if time.monotonic() - started > GLANCE:
            yield Scene(None, words=f"Drawing picture {i + 1} of {settings['n_samples']} ...")
        pictures.append(model.sample(settings["texts"], 1, seed=settings["seed"] + i, **sampling(model, settings)))
    drawn, seconds = torch.cat(pictures), time.monotonic() - started
    marks = verdicts(model, settings["texts"], drawn)
    done(settings, drawn)
    yield Scene(page(drawn, marks, settings), *in_words(model, marks, settings, seconds))


def sampling(model: AnyModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that the model's `sample` takes."""
    names = ["steps_per_sample", "guidance_scale"] + ["truncation"] * isinstance(model, TextToImage)
    return {name: settings[name] for name in names}


def verdicts(model: AnyModel, prompt: str, pictures: Tensor) -> list[dict[str, bool]]:
    """For each picture: attribute that the prompt names -> whether the judge sees it. Empty where no judge can say."""
    scene = parse(prompt)
    drawn_from = model.training_facts.get("data") or {}
    known = SCENES[scene_of_training(model)] if drawn_from.get("data_set", "shapes") == "shapes" else ()
    if not scene or scene_of(scene) not in known:
        return [{}] * len(pictures)
    judge = loaded_judge(model.image_size, scene_of(scene))
    whole = {name: values[0] for name, values in (SINGLE if judge.config.scene == "single" else PAIR).items()} | scene
    marks = [attribute_accuracy(judge, picture[None], [whole]) for picture in pictures]
    return [{name: mark[name] == 1 for name in whole if name in scene} for mark in marks]


def page(pictures: Tensor, marks: list[dict[str, bool]], settings: Mapping[str, Any]) -> Figure:
    """The pictures, each with its seed above and its verdict below."""
    columns = min(len(pictures), 4)
    verdicts = [wrapped(mark) for mark in marks]
    lines = len(verdicts[0].splitlines())
    rows, tall = -(-len(pictures) // columns), 1.16 + 0.08 * lines  # of a row, in widths of a picture
    with new_axes("", 1, 1, (2.25 * columns, 2.1 * tall * rows)) as (figure, axis):
        for i, (picture, verdict) in enumerate(zip(pictures, verdicts, strict=True)):
            x, y = 1.07 * (i % columns), -tall * (i // columns)
            axis.imshow(to_pil(picture), extent=(x, x + 1, y - 1, y), interpolation="nearest")
            axis.text(x + 0.5, y + 0.02, f"seed {settings['seed'] + i}", ha="center", va="bottom", fontsize=9)
            axis.text(x + 0.5, y - 1.02, verdict, ha="center", va="top", fontsize=9)
        axis.set(xlim=(0, 1.07 * columns - 0.07), ylim=(-tall * rows + 0.12, 0.12))
        axis.set_axis_off()
    return figure


def ticks(mark: Mapping[str, bool]) -> str:
    """A verdict on one picture: "color ✓, shape ✗"."""
    return ", ".join(f"{name} {'✓' if right else '✗'}" for name, right in mark.items())


def wrapped(mark: Mapping[str, bool]) -> str:
    """A verdict in lines that are no wider than a picture; a name and its tick stay together."""
    return textwrap.fill(ticks(mark).replace(", ", "  ").replace(" ✓", "\xa0✓").replace(" ✗", "\xa0✗"), 28)


def in_words(
    model: AnyModel, marks: list[dict[str, bool]], settings: Mapping[str, Any], seconds: float
) -> tuple[str, str]:
    """The alt text, verdict by verdict, and the words below: the time, the verdicts counted, warnings."""
    name, prompt, count, scene = settings["model_path"], settings["texts"], len(marks), parse(settings["texts"])
    seeds = [settings["seed"] + i for i in range(count)]
    pictures = f"{count} picture{'s' * (count > 1)}"
    alt = f"{pictures} for: {prompt}. " + "; ".join(
        f"seed {seed}: {ticks(mark) or 'not judged'}" for seed, mark in zip(seeds, marks, strict=True)
    )
    which = f"seeds {seeds[0]} to {seeds[-1]}" if count > 1 else f"seed {seeds[0]}"
    lines = [f"{pictures} by {name} in {seconds:.2f} s, {which}."]
    counts = [(what, sum(mark[what] for mark in marks)) for what in marks[0]]
    if counts:
        told = [f"{what} {scene[what]} {'✓' if n == count else '✗'} {n} of {count}" for what, n in counts]
        lines.append(f"What the judge sees: {', '.join(told)}.")
    unknown, other = unknown_words_told(model, name, [prompt])
    lines += [f"Note: {sentence}." for sentence in unknown]
    lines += [f"The model {other} has read every word of this."] if other else []
    if isinstance(model, TextToImage) and settings["guidance_scale"] != 1 and not settings["steps_per_sample"]:
        lines.append("Guidance steers the steps; without steps it does nothing.")
    return alt, "<br>".join(map(html.escape, lines))


def line_of(settings: Mapping[str, Any]) -> str:
    """A line of the history."""
    return f"{settings['texts'][:60]} ({settings['model_path']}, seed {settings['seed']})"


def strip_html(history: Sequence[tuple[dict[str, Any], Tensor]]) -> str:
    """The first picture of every drawing, the newest first, with its prompt as alt text."""
    small = [as_html(to_pil(pictures[0]).resize((64, 64), 0), line_of(settings)) for settings, pictures in history]
    return f'<div style="display:flex; gap:6px">{"".join(small)}</div>' if len(small) > 1 else ""


def write(settings: dict[str, Any], pictures: Tensor, folder: Path) -> list[str]:
    """Save the pictures as PNGs that say how they were made; the names of the files tell them apart."""
    model, prompt = settings["model_path"], settings["texts"]
    knobs = sampling(loaded_model(model), settings)
    ending = "-".join(f"{name.split('_')[0]}{value:g}" for name, value in knobs.items())
    writable_folder(folder)
    names = []
    for i, picture in enumerate(pictures):
        config = GenerateConfig((prompt,), model, n_samples=1, seed=settings["seed"] + i, **knobs)
        names.append(f"{slug(prompt)}-{model}-seed{config.seed}-{ending}.png")
        notes = provenance_text(model, prompt, config.seed, settings_of(config, 1))
        save_image(picture, folder / names[-1], notes)
    return names
