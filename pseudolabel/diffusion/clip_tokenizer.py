"""CLIP's own tokenizer, from the list of byte pairs that ships with the package."""

import gzip
from functools import cache
from importlib import resources

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
TOKENS = 49_408
PAIRS = TOKENS - 2 * 256 - 2  # the file has more, which CLIP does not use


def clip_tokenizer(pad: str = END) -> CLIPTokenizer:
    """The tokenizer of Stable Diffusion's text encoders, with OpenAI's token ids.

    Args:
        pad: the token after the end of a text: the end token itself in CLIP, `!` in OpenCLIP.
    """
    merges = _merges()
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), BEGIN, END]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=list(merges),
        model_max_length=LENGTH,
        pad_token=pad,
    )


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    file = resources.files("pseudolabel.diffusion") / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    pairs = [line.split() for line in lines[1 : PAIRS + 1]]  # the first line is the file's title
    return tuple((first, second) for first, second in pairs)
