"""Prompts that name one class, and the tokens of the class."""

import re
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from pseudolabel.config import DiffSegmenterConfig
from pseudolabel.errors import SampleError

_NEXT_WORD = re.compile(r"\s+(\w+ing)\b")
# Words are what stands between blanks: in "dog, sitting" the next word counts, in "dog sitting," it ends in a comma.
_RELEASED_NEXT_WORD = re.compile(r"\S*\s+\S*ing(?!\S)")


@dataclass(frozen=True)
class Prompt:
    """A sentence, the character span of the class name in it, and that of a word ending in "ing" right after it."""

    text: str
    name: tuple[int, int]
    modifier: tuple[int, int] | None


def build_prompt(template: str, name: str, caption: str = "") -> Prompt:
    """`a photograph of {class}` continued by a caption (DiffSegmenter's prompt without its `++`).

    A caption that starts with the same words, as BLIP's conditional captions do, continues them; any other caption
    follows after a comma.
    """
    start = template.index("{}")
    prefix = template.format(name)
    caption = " ".join(caption.split())
    # Whole words only: "a photograph of cartoon dogs" does not continue "a photograph of car".
    if continued := re.match(re.escape(prefix) + r"(?!\w)", caption, re.IGNORECASE):
        text = prefix + caption[continued.end() :]
    else:
        text = f"{prefix}, {caption}" if caption else prefix
    end = start + len(name)
    following = _NEXT_WORD.match(text, end)
    return Prompt(text, (start, end), following.span(1) if following else None)


@dataclass(frozen=True)
class TokenWeights:
    """What each token of a prompt counts.

    Attributes:
        text: the prompt's sentence.
        weights: float32 (tokens,), summing to one: weights of the tokens whose cross-attention makes the class's map.
        emphasis: float32 (tokens,): the factor on the token's text encoding, 1 where nothing is emphasised.
    """

    text: str
    weights: torch.Tensor
    emphasis: torch.Tensor


def token_weights(tokenizer: CLIPTokenizer, prompt: Prompt, config: DiffSegmenterConfig) -> TokenWeights:
    """Find the class's tokens in a prompt and weigh them.

    Raises:
        SampleError: if the class name lies outside the tokens that the text encoder sees.
    """
    name = emphasised = name_tokens(tokenizer, prompt.text, prompt.name)
    if config.class_tokens == "last_word":
        emphasised = name_tokens(tokenizer, prompt.text, _last_word(prompt))
    if config.class_tokens != "mean":
        name = name[-1:]
    if config.class_tokens == "last":
        emphasised = name
    length = tokenizer.model_max_length
    weights, emphasis = torch.zeros(length), torch.ones(length)
    weights[name] = 1 / len(name)
    emphasis[emphasised] = config.class_weight
    if modifier := _modifier_tokens(tokenizer, prompt, config, name[-1]):
        weights /= 2
        weights[modifier] += 0.5 / len(modifier)
    return TokenWeights(prompt.text, weights, emphasis)


def _last_word(prompt: Prompt) -> tuple[int, int]:
    """The character span of the last word of the class name, as blanks part words."""
    start, end = prompt.name
    return end - len(prompt.text[start:end].split()[-1]), end


def _modifier_tokens(tokenizer: CLIPTokenizer, prompt: Prompt, config: DiffSegmenterConfig, last: int) -> list[int]:
    """The tokens that share the weight with the class name, whose last token is at `last`; mostly none."""
    if config.modifiers == "ing_next" and prompt.modifier:
        return _covering(tokenizer, prompt.text, prompt.modifier)
    if config.modifiers == "ing_released" and _RELEASED_NEXT_WORD.match(prompt.text, prompt.name[1]):
        following = last + 1
        return [following] if following < tokenizer.model_max_length - 1 else []
    return []


def name_tokens(tokenizer: CLIPTokenizer, text: str, span: tuple[int, int]) -> list[int]:
    """Positions of the tokens of a class name, given the span of its characters.

    Raises:
        SampleError: if the name lies outside the tokens that the text encoder sees.
    """
    tokens = _covering(tokenizer, text, span)
    if not tokens:
        length = tokenizer.model_max_length
        message = f"no token of '{text:.120}' names the class within the text encoder's {length} tokens"
        raise SampleError("prompt", message)
    return tokens


def _covering(tokenizer: CLIPTokenizer, text: str, wanted: tuple[int, int]) -> list[int]:
    """Tokens that share a character with a span."""
    encoded = tokenizer(text, max_length=tokenizer.model_max_length, truncation=True, return_offsets_mapping=True)
    spans = encoded.offset_mapping
    return [number for number, (start, end) in enumerate(spans) if start < wanted[1] and end > wanted[0]]
