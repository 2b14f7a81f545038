"""One sentence that names all of an image's classes, and the tokens of each class."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from pseudolabel.text.prompts import name_tokens
from pseudolabel.vocabulary import ClassEntry


@dataclass(frozen=True)
class JointPrompt:
    """A sentence, and the character span of each class's name in it."""

    text: str
    spans: tuple[tuple[int, int], ...]


def build_joint_prompt(template: str, classes: Sequence[ClassEntry], caption: str = "", tail: str = "") -> JointPrompt:
    """A caption that names the classes, or the template filled with their prompt names, joined by `and`.

    In a caption the first word that spells a class (name, prompt name or synonym, also in a regular plural) stands for
    it. Classes that the caption does not name follow after a comma.

    Args:
        template: sentence with one `{}`.
        classes: in the order of the spans.
        caption: any sentence; empty where there is none.
        tail: words that end the sentence.
    """
    caption = " ".join(caption.split())
    spans = [_find(caption, entry) for entry in classes]
    missing = [entry.prompt for entry, span in zip(classes, spans, strict=True) if span is None]
    if caption:
        prefix, suffix = f"{caption}, " if missing else caption, ""
    else:
        prefix, suffix = template.split("{}")
    place, placed = len(prefix), []
    for name in missing:
        placed.append((place, place + len(name)))
        place += len(name) + len(" and ")
    rest = iter(placed)
    text = prefix + " and ".join(missing) + suffix + (f" {tail}" if tail else "")
    return JointPrompt(text, tuple(span or next(rest) for span in spans))


def _find(caption: str, entry: ClassEntry) -> tuple[int, int] | None:
    spellings = "|".join(re.escape(word) for word in (entry.prompt, entry.name, *entry.synonyms))
    found = re.search(rf"(?<!\w)(?:{spellings})(?:e?s)?(?!\w)", caption, re.IGNORECASE)
    return found.span() if found else None


def fits(tokenizer: CLIPTokenizer, prompt: JointPrompt) -> bool:
    """Whether every class lies within the tokens that the text encoder sees; what follows the last one may not."""
    named = prompt.text[: max((end for _, end in prompt.spans), default=0)]
    longest = tokenizer.model_max_length
    return len(tokenizer(named, max_length=longest + 1, truncation=True).input_ids) <= longest


def class_token_weights(tokenizer: CLIPTokenizer, prompt: JointPrompt) -> torch.Tensor:
    """Weights of the tokens that make each class's map, the mean of the name's: float32 (C, tokens).

    Raises:
        SampleError: if a class lies outside the tokens that the text encoder sees.
    """
    weights = torch.zeros(len(prompt.spans), tokenizer.model_max_length)
    for row, span in zip(weights, prompt.spans, strict=True):
        tokens = name_tokens(tokenizer, prompt.text, span)
        row[tokens] = 1 / len(tokens)
    return weights
