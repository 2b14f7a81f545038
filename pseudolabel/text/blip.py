"""BLIP (Li et al. 2022) as DiffSegmenter uses it: a sentence that begins with the class."""

import os

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

from pseudolabel.batching import batched
from pseudolabel.config import CaptionConfig
from pseudolabel.diffusion.load import ModelError, resolve_dtype


class BlipCaptioner:
    """A frozen BLIP captioner on one device."""

    def __init__(self, config: CaptionConfig, device: torch.device) -> None:
        """Load the checkpoint, safetensors only.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.config = config
        dtype = resolve_dtype("auto", device)
        try:
            self.processor = BlipProcessor.from_pretrained(config.model)
            model = BlipForConditionalGeneration.from_pretrained(config.model, use_safetensors=True, dtype=dtype)
        except (OSError, ValueError) as error:
            place = "a folder with" if os.path.isdir(config.model) else "the name of, or a folder with,"
            raise ModelError(
                f"cannot load the captioner '{config.model}' (--captions.model); it must be {place} a BLIP captioning "
                f"checkpoint in safetensors.\n{type(error).__name__}: {error}"
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image], leads: list[str]) -> list[str]:
        """Greedy captions, each going on from its lead, such as `a photograph of dog`; N RGB images, N sentences."""
        # Leads of one length go together: BLIP neither begins nor counts its positions behind padding.
        lengths = [len(self.processor.tokenizer(lead).input_ids) for lead in leads]
        sentences = dict.fromkeys(range(len(leads)), "")
        for length in sorted(set(lengths)):
            for batch in batched([n for n in sentences if lengths[n] == length], self.config.batch):
                sentences.update(
                    zip(batch, self._complete([images[n] for n in batch], [leads[n] for n in batch]), strict=True)
                )
        return list(sentences.values())

    def _complete(self, images: list[Image.Image], leads: list[str]) -> list[str]:
        inputs = self.processor(images=images, text=leads, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=self.config.max_new_tokens, num_beams=1, do_sample=False)
        sentences = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(sentence.split()) for sentence in sentences]
