"""The map of the house: the chapters, the modules that each builds, and the drawing that opens every lesson."""

from typing import NamedTuple

from course_lib.images import COLORBLIND_SAFE


class Chapter(NamedTuple):
    """A chapter's title and the modules that its lesson builds."""

    title: str
    modules: tuple[str, ...]


CHAPTERS = (
    Chapter("Start here", ()),
    Chapter("Pictures as tensors", ("images",)),
    Chapter(
        "Words and pictures",
        ("data.captions", "data.shapes", "data.emoji", "data.folder", "data.published", "data.audit"),
    ),
    Chapter("Losses", ("losses",)),
    Chapter("Optimisers", ("optim",)),
    Chapter("Convolutions", ("layers",)),
    Chapter("Image encoder", ("fit", "checkpoint", "image_encoder")),
    Chapter("Text encoder", ("tokenizer", "text_encoder")),
    Chapter("Text meets image", ("alignment",)),
    Chapter("A first generator", ("vae",)),
    Chapter("The adversarial game", ("gan",)),
    Chapter("Listening to text", ("text_gan",)),
    Chapter("Training", ("batches", "training", "listeners")),
    Chapter("Training at scale", ("scale", "speed")),
    Chapter("Sampling", ("text_to_image",)),
    Chapter("Judging pictures", ("image_metrics", "metrics")),
    Chapter("What Imagen really is", ("denoising", "unet", "diffusion", "diffusion_training")),
    Chapter("Errata", ("provenance",)),
)
FLOORS = ((0,), (15, 16, 17), (12, 13, 14), (9, 10, 11), (6, 7, 8), (1, 2, 3, 4, 5))  # the roof first


def house(chapter: int) -> str:
    """The house of the course as a Mermaid diagram, the chapter's room lit; it stands in the lesson's first cell.

    Rooms that earlier chapters built are blue, those of later chapters pale.
    """
    rooms = []
    for floor in FLOORS:
        rooms += [f'  c{number:02}["{number:02} {CHAPTERS[number].title}"]:{15 // len(floor)}' for number in floor]
    built = [f"c{number:02}" for number in range(chapter)]
    lines = ["block-beta", "  columns 15", *rooms, "  classDef default fill:#f4f4f4,stroke:#999,color:#222"]
    if built:
        lines += ["  classDef built fill:#cfe6f5,stroke:#0072B2,color:#222", f"  class {','.join(built)} built"]
    lines += [f"  classDef lit fill:{COLORBLIND_SAFE[6]},stroke:#222,stroke-width:3px,color:#000"]
    return "\n".join([*lines, f"  class c{chapter:02} lit"])
