"""Captions by any of transformers' image-to-text models that goes on from a few words: BLIP, BLIP-2, GIT."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, ProcessorMixin

from pseudolabel.config import CaptionConfig
from pseudolabel.errors import ModelError, SettingError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.io.pretrained import load_pretrained
from pseudolabel.io.shipped import resolve
from pseudolabel.io.weights import weights_digest
from pseudolabel.runtime.batching import batched
from pseudolabel.runtime.precision import resolve_dtype


class Captioner:
    """A frozen captioner on one device."""

    def __init__(self, config: CaptionConfig, device: torch.device, hub: Hub = DEFAULT_HUB) -> None:
        """Load the checkpoint, safetensors only.

        Raises:
            ModelError: if it cannot be loaded.
            SettingError: if no caption can be that long, or come of so many beams.
        """
        for setting, value, least in (
            ("max_new_tokens", config.max_new_tokens, 1),
            ("max_length", config.max_length, 0),
            ("beams", config.beams, 1),
        ):
            if value < least:
                raise SettingError(f"captions.{setting} {value}: give at least {least}")
        self.config = config
        self.folder, setting = resolve(config.model, "captioner"), "`captions.model`"
        self.model, self.processor = load_pretrained(
            self.folder, AutoModelForImageTextToText, AutoProcessor, device, "an image captioning", setting, hub
        )
        if not isinstance(self.processor, ProcessorMixin):
            raise ModelError(
                f"'{self.folder}' ({setting}) has no processor of images and sentences together; BLIP, BLIP-2 "
                "and GIT have"
            )
        # Not the model's: parts of BLIP-2 keep float32 beside it.
        self.dtype = resolve_dtype("auto", device)

    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_digest(self.folder)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prefixes: Sequence[str]) -> list[str]:
        """Captions that continue a prefix each, such as `a photograph of dog`; N RGB images, N sentences.

        With an empty prefix the model begins the sentence. Models with an encoder for the prefix may not repeat it. A
        prefix as long as `captions.max_length` is returned unchanged.
        """
        # Leads of one length go together: BLIP neither begins nor counts its positions behind padding.
        lengths = [len(self.processor.tokenizer(prefix).input_ids) if prefix else 0 for prefix in prefixes]
        sentences = dict(enumerate(prefixes))
        for length in sorted(set(lengths)):
            own = [n for n in sentences if lengths[n] == length and self._new_tokens(prefixes[n]) > 0]
            for batch in batched(own, self.config.batch):
                sentences.update(
                    zip(batch, self._complete([images[n] for n in batch], [prefixes[n] for n in batch]), strict=True)
                )
        return list(sentences.values())

    def _complete(self, images: list[Image.Image], prefixes: list[str]) -> list[str]:
        tokens = self.model.generate(
            **self._inputs(images, prefixes),
            max_new_tokens=self._new_tokens(prefixes[0]),
            num_beams=self.config.beams,
            do_sample=False,
        )
        sentences = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(sentence.split()) for sentence in sentences]

    def _new_tokens(self, prefix: str) -> int:
        """How many tokens may follow a prefix; the token that begins a sentence counts as the prefix's."""
        if not self.config.max_length:
            return self.config.max_new_tokens
        words = self.processor.tokenizer(prefix, add_special_tokens=False).input_ids
        return min(self.config.max_new_tokens, self.config.max_length - 1 - len(words))

    def _inputs(self, images: list[Image.Image], prefixes: list[str]) -> BatchFeature:
        """The processor's inputs, on the device; empty prefixes are left out."""
        text = {"text": prefixes} if prefixes[0] else {}
        inputs = self.processor(images=images, return_tensors="pt", **text).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        if text and self.model.config.model_type == "git":  # its prefix must not end in the token that ends a sentence
            inputs["input_ids"], inputs["attention_mask"] = (
                inputs["input_ids"][:, :-1],
                inputs["attention_mask"][:, :-1],
            )
        return inputs
