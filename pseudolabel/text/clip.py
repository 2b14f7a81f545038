"""CLIP (Radford et al. 2021): how near images, sentences and words are to each other."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BatchEncoding, CLIPModel, CLIPProcessor

from pseudolabel.errors import ModelError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.io.pretrained import load_pretrained
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weights import weights_digest
from pseudolabel.runtime.batching import batched

TEXT_BATCH = 64


class ClipScorer:
    """A frozen CLIP on one device; every sentence is encoded once."""

    def __init__(self, name: str, device: torch.device, setting: str, hub: Hub = DEFAULT_HUB) -> None:
        """Load the checkpoint, safetensors only.

        Args:
            name: hub id or folder, or `shapes`.
            device: where it runs.
            setting: the setting that names it, such as `filter.clip`, for messages.
            hub: access to the hub.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.folder = folder = resolve(name, "clip")
        self.model, self.processor = load_pretrained(folder, CLIPModel, CLIPProcessor, device, "a CLIP", setting, hub)
        known, wanted = len(self.processor.tokenizer), self.model.config.text_config.vocab_size
        if known != wanted:  # without its files, a tokenizer is empty and every word unknown to it
            raise ModelError(
                f"'{folder}' ({setting}) is no complete CLIP: its tokenizer has {known} tokens where its text "
                f"encoder has {wanted}"
            )
        self._embeddings: dict[str, torch.Tensor] = {}

    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_digest(self.folder)

    @property
    def scale(self) -> float:
        """The factor that makes cosines this checkpoint's logits: 100 in OpenAI's."""
        return self.model.logit_scale.float().exp().item()

    def similarities(self, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        """Cosines in [-1, 1]: float32 (images, texts) on the model's device."""
        return self.image_embeddings(images) @ self.text_embeddings(texts).T

    @torch.inference_mode()
    def image_embeddings(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Embeddings of RGB images, all in one forward pass: float32 (images, d) of length 1."""
        if not images:
            return torch.empty(0, self.model.config.projection_dim, device=self.model.device)
        pixels = self.processor.image_processor(list(images), return_tensors="pt").pixel_values
        embeddings = self.model.vision_model(pixels.to(self.model.device, self.model.dtype)).pooler_output
        return _normalise(self.model.visual_projection(embeddings))

    @torch.inference_mode()
    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of sentences, cut to CLIP's length: float32 (texts, d) of length 1."""
        for batch in batched((text for text in dict.fromkeys(texts) if text not in self._embeddings), TEXT_BATCH):
            embeddings = self.model.text_model(**self._tokens(batch)).pooler_output
            self._embeddings |= zip(batch, _normalise(self.model.text_projection(embeddings)), strict=True)
        if not texts:
            return torch.empty(0, self.model.config.projection_dim, device=self.model.device)
        return torch.stack([self._embeddings[text] for text in texts])

    @torch.inference_mode()
    def word_states(self, words: Sequence[str]) -> torch.Tensor:
        """The text encoder's last embeddings, each word alone, averaged over its tokens: float32 (words, width).

        The tokens that begin and end a sentence are no part of the word.
        """
        means = [torch.empty(0, self.model.config.text_config.hidden_size, device=self.model.device)]
        for batch in batched(words, TEXT_BATCH):
            tokens = self._tokens(batch, return_special_tokens_mask=True)
            inside = 1.0 - tokens.pop("special_tokens_mask")[..., None].float()
            embeddings = self.model.text_model(**tokens).last_hidden_state.float()
            means.append((embeddings * inside).sum(1) / inside.sum(1))
        return torch.cat(means)

    def _tokens(self, texts: Sequence[str], **options: bool) -> BatchEncoding:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt", **options
        )
        return tokens.to(self.model.device)


def _normalise(features: torch.Tensor) -> torch.Tensor:
    """In float32, where half a precision would make equal neighbours of near ones."""
    return torch.nn.functional.normalize(features.float(), dim=-1)
