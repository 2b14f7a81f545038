"""Whether the model, the training data and the validation data of a config speak of the same classes."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from pseudolabel.vocabulary import Vocabulary
from pseudolabel_train.errors import ConfigError

HEADS = ("decode_head", "auxiliary_head")


def check_heads(cfg: Config, loader: str, dataset: Any) -> None:
    """Make sure that every head has as many classes as a data set, background included.

    Labels beyond a head's classes stop training on a CPU and break a GPU's context; predictions beyond a data set's are
    counted nowhere.

    Raises:
        ConfigError: if a head has another number; the message has both, and the setting.
    """
    names = dataset.metainfo.get("classes")
    wrong = [(place, count) for place, count in _heads(cfg.model, "model") if names and count != len(names)]
    if wrong:
        told = ", ".join(f"{place}.num_classes is {count}" for place, count in wrong)
        fix = " ".join(f"{place}.num_classes={len(names)}" for place, _ in wrong)
        raise ConfigError(f"{told}, but {loader} has {_describe(dataset)}; say `cfg_options` {fix}, or give other data")


def check_same(train: Any, val: Any) -> None:
    """Make sure that a network is scored on the classes that it was trained on, in their order.

    Raises:
        ConfigError: if they differ in number, in names, or in what a mask's 0 is.
    """
    ours, theirs = train.metainfo.get("classes"), val.metainfo.get("classes")
    if not ours or not theirs:
        return
    both = f"train_dataloader has {_describe(train)}, val_dataloader {_describe(val)}"
    if len(ours) != len(theirs):
        raise ConfigError(f"{both}; both need the same")
    zero = [bool(dataset.metainfo.get("reduce_zero_label")) for dataset in (train, val)]
    if zero[0] != zero[1]:
        where = "train_dataloader" if zero[0] else "val_dataloader"
        raise ConfigError(
            f"{both}, but only in {where} is a mask's 0 no class (reduce_zero_label); set it on both sides, or name "
            "the same vocabulary, with background: false where there is none"
        )
    for label, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if not _is_same(one, other, label + zero[0], getattr(train, "vocabulary", None)):
            raise ConfigError(f"{both}, but class {label} is '{one}' in training and '{other}' in validation")


def _heads(model: Any, place: str) -> Iterator[tuple[str, int]]:
    """Place and number of classes of every head that tells it."""
    for name in HEADS:
        heads = model.get(name)
        for number, head in enumerate(heads if isinstance(heads, list | tuple) else [heads] if heads else []):
            if isinstance(head.get("num_classes"), int):
                yield f"{place}.{name}{f'.{number}' if isinstance(heads, list | tuple) else ''}", head["num_classes"]


def _describe(dataset: Any) -> str:
    names = dataset.metainfo["classes"]
    vocabulary = getattr(dataset, "vocabulary", None)
    origin = f"vocabulary '{vocabulary.name}'" if vocabulary is not None else type(dataset).__name__
    return f"{len(names)} classes ({origin}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _is_same(one: str, other: str, value: int, vocabulary: Vocabulary | None) -> bool:
    """Whether two names are one class; a vocabulary knows further spellings of its label `value`."""
    if _fold(one) == _fold(other):
        return True
    if vocabulary is None:
        return False
    return vocabulary.find(other) == value if value else vocabulary.find(other) is None


def _fold(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
