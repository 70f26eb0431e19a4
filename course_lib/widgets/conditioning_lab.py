"""ConditioningLab (lesson 11): one attribute of a sentence is changed, the noise kept. What follows, what stays?"""

import html

import torch
from ipywidgets import BoundedIntText, Dropdown, Layout
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.data.captions import SINGLE, describe, parse, scene_of
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest
from course_lib.images import make_grid, to_pil
from course_lib.lesson import new_axes
from course_lib.text_to_image import MAX_SEED
from course_lib.widgets.base import Explorer, Scene, loaded_judge, loaded_model, sentence_box, table_html

NOISES, SHOWN = 24, 5


def conditioning_lab(
    sentence: str = "a large red heart at the center on navy", attribute: str = "color", model: str = "shapes-32"
) -> Explorer:
    """Two sentences that differ in one attribute, drawn from the same noises; the judge reads both off the pictures.

    Args:
        sentence: of the shapes' grammar, in any of its words.
        attribute: to be changed: size, color, shape, position or background.
        model: a GAN that was trained on shapes.
    Raises:
        CourseError: there is no such attribute.
    """
    if attribute not in SINGLE:
        raise CourseError(f'attribute="{attribute}" is unknown; {nearest(attribute, SINGLE)}')
    shapes = CaptionedShapes("heldout", length=30)
    text = sentence_box(sentence, [shapes.caption(i) for i in range(30)], "sentence")
    look = {"layout": Layout(width="280px"), "style": {"description_width": "80px"}}
    which = Dropdown(options=list(SINGLE), value=attribute, description="attribute", **look)
    new = Dropdown(options=others(sentence, attribute), description="new value", **look)
    seed = BoundedIntText(0, min=0, max=MAX_SEED, description="seed", **look)

    def offer(_: object) -> None:
        if new.options != (values := others(text.value, which.value)):
            new.options = values

    for control in (text, which):
        control.observe(offer, "value")

    def draw() -> Scene:
        before = read(text.value, which.value)
        scenes = [before, before | {which.value: new.value}]
        sentences = [describe(scene) for scene in scenes]
        drawn = [loaded_model(model).sample(said, NOISES, seed=seed.value) for said in sentences]
        told, table = verdict(which.value, scenes, [loaded_judge(images.shape[-1]).read(images) for images in drawn])
        figure = page([images[:SHOWN] for images in drawn], [scene[which.value] for scene in scenes])
        alt = f"{SHOWN} pictures each for: {sentences[0]}; {sentences[1]}, same noises; and where they differ. {told}"
        return Scene(figure, alt, f"{'<br>'.join(map(html.escape, sentences))}<br><b>{told}</b>{table}")

    about = "One word is swapped, the noise stays. Does only this one attribute follow?"
    return Explorer("conditioning-lab", "Conditioning lab", about, [text, which, new, seed], draw)


def read(sentence: str, attribute: str) -> dict[str, str]:
    """The scene that a sentence tells.

    Raises:
        CourseError: it names no shape, or two, or says nothing of the attribute.
    """
    scene = parse(sentence)
    if scene_of(scene) == "pair":
        raise CourseError(f'sentence="{sentence}" names two objects; name one')
    if missing := [name for name in ("shape", attribute) if name not in scene]:
        values = ", ".join(SINGLE[missing[0]])
        raise CourseError(f'sentence="{sentence}" names no {missing[0]}; add one of {values}')
    return scene


def others(sentence: str, attribute: str) -> tuple[str, ...]:
    """The values of an attribute that the sentence does not name."""
    return tuple(value for value in SINGLE[attribute] if value != parse(sentence).get(attribute))


def verdict(attribute: str, scenes: list[dict[str, str]], seen: list[Tensor]) -> tuple[str, str]:
    """What the judge sees before and after: a sentence, and a table.

    Args:
        attribute: that was changed.
        scenes: before and after.
        seen: the judge's readings of N pictures before and of N after, each (N, 5).
    """
    rows, told, count = [], [], len(seen[0])
    for i, (name, values) in enumerate(SINGLE.items()):
        said = [scene.get(name, "(unsaid)") for scene in scenes]
        right = [sum(values[k] == value for k in read[:, i].tolist()) for value, read in zip(said, seen, strict=True)]
        same = int((seen[0][:, i] == seen[1][:, i]).sum())
        rows.append((name, said[0], right[0], said[1], right[1], same))
        told.append(f"{name} follows in {right[1]}" if name == attribute else f"{name} stays in {same}")
    header = "", "first sentence", "judge agrees", "second sentence", "judge agrees", "same in both pictures"
    return f"Of {count} pairs: {', '.join(told)}.", table_html(header, rows)


def page(drawn: list[Tensor], names: list[str]) -> Figure:
    """Three rows of pictures, each (N, 3, S, S): before, after, and where they differ."""
    change = (drawn[0] - drawn[1]).abs().mean(1, keepdim=True)  # (N, 1, S, S) in [0, 2]
    rows = torch.cat([*drawn, (1 - 2 * change).clamp(-1, 1).expand_as(drawn[0])])
    count, cell = len(change), change.shape[-1] + 2  # with the margin of make_grid
    with new_axes("", 1, 1, (8, 4.7)) as (figure, axis):
        axis.imshow(to_pil(make_grid(rows, count)), interpolation="nearest")
        axis.set_xticks([cell * (i + 0.5) for i in range(count)], [f"noise {i + 1}" for i in range(count)])
        axis.set_yticks([cell * (i + 0.5) for i in range(3)], [*names, "difference\n(dark: large)"])
        axis.tick_params(length=0)
        axis.grid(False)
        axis.set_frame_on(False)
    return figure
