"""`course train --dry-run`: what a training would need, before it is begun."""

from dataclasses import replace
from typing import Any

import torch

from course_lib.batches import EmbeddedPictures
from course_lib.cards import energy_wh, machine
from course_lib.errors import CourseError
from course_lib.evaluation import format_table
from course_lib.long_recipes import new_trainer
from course_lib.preset_data import FolderConfig
from course_lib.presets import GanPreset, get_preset, override
from course_lib.scale import ScaleConfig, ScaledTrainer
from course_lib.speed import Estimate, estimate, peak_bytes_of, seconds_of, step_flops

PROBE = 4  # pictures in the steps that are counted and timed; more cost in proportion
GPU_FLOPS, GPU_WATTS, GPU_PRICE = 30e12, 700, 3.0  # of a rented H100, as lesson 13 assumes it
PRICE_PER_KWH = 0.3
STATES = 4  # a weight is kept with Adam's two moments and the average; its gradient counts as new memory of the step


def plan(name: str, changes: dict[str, Any], device: torch.device, scale: ScaleConfig, data: dict[str, str]) -> str:
    """What a preset would need: parameters, memory, hours, energy and cost, here and on a rented GPU.

    Args:
        name, changes, device, scale, data: as for `runs.start_run`. Without a folder the size of the published data set
            counts.
    Raises:
        CourseError: unknown preset or setting, a folder that can't be used, or a preset of another kind.
    """
    preset = override(get_preset(name), changes, data)
    if not isinstance(preset, GanPreset):
        raise CourseError(f'preset="{name}" trains no text-to-image GAN, and only those have a --dry-run')
    pictures = pictures_in(preset)
    config = preset.train
    trainer, larger = (
        new_trainer(replace(preset, train=replace(config, batch_size=size)), device, scale)
        for size in (PROBE, 2 * PROBE)
    )
    few, more = (peak_bytes_of(lambda t=t: t.step(blank(t, device))) for t in (trainer, larger))  # with R1: the most
    activations = few + (more - few) * (config.batch_size / PROBE - 1)  # gradients do not grow with the batch
    trainer.steps_done = 0  # R1 again
    with_penalty, step, seconds = probe(trainer, device)
    a_picture = (step + (with_penalty - step) / config.r1_every) / PROBE
    shown = config.steps * config.batch_size
    here = estimate(shown, 1, step / seconds / a_picture, *power(device))
    there = estimate(shown, 1, GPU_FLOPS / a_picture, GPU_WATTS, GPU_PRICE)
    sizes = [sum(p.numel() for p in player.parameters()) for player in (trainer.generator, trainer.discriminator)]
    kept = pictures * 3 * preset.generator.image_size**2
    return "\n".join(
        [
            f"{name} {preset.about}.",
            f"{config.steps:,} steps of {config.batch_size} pictures: each of {pictures:,} is shown "
            f"{shown / pictures:,.0f} times.",
            f"Generator {sizes[0] / 1e6:.1f} million parameters, discriminator {sizes[1] / 1e6:.1f} million; "
            f"{a_picture / 1e9:.1f} billion FLOP a picture.",
            f"Memory: {(STATES * 4 * sum(sizes) + activations) / 1e9:.1f} GB for a step, {kept / 1e9:.1f} GB for the "
            "pictures, kept as bytes on the device.",
            "",
            format_table([row_of(machine(), here), row_of("a rented H100", there)]),
            "",
            f"Here: {seconds:.2f} s for a step of {PROBE} pictures, {PRICE_PER_KWH:.2f} a kWh. The GPU is assumed to "
            f"reach {GPU_FLOPS / 1e12:.0f} TFLOP/s at {GPU_WATTS} W and to cost {GPU_PRICE:.2f} an hour (lesson 13).",
        ]
    )


def pictures_in(preset: GanPreset) -> int:
    """How many there are to train on."""
    data = preset.data
    if not isinstance(data, FolderConfig) or data.folder:
        return len(data.dataset().distinct())
    return data.length


def blank(trainer: ScaledTrainer, device: torch.device) -> EmbeddedPictures:
    """A batch of noise to time steps with."""
    size, width = trainer.generator.config.image_size, trainer.generator.config.text_size
    batch = trainer.config.batch_size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    texts = torch.randn(batch, width, device=device)
    tokens = torch.randn(batch, 8, width, device=device) if trainer.generator.reads_tokens else None
    empty = None if tokens is None else torch.zeros(8, width, device=device)
    return EmbeddedPictures(images, texts, torch.zeros(width, device=device), tokens, empty)


def probe(trainer: ScaledTrainer, device: torch.device) -> tuple[int, int, float]:
    """FLOP of a step with R1 and of one without, and seconds of the latter."""
    data = blank(trainer, device)
    with_penalty, step = step_flops(trainer, data), step_flops(trainer, data)
    return with_penalty, step, seconds_of(lambda: trainer.step(data), device, repeats=3)


def power(device: torch.device) -> tuple[float, float]:
    """Watts, and what an hour costs."""
    watts = energy_wh(3600, None if device.type == "cuda" else torch.get_num_threads())
    return watts, watts / 1000 * PRICE_PER_KWH


def row_of(where: str, needs: Estimate) -> dict[str, str]:
    """One line of the table."""
    return {"on": where, "hours": f"{needs.hours:,.1f}", "kWh": f"{needs.kwh:,.1f}", "cost": f"{needs.cost:,.2f}"}
