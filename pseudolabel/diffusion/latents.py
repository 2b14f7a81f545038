"""Latents of images, whose pixels are prepared in threads while the device encodes earlier ones."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from PIL import Image

from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.runtime.batching import static_batches
from pseudolabel.runtime.prefetch import prefetch

T = TypeVar("T")

BATCHES_AHEAD = 2


def encode_ahead(
    model: DiffusionModel,
    items: Iterable[T],
    view: Callable[[T], Image.Image],
    batch: int,
    threads: int,
    draw: Callable[[T], torch.Tensor] | None = None,
) -> Iterator[tuple[tuple[T, ...], torch.Tensor]]:
    """Items in batches with the scaled latents of their images, float32 (B, c, h, w) on the model's device.

    Args:
        model: the diffusion model.
        items: any number; they are taken a few batches ahead.
        view: an item's RGB image, of any size.
        batch: images that the VAE takes at once.
        threads: that prepare pixels ahead.
        draw: standard normal (c, h, w) to draw an item's latent from the posterior; None takes the mean.
    """

    def prepare(work: tuple[tuple[T, ...], int]) -> tuple[tuple[T, ...], torch.Tensor, torch.Tensor | None]:
        filled, count = work
        pixels = torch.stack([model.pixels(view(item)) for item in filled])
        drawn = torch.stack([draw(item) for item in filled]) if draw is not None else None
        return filled[:count], model.pin(pixels), drawn

    for own, pixels, drawn in prefetch(prepare, static_batches(items, batch), threads, BATCHES_AHEAD):
        yield own, model.encode(pixels, drawn)[: len(own)]
