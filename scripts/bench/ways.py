"""The same score maps by our code and by that of the released code. Both tell a clock which part of the work runs."""

from collections.abc import Sequence

import torch
from PIL import Image

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.diffusion.recording import Recording
from pseudolabel.methods.diffsegmenter import CompletedAttention
from pseudolabel.runtime.batching import batched
from pseudolabel.text.encoder import TextEncodings
from pseudolabel.text.prompts import build_prompt, token_weights
from tests.plain import diffsegmenter as plain  # the reference that the tests compare ours with

from .measure import Clock

TEMPLATE = "a photograph of {}"


def released(
    model: DiffusionModel,
    config: DiffSegmenterConfig,
    images: Sequence[Image.Image],
    names: Sequence[str],
    noise: torch.Tensor,
    clock: Clock,
) -> torch.Tensor:
    """One class and one timestep at a time, with the unconditional half and full matrices: (images * names, h, w)."""
    sentences = [plain.write_sentence(TEMPLATE, name) for name in names]
    maps = [
        plain.score_maps(model, config, image, sentences, own, guidance_pair=True, part=clock.part)
        for image, own in zip(images, noise, strict=True)
    ]
    return torch.cat(maps)


def ours(
    model: DiffusionModel,
    config: DiffSegmenterConfig,
    images: Sequence[Image.Image],
    names: Sequence[str],
    noise: torch.Tensor,
    clock: Clock,
    batch: int,
) -> torch.Tensor:
    """(image, name, timestep) triples in batches as the `cams` stage makes them: (images * names, h, w)."""
    method = Clocked(model, config, clock)
    pairs_per_batch = max(1, batch // len(config.timesteps))
    with clock.part("vae"):
        chunks = batched((model.pixels(image) for image in images), pairs_per_batch)
        latents = torch.cat([model.encode(torch.stack(chunk)) for chunk in chunks])
    with clock.part("text"):
        tokens = [token_weights(model.tokenizer, build_prompt(TEMPLATE, name), config) for name in names]
        encodings = TextEncodings(model, [one.text for one in tokens])
        embeddings = torch.stack([encodings.emphasised(one.text, one.emphasis) for one in tokens])
        weights = torch.stack([one.weights for one in tokens])[:, None]
    maps = []
    for pairs in batched(torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(names))), pairs_per_batch):
        image, name = torch.stack(pairs).unbind(1)
        with clock.part("unet"):
            maps.append(method(latents[image], noise[image], embeddings[name], weights[name])[:, 0])
    return torch.cat(maps)


class Clocked(CompletedAttention):
    """DiffSegmenter that tells the clock where the U-Net's share ends."""

    def __init__(self, model: DiffusionModel, config: DiffSegmenterConfig, clock: Clock) -> None:
        super().__init__(model, config)
        self.clock = clock

    def _complete(self, fused: torch.Tensor, recording: Recording) -> torch.Tensor:
        with self.clock.part("propagation"):
            return super()._complete(fused, recording)
