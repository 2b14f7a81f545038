"""The vocabulary of an experiment, given or chosen by its data."""

import logging

from pseudolabel.config import Experiment
from pseudolabel.sources.class_folders import vocabulary_of_folders
from pseudolabel.vocabulary import Vocabulary, load_vocabulary

log = logging.getLogger(__name__)


def choose_vocabulary(experiment: Experiment, say: bool = False) -> Vocabulary:
    """The experiment's vocabulary; if none is given, that of the class folders, or `voc` for other data.

    Args:
        experiment: names the vocabulary and the source.
        say: whether to log how the vocabulary was chosen.

    Raises:
        VocabularyError: as `load_vocabulary` does.
        SourceError: as `vocabulary_of_folders` does.
    """
    if experiment.vocabulary:
        return load_vocabulary(experiment.vocabulary)
    # Where labels come from elsewhere, folders may have any names.
    if experiment.source.kind != "folder" or experiment.source.labels != "xml" or not experiment.source.path:
        return load_vocabulary("voc")
    vocabulary, how = vocabulary_of_folders(experiment.source)
    if say:
        log.info("%s", how)
    return vocabulary
