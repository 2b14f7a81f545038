"""Text encodings of class prompts, emphasised as compel's `++` does."""

from collections.abc import Iterable

import torch

from pseudolabel.diffusion.model import DiffusionModel
from pseudolabel.runtime.batching import batched

BATCH = 64


class TextEncodings:
    """Encodings of a set of sentences, each sentence encoded once, with the empty one beside them."""

    def __init__(self, model: DiffusionModel, texts: Iterable[str]) -> None:
        self.model = model
        self._empty = model.encode_text([""])[0].float()
        self._embeddings: dict[str, torch.Tensor] = {}
        for chunk in batched(dict.fromkeys(texts), BATCH):
            self._embeddings |= zip(chunk, model.encode_text(list(chunk)), strict=True)

    def plain(self, text: str) -> torch.Tensor:
        """One of the sentences as it is: (tokens, width) in the model's dtype."""
        return self._embeddings[text]

    def emphasised(self, text: str, emphasis: torch.Tensor) -> torch.Tensor:
        """Move a sentence away from the empty one, position by position: z' = z0 + w (z - z0).

        Args:
            text: one of the sentences.
            emphasis: float32 (tokens,), the factor w of every position.

        Returns:
            (tokens, width) in the model's dtype.
        """
        factor = self.model.upload(emphasis)[:, None]
        return (self._empty + factor * (self._embeddings[text].float() - self._empty)).to(self.model.dtype)
