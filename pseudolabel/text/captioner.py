"""Captions by any of transformers' image-to-text models that goes on from a few words: BLIP, BLIP-2, GIT."""

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, ProcessorMixin

from pseudolabel.batching import batched
from pseudolabel.config import CaptionConfig
from pseudolabel.diffusion.load import ModelError, resolve_dtype
from pseudolabel.io.weights import weights_digest
from pseudolabel.shipped import resolve
from pseudolabel.text.pretrained import load_pretrained


class Captioner:
    """A frozen captioner on one device."""

    def __init__(self, config: CaptionConfig, device: torch.device) -> None:
        """Load the checkpoint, safetensors only.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.config = config
        self.folder, setting = resolve(config.model, "captioner"), "--captions.model"
        self.model, self.processor = load_pretrained(
            self.folder, AutoModelForImageTextToText, AutoProcessor, device, "an image captioning", setting
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
    def __call__(self, images: list[Image.Image], leads: list[str]) -> list[str]:
        """Greedy captions, each going on from its lead, such as `a photograph of dog`; N RGB images, N sentences.

        An empty lead leaves the beginning to the model. Models with an encoder for the lead may not repeat it.
        """
        # Leads of one length go together: BLIP neither begins nor counts its positions behind padding.
        lengths = [len(self.processor.tokenizer(lead).input_ids) if lead else 0 for lead in leads]
        sentences = dict.fromkeys(range(len(leads)), "")
        for length in sorted(set(lengths)):
            for batch in batched([n for n in sentences if lengths[n] == length], self.config.batch):
                sentences.update(
                    zip(batch, self._complete([images[n] for n in batch], [leads[n] for n in batch]), strict=True)
                )
        return list(sentences.values())

    def _complete(self, images: list[Image.Image], leads: list[str]) -> list[str]:
        inputs = self._inputs(images, leads)
        tokens = self.model.generate(**inputs, max_new_tokens=self.config.max_new_tokens, num_beams=1, do_sample=False)
        sentences = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(sentence.split()) for sentence in sentences]

    def _inputs(self, images: list[Image.Image], leads: list[str]) -> BatchFeature:
        """The processor's inputs, on the device; leads of no length are no text."""
        text = {"text": leads} if leads[0] else {}
        inputs = self.processor(images=images, return_tensors="pt", **text).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        if text and self.model.config.model_type == "git":  # its lead must not end in the token that ends a sentence
            inputs["input_ids"], inputs["attention_mask"] = (
                inputs["input_ids"][:, :-1],
                inputs["attention_mask"][:, :-1],
            )
        return inputs
