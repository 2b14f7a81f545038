"""Check that model, training data and validation data of a config have the same classes."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from pseudolabel.vocabulary import Vocabulary
from pseudolabel_train.errors import ConfigError

HEADS = ("decode_head", "auxiliary_head")


def check_heads(cfg: Config, loader: str, dataset: Any) -> None:
    """Check that every head has as many classes as a data set, background included.

    Labels beyond a head's classes end training on a CPU and corrupt a GPU's context; predictions beyond a data set's
    classes are not counted.

    Raises:
        ConfigError: if the numbers differ; the message has both and the setting.
    """
    names = dataset.metainfo.get("classes")
    wrong = [(place, count) for place, count in _heads(cfg.model, "model") if names and count != len(names)]
    if wrong:
        found = ", ".join(f"{place}.num_classes is {count}" for place, count in wrong)
        fix = " ".join(f"{place}.num_classes={len(names)}" for place, _ in wrong)
        raise ConfigError(f"{found}, but {loader} has {_describe(dataset)}; set `cfg_options` {fix}, or use other data")


def check_same(train: Any, val: Any) -> None:
    """Check that validation has the classes of training, in the same order.

    Raises:
        ConfigError: if number, names, or the meaning of 0 in a mask differ.
    """
    ours, theirs = train.metainfo.get("classes"), val.metainfo.get("classes")
    if not ours or not theirs:
        return
    both = f"train_dataloader has {_describe(train)}, val_dataloader {_describe(val)}"
    if len(ours) != len(theirs):
        raise ConfigError(f"{both}; both need the same number")
    zero = [bool(dataset.metainfo.get("reduce_zero_label")) for dataset in (train, val)]
    if zero[0] != zero[1]:
        where = "train_dataloader" if zero[0] else "val_dataloader"
        raise ConfigError(
            f"{both}, but only in {where} is 0 in a mask no class (reduce_zero_label); set it for both, or use "
            "the same vocabulary, with background: false if there is no background"
        )
    for label, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if not _is_same(one, other, label + zero[0], getattr(train, "vocabulary", None)):
            raise ConfigError(f"{both}, but class {label} is '{one}' in training and '{other}' in validation")


def _heads(model: Any, place: str) -> Iterator[tuple[str, int]]:
    """Setting and number of classes of every head that has `num_classes`."""
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
    """Whether two names mean the same class; a vocabulary knows synonyms of its label `value`."""
    if _fold(one) == _fold(other):
        return True
    if vocabulary is None:
        return False
    return vocabulary.find(other) == value if value else vocabulary.find(other) is None


def _fold(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
