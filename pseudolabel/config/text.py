"""Settings of captions and of the prediction of image-level labels."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class CaptionConfig:
    """Captions: sentences that continue the prompt after the class name.

    Args:
        source: `none`, or the path of a captions file (JSONL with `key`, `class`, `caption`) or of a folder of such
            files, such as the one that `pseudolabel caption` writes.
        model: hub id or folder of the captioner, such as BLIP, BLIP-2 or GIT, or `shapes`, the small one that ships
            with the package.
        max_new_tokens: largest number of tokens that are added to a caption's given first words.
        max_length: largest number of tokens in all, with the given first words and the token that begins a sentence;
            the released code has 20, which leaves 15 after `a photograph of dog`. 0 is no limit.
        beams: width of beam search; 1 is greedy decoding.
        batch: captions per forward pass.
    """

    source: str = "none"
    model: str = "Salesforce/blip-image-captioning-large"
    max_new_tokens: int = 20
    max_length: int = 0
    beams: int = 1
    batch: int = 16


@dataclass(frozen=True)
class FilterConfig:
    """Prediction of an image's classes from the image alone (the zero-shot setting).

    The predicted classes are the union of those by the image and those by its captions.

    Args:
        image: classes by CLIP's similarity of image and text: those of at least `image_threshold` times the largest
            (`relative`, the released code), those with a cosine above it (`absolute`, the paper's text), those above
            half the range of the image's scores by TagCLIP's patches and crops (`tagclip`, without threshold), or
            `none`.
        image_threshold: share of the largest similarity, or cosine.
        clip: hub id or folder of the CLIP checkpoint, or `shapes`, the small one that ships with the package.
        template: sentence with one `{}` for the class.
        nouns: classes by the captions' nouns: those whose text embedding has a cosine above `noun_threshold` with a
            noun's (`similarity`), those whose name or synonym is a noun (`synonyms`), `both`, FreeSeg-Diff's `nearest`
            class unless it is farther than the mean class, its released `mean_of_minima`, or `none`.
        noun_threshold: smallest cosine for `similarity`.
        spacy: name or folder of the spaCy pipeline that finds the nouns, or `shapes`, the small one that ships.
        prefixes: first words of captions; one caption is generated for each.
    """

    image: Literal["relative", "absolute", "tagclip", "none"] = "relative"
    image_threshold: float = 0.97
    clip: str = "openai/clip-vit-large-patch14"
    template: str = "A photo of a {}"
    nouns: Literal["similarity", "synonyms", "both", "nearest", "mean_of_minima", "none"] = "similarity"
    noun_threshold: float = 0.8
    spacy: str = "en_core_web_sm"
    prefixes: list[str] = field(default_factory=lambda: ["", "A picture of"])
