"""The small spaCy pipeline that ships with the package: parts of speech and lemmas of plain captions.

Sentences and their analysis are drawn together. Made-up nouns and adjectives among the words teach the pipeline to
go by place and ending where it does not know a word.
"""

import string
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import spacy
from rich.progress import Progress
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import fix_random_seed

from pseudolabel.shapes.world import BACKGROUNDS
from pseudolabel.vocabulary import load_vocabulary

WIDTH = 32
BATCH = 32
SENTENCES = 2000
SHARE = 0.5  # of everything that may or may not be said
MADE_UP = 0.2
ORDINARY = (
    "photo photograph picture image view drawing dog cat bird horse cow sheep car bus train boat plane bicycle "
    "motorbike bottle chair table sofa plant monitor man woman boy girl house tree street road field beach sky sun"
)
ADJECTIVES = (
    "red green blue yellow orange purple pink cyan brown black white grey dark light bright big large small tiny huge "
    "little striped dotted checkered wavy round flat old young empty full colourful beautiful"
)
DETERMINERS = "a an the this that some"
NUMBERS = "two three four five several many"
PREPOSITIONS = "on in near under beside behind above over with at by"
VERBS = {"sitting": "sit", "lying": "lie", "standing": "stand", "floating": "float", "running": "run"}

CLASS_WORDS = [(entry.name, *entry.synonyms) for entry in load_vocabulary("shapes").classes]
# Of Shapes; words that are adjectives as well, such as round, are none here.
KNOWN = [word for word in (*BACKGROUNDS, *chain(*CLASS_WORDS)) if word not in ADJECTIVES.split()]

Word = tuple[str, str, str]
"""A word, its part of speech and its lemma."""


def train_nouns(folder: Path, steps: int, seed: int) -> float:
    """Train and save the pipeline; returns the loss of the last step, summed over its sentences."""
    fix_random_seed(seed)
    rng = np.random.default_rng([seed, 3])
    pipeline = build_pipeline()
    examples = [draw_example(pipeline, rng) for _ in range(SENTENCES)]
    optimiser = pipeline.initialize(lambda: examples)
    loss = 0.0
    with Progress() as progress:
        for step in progress.track(range(steps), description="training the nouns"):
            losses: dict[str, float] = {}
            batch = [examples[i] for i in rng.integers(SENTENCES, size=BATCH)]
            pipeline.update(batch, sgd=optimiser, drop=0.1, losses=losses)
            loss = sum(losses.values())
            if step % 100 == 0:
                progress.console.print(f"nouns step {step} loss {loss:.2f}")
    pipeline.meta.update(
        name="shapes", description="Parts of speech and lemmas of captions of Shapes", license="Apache-2.0"
    )
    pipeline.to_disk(folder)
    return loss


def build_pipeline() -> Language:
    """Morphologizer and lemmatizer over one small encoder of word forms and their neighbours."""
    pipeline = spacy.blank("en")
    encoder = {"@architectures": "spacy.HashEmbedCNN.v2", "width": WIDTH, "depth": 2, "embed_size": 300}
    encoder |= {"window_size": 1, "maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None}
    pipeline.add_pipe("tok2vec", config={"model": encoder})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH, "upstream": "tok2vec"}
    tagger = {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}
    pipeline.add_pipe("morphologizer", config={"model": tagger})
    pipeline.add_pipe("trainable_lemmatizer", config={"model": tagger, "min_tree_freq": 1, "top_k": 3})
    return pipeline


def draw_example(pipeline: Language, rng: np.random.Generator) -> Example:
    words, parts, lemmas = (list(column) for column in zip(*draw_sentence(rng), strict=True))
    truth = Doc(pipeline.vocab, words=words, pos=parts, lemmas=lemmas)
    return Example(Doc(pipeline.vocab, words=words), truth)


def draw_sentence(rng: np.random.Generator) -> list[Word]:
    """Such as `a photograph of two red stars and a heart on grass` or `a dog is sitting near the big circle .`."""
    prefix: list[Word] = []
    if rng.random() < SHARE:
        prefix = [
            ("a", "DET", "a"),
            noun(pick(rng, ("photo", "photograph", "picture", "image"))),
            ("of", "ADP", "of"),
        ]
    sentence = prefix + draw_phrase(rng)
    for _ in range(rng.integers(3)):
        joint = ("and", "CCONJ", "and") if rng.random() < SHARE else (",", "PUNCT", ",")
        sentence += [joint, *draw_phrase(rng)]
    if not prefix and rng.random() < SHARE:
        verb = pick(rng, list(VERBS))
        sentence += [("is", "AUX", "be"), (verb, "VERB", VERBS[verb])]
    if rng.random() < SHARE:
        sentence += [same(rng, PREPOSITIONS, "ADP"), *draw_phrase(rng)]
    if rng.random() < SHARE:
        sentence.append((".", "PUNCT", "."))
    if rng.random() < SHARE:
        sentence[0] = (sentence[0][0].capitalize(), *sentence[0][1:])
    return sentence


def draw_phrase(rng: np.random.Generator) -> list[Word]:
    phrase: list[Word] = []
    many = rng.random() < SHARE / 2
    if rng.random() < SHARE:
        phrase.append(same(rng, NUMBERS, "NUM") if many else same(rng, DETERMINERS, "DET"))
    adjectives = [same(rng, ADJECTIVES, "ADJ") for _ in range(rng.integers(3))]
    return [*phrase, *adjectives, noun(draw_noun(rng), many)]


def same(rng: np.random.Generator, words: str, part: str) -> Word:
    word = pick(rng, words.split())
    return word, part, word


def draw_noun(rng: np.random.Generator) -> str:
    if rng.random() < MADE_UP:
        return spell(rng, 3, 8)
    return pick(rng, KNOWN if rng.random() < SHARE else ORDINARY.split())


def pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def spell(rng: np.random.Generator, shortest: int, longest: int) -> str:
    """A made-up word."""
    return "".join(rng.choice(list(string.ascii_lowercase), rng.integers(shortest, longest + 1)))


def noun(word: str, many: bool = False) -> Word:
    return plural(word) if many else word, "NOUN", word


def plural(word: str) -> str:
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
