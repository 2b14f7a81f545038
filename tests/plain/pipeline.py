"""A small spaCy pipeline, trained in seconds on a few captions."""

from collections.abc import Sequence
from pathlib import Path

import spacy
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import fix_random_seed

# word/part of speech/lemma/relation/head's place
CAPTIONS = """
a/DET/a/det/1 dog/NOUN/dog/nsubj/2 runs/VERB/run/ROOT/2 on/ADP/on/prep/2 the/DET/the/det/5 grass/NOUN/grass/pobj/3
two/NUM/two/nummod/1 dogs/NOUN/dog/nsubj/2 run/VERB/run/ROOT/2 near/ADP/near/prep/2 a/DET/a/det/5 star/NOUN/star/pobj/3
a/DET/a/det/2 dining/NOUN/dining/compound/2 table/NOUN/table/ROOT/2 with/ADP/with/prep/2 cups/NOUN/cup/pobj/3
the/DET/the/det/2 dining/NOUN/dining/compound/2 tables/NOUN/table/nsubj/3 stand/VERB/stand/ROOT/3
a/DET/a/det/1 man/NOUN/man/ROOT/1 with/ADP/with/prep/1 a/DET/a/det/4 cup/NOUN/cup/pobj/2
men/NOUN/man/ROOT/0 with/ADP/with/prep/0 a/DET/a/det/3 dog/NOUN/dog/pobj/1
men/NOUN/man/nsubj/1 run/VERB/run/ROOT/1 on/ADP/on/prep/1 the/DET/the/det/4 grass/NOUN/grass/pobj/2
a/DET/a/det/2 red/ADJ/red/amod/2 star/NOUN/star/ROOT/2 on/ADP/on/prep/2 grass/NOUN/grass/pobj/3
red/ADJ/red/amod/1 stars/NOUN/star/ROOT/1 near/ADP/near/prep/1 Rome/PROPN/Rome/pobj/2
a/DET/a/det/1 man/NOUN/man/nsubj/2 gives/VERB/give/ROOT/2 the/DET/the/det/4 dog/NOUN/dog/dative/2 cups/NOUN/cup/dobj/2
the/DET/the/det/1 man/NOUN/man/nsubj/2 gives/VERB/give/ROOT/2 a/DET/a/det/4 dog/NOUN/dog/dative/2 stars/NOUN/star/dobj/2
"""
TAGGING = ("morphologizer", "trainable_lemmatizer")
RARE = {"trainable_lemmatizer": {"min_tree_freq": 1}, "parser": {"min_action_freq": 1}}  # learn what is seen once, too
EPOCHS = 30


def train_pipeline(folder: Path, parts: Sequence[str] = TAGGING) -> Path:
    """Train the parts on `CAPTIONS` until they know them, and save the pipeline."""
    fix_random_seed(0)
    pipeline = spacy.blank("en")
    for part in parts:
        pipeline.add_pipe(part, config=RARE.get(part, {}))
    examples = [_example(pipeline, line) for line in CAPTIONS.strip().splitlines()]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(EPOCHS):
        pipeline.update(examples, sgd=optimizer)
    pipeline.to_disk(folder)
    return folder


def _example(pipeline: spacy.Language, line: str) -> Example:
    words, parts, lemmas, relations, heads = zip(*(word.split("/") for word in line.split()), strict=True)
    truth = Doc(
        pipeline.vocab,
        words=list(words),
        pos=list(parts),
        lemmas=list(lemmas),
        deps=list(relations),
        heads=[int(head) for head in heads],
    )
    return Example(Doc(pipeline.vocab, words=list(words)), truth)
