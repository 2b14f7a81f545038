"""The category filter: which classes of a vocabulary an image may hold, by CLIP and by the nouns of captions.

DiffSegmenter (Wang et al. 2023) has it for the zero-shot setting; FreeSeg-Diff (Corradini et al. 2024) has rules of its
own for nouns. docs/methods.md says what papers and released code do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from pseudolabel.config import CaptionConfig, FilterConfig
from pseudolabel.errors import SettingError
from pseudolabel.io.hub import DEFAULT_HUB, Hub
from pseudolabel.text.captioner import Captioner
from pseudolabel.text.class_rules import (
    Classes,
    classes_like_nouns,
    classes_of_image,
    classes_of_minima,
    classes_of_spellings,
    indices_of,
    nearest_classes,
)
from pseudolabel.text.clip import ClipScorer
from pseudolabel.text.nouns import find_nouns, load_pipeline, pipeline_digest
from pseudolabel.text.tagclip import above_half, score_image
from pseudolabel.vocabulary import Vocabulary, template_problem

if TYPE_CHECKING:
    from spacy.language import Language


@dataclass(frozen=True)
class Guess:
    """What an image may hold.

    Attributes:
        by_image: sorted vocabulary indices of the classes that CLIP sees in the image.
        by_nouns: the same of those that its captions' nouns mean.
        captions: one for each prefix.
        nouns: those of all captions, each once, compounds whole.
        image_scores: cosine of the image and each class's sentence, or TagCLIP's score, in the vocabulary's order;
            empty where CLIP is not asked.
    """

    by_image: Classes
    by_nouns: Classes
    captions: tuple[str, ...]
    nouns: tuple[str, ...]
    image_scores: tuple[float, ...]

    @property
    def classes(self) -> Classes:
        """The union of both."""
        return tuple(sorted({*self.by_image, *self.by_nouns}))


class CategoryFilter:
    """Guesses the classes of images; each model is loaded when a rule first asks for it.

    Args:
        config: the rules and the names of CLIP and of the spaCy pipeline.
        captions: the captioner.
        device: where CLIP and the captioner run.
        hub: access to the hub.

    Raises:
        SettingError: if the settings leave nothing to go by, or the template has no place for the class.
    """

    def __init__(
        self, config: FilterConfig, captions: CaptionConfig, device: torch.device, hub: Hub = DEFAULT_HUB
    ) -> None:
        if config.image == config.nouns == "none":
            raise SettingError(
                "`filter.image` none and `filter.nouns` none: no rule is left that chooses classes; set one of them"
            )
        if problem := template_problem(config.template):
            raise SettingError(f"`filter.template` {problem}")
        self.config, self.captions, self.device, self.hub = config, captions, device, hub

    def __call__(self, images: Sequence[Image.Image], vocabulary: Vocabulary) -> list[Guess]:
        """A guess for each RGB image; CLIP sees them all in one forward pass, and one by one for `tagclip`.

        Raises:
            ModelError: if a model cannot be loaded.
        """
        scores = self._image_scores(images, vocabulary)
        captions: list[tuple[str, ...]] = [()] * len(images)
        nouns = captions
        if self.config.nouns != "none":
            captions = self._caption(images)
            nouns = self._find_nouns(captions)
        return [
            Guess(self._by_image(row), self._by_nouns(found, vocabulary), said, found, tuple(row.tolist()))
            for row, said, found in zip(scores, captions, nouns, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """All that guesses depend on beside the vocabulary: the rules and the digests of the models that they ask.

        Raises:
            ModelError: if a model cannot be loaded.
        """
        config = self.config
        rules: dict[str, Any] = {"image": config.image, "nouns": config.nouns}
        if config.image != "none":
            rules["template"] = config.template
        if config.image in ("relative", "absolute"):  # TagCLIP's rule has no threshold
            rules["image_threshold"] = config.image_threshold
        if config.nouns in ("similarity", "both"):
            rules["noun_threshold"] = config.noun_threshold
        if config.nouns != "none":
            captions = {name: getattr(self.captions, name) for name in ("max_new_tokens", "max_length", "beams")}
            # The key keeps its old name: it is part of the fingerprint of finished runs.
            rules |= {"leads": config.prefixes, "captions": captions}
            rules |= {"captioner": self._captioner.fingerprint(), "spacy": pipeline_digest(self._pipeline)}
        if config.image != "none" or config.nouns != "synonyms":
            rules["clip"] = self._clip.fingerprint()
        return rules

    def nouns(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """The distinct nouns of each RGB image's captions, for any rules.

        Raises:
            ModelError: if a model cannot be loaded.
        """
        return self._find_nouns(self._caption(images))

    @cached_property
    def _clip(self) -> ClipScorer:
        return ClipScorer(self.config.clip, self.device, "`filter.clip`", self.hub)

    @cached_property
    def _captioner(self) -> Captioner:
        return Captioner(self.captions, self.device, self.hub)

    @cached_property
    def _pipeline(self) -> "Language":
        return load_pipeline(self.config.spacy)

    def _image_scores(self, images: Sequence[Image.Image], vocabulary: Vocabulary) -> torch.Tensor:
        if self.config.image == "none":
            return torch.empty(len(images), 0)
        sentences = [self.config.template.format(entry.prompt) for entry in vocabulary.classes]
        if self.config.image == "tagclip":
            return self._tagclip_scores(images, sentences, vocabulary)
        return self._clip.similarities(images, sentences).cpu()

    def _tagclip_scores(
        self, images: Sequence[Image.Image], sentences: Sequence[str], vocabulary: Vocabulary
    ) -> torch.Tensor:
        if len(sentences) < 2:
            raise SettingError(
                "`filter.image` tagclip compares an image's classes with each other, and there is one: take absolute"
            )
        background = [self.config.template.format(word) for word in vocabulary.background_words]
        texts = self._clip.text_embeddings([*sentences, *background])
        scores = [score_image(self._clip, image, texts, len(sentences)) for image in images]
        return torch.stack(scores) if scores else torch.empty(0, len(sentences))

    def _by_image(self, scores: torch.Tensor) -> Classes:
        if self.config.image == "none":
            return ()
        if self.config.image == "tagclip":
            return indices_of(above_half(scores))
        return classes_of_image(scores, self.config.image, self.config.image_threshold)

    def _caption(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """One caption per prefix for each image."""
        pairs = [(image, prefix) for image in images for prefix in self.config.prefixes]
        sentences = iter(self._captioner([image for image, _ in pairs], [prefix for _, prefix in pairs]))
        return [tuple(next(sentences) for _ in self.config.prefixes) for _ in images]

    def _find_nouns(self, captions: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The distinct nouns of each image's captions, without those of the prefixes, such as `picture`."""
        said = [
            _without(prefix, text)
            for texts in captions
            for prefix, text in zip(self.config.prefixes, texts, strict=True)
        ]
        found = iter(find_nouns(self._pipeline, said))
        return [tuple(dict.fromkeys(noun for _ in texts for noun in next(found))) for texts in captions]

    def _by_nouns(self, nouns: Sequence[str], vocabulary: Vocabulary) -> Classes:
        rule = self.config.nouns
        if rule == "none" or not nouns:
            return ()
        if rule == "nearest":
            return nearest_classes(self._distances(nouns, vocabulary))
        if rule == "mean_of_minima":
            return classes_of_minima(self._distances(nouns, vocabulary, centred=True))
        spelled = classes_of_spellings(nouns, vocabulary) if rule != "similarity" else ()
        alike = self._alike(nouns, vocabulary) if rule != "synonyms" else ()
        return tuple(sorted({*spelled, *alike}))

    def _alike(self, nouns: Sequence[str], vocabulary: Vocabulary) -> Classes:
        """By the text encoder's embeddings of single words, as in DiffSegmenter's released code."""
        words = list(dict.fromkeys(word for noun in nouns for word in noun.split()))
        embeddings, classes = self._clip.word_states(words), self._clip.word_states(_prompts(vocabulary))
        return classes_like_nouns(_cosines(embeddings, classes).cpu(), self.config.noun_threshold)

    def _distances(self, nouns: Sequence[str], vocabulary: Vocabulary, centred: bool = False) -> torch.Tensor:
        """1 - cosine of text embeddings, (nouns, classes); `centred` makes it scipy's correlation distance."""
        words, classes = self._clip.text_embeddings(nouns), self._clip.text_embeddings(_prompts(vocabulary))
        if centred:
            words, classes = (embeddings - embeddings.mean(1, keepdim=True) for embeddings in (words, classes))
        return 1 - _cosines(words, classes).cpu()


def _prompts(vocabulary: Vocabulary) -> list[str]:
    return [entry.prompt for entry in vocabulary.classes]


def _cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    normalise = torch.nn.functional.normalize
    return normalise(one, dim=1) @ normalise(other, dim=1).T


def _without(prefix: str, caption: str) -> str:
    """A caption without its prefix, in any case."""
    return caption[len(prefix) :] if caption.lower().startswith(prefix.lower()) else caption
