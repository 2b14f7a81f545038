"""The settings that masks of `segment` depend on: a mask made with the same ones is not made again."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pseudolabel.config import Experiment
from pseudolabel.io.json_text import digest
from pseudolabel.io.weights import files_digest
from pseudolabel.stages.method import chosen_method
from pseudolabel.vocabulary import load_vocabulary, typed_names


def digest_settings(experiment: Experiment, classes: str | None, sharpen: bool) -> str:
    """A short digest of everything that a mask depends on, except its image, batches, precision, engines and devices.

    Models count by their names on the hub, or by their files' contents, so that none has to be loaded if nothing is
    left to do.

    Raises:
        VocabularyError: if `classes` names no vocabulary.
    """
    model = replace(experiment.model, name=_identity(experiment.model.name), compile=False, dtype="auto")
    method, method_settings = chosen_method(experiment)
    settings: dict[str, Any] = {
        "method": method.name,
        "plugin": method.source,
        method.name: _identified(asdict(method_settings)),
        "model": asdict(model) if method.needs_model else None,
        "seed": experiment.work.seed,
        "classes": classes,
    }
    is_named = classes is not None and classes != "auto"
    if is_named:
        settings["vocabulary"] = asdict(load_vocabulary(str(classes)))
    if not is_named or typed_names(str(classes)) is None:  # otherwise nothing is guessed
        guesses, captions = experiment.filter, replace(experiment.captions, source="none", batch=1)
        guesses = replace(guesses, clip=_identity(guesses.clip), spacy=_identity(guesses.spacy))
        settings["filter"] = asdict(guesses)
        settings["captions"] = asdict(replace(captions, model=_identity(captions.model)))
    if method.kind(method_settings) == "cams":
        settings["decision"] = (
            asdict(replace(experiment.crf, engine="auto")) if sharpen else experiment.evaluate.threshold
        )
    return digest(settings)[:16]


def _identified(settings: dict[str, Any]) -> dict[str, Any]:
    """A method's settings with digests of models' folders instead of their names, and without the CRF's engine."""
    return {
        name: _identified(value) if isinstance(value, dict) else _identity(value) if isinstance(value, str) else value
        for name, value in settings.items()
        if name != "engine"
    }


def _identity(name: str) -> str:
    """A name on the hub as it is; for a folder, a digest of its files, wherever it is."""
    return files_digest(Path(name)) if name and Path(name).is_dir() else name
