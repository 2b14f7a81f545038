"""Text encodings of class prompts, with some tokens emphasised."""

from collections.abc import Iterable
from typing import Literal

import torch

from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.runtime.batching import batched

BATCH = 64


class TextEncodings:
    """Encodings of a set of sentences, each sentence encoded once.

    Emphasis is `relative` to the empty sentence, as compel's `++` is, or `absolute`, as iSeg's.
    """

    def __init__(
        self, model: DiffusionModel, texts: Iterable[str], emphasis: Literal["relative", "absolute"] = "relative"
    ) -> None:
        self.model = model
        empty = model.encode_text([""])[0].float()
        self._origin = empty if emphasis == "relative" else torch.zeros_like(empty)
        self._embeddings: dict[str, torch.Tensor] = {}
        for chunk in batched(dict.fromkeys(texts), BATCH):
            self._embeddings |= zip(chunk, model.encode_text(list(chunk)), strict=True)

    def plain(self, text: str) -> torch.Tensor:
        """One of the sentences as it is: (rows, width) in the model's dtype."""
        return self._embeddings[text]

    def emphasised(self, text: str, emphasis: torch.Tensor) -> torch.Tensor:
        """Move a sentence away from the empty one or from zero, position by position: z' = z0 + w (z - z0).

        The row of SDXL that stands for the whole sentence stays as it is, as in compel.

        Args:
            text: one of the sentences.
            emphasis: float32 (tokens,), the factor w of every position.

        Returns:
            (rows, width) in the model's dtype.
        """
        factor, embeddings = self.model.upload(emphasis)[:, None], self._embeddings[text].float()
        tokens = len(emphasis)
        origin = self._origin[:tokens]
        moved = origin + factor * (embeddings[:tokens] - origin)
        return torch.cat([moved, embeddings[tokens:]]).to(self.model.dtype)
