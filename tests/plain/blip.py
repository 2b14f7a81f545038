"""A BLIP captioner with seeded random weights, built from real transformers classes."""

from pathlib import Path

import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "photograph", "of", "on", "the", "red", "blue", "big", "two", "in", "sky"]
SHAPES = ["circle", "square", "triangle", "star", "cross", "heart"]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_blip(folder: Path, seed: int = 0) -> Path:
    """Save a checkpoint of some hundred kilobytes, safetensors, that captions 32-pixel images with a few words."""
    vocabulary = {
        word: index for index, word in enumerate([*SPECIAL, *WORDS, *SHAPES, *(f"##{c}" for c in "abcdefgh")])
    }
    text = {
        **SMALL,
        "vocab_size": len(vocabulary) + 2,  # as published: two tokens that the tokenizer does not know
        "bos_token_id": len(vocabulary),
        "sep_token_id": vocabulary["[SEP]"],
        "pad_token_id": 0,
        "eos_token_id": vocabulary["[SEP]"],
        "max_position_embeddings": 64,
    }
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=32))
    for parameter in model.parameters():
        if parameter.dim() > 1:  # far enough from zero for captions that depend on the image
            torch.nn.init.normal_(parameter, std=0.6)
    model.save_pretrained(folder, safe_serialization=True)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, BertTokenizer(vocab=vocabulary)).save_pretrained(folder)
    return folder
