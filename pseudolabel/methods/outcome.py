"""What is wrong with a method's result, before it is written."""

from typing import Any

import numpy as np

from pseudolabel.records import IGNORE, Kind, LabelMap, Sample, ScoreMaps

ROUNDING = 1e-5  # how far a float32 probability may be outside [0, 1]


def problem_of(outcome: Any, sample: Sample, kind: Kind, last: int) -> str:
    """Why a result cannot be written for a sample; empty if it can.

    Args:
        outcome: what the method gives.
        sample: what it was given.
        kind: what the method produces: score maps for `cams`, else label maps.
        last: largest index of the vocabulary, and largest label of `masks`.
    """
    wanted = ScoreMaps if kind == "cams" else LabelMap
    if not isinstance(outcome, wanted):
        return f"a {type(outcome).__name__}; a method that produces {kind} gives a {wanted.__name__}"
    if outcome.key != sample.key:
        return f"`key` is {outcome.key!r}; give sample.key, '{sample.key}'"
    if isinstance(outcome, ScoreMaps):
        return _problem_of_scores(outcome, sample, last)
    return _problem_of_labels(outcome, sample, IGNORE if kind == "segments" else last)


def _problem_of_scores(scores: ScoreMaps, sample: Sample, last: int) -> str:
    if not _are_ints(scores.size) or scores.size != sample.size:
        return f"`size` is {scores.size}; give sample.size, {sample.size}: height, width"
    classes = scores.classes
    if not _are_ints(classes) or len(set(classes)) < len(classes) or not {*classes} <= {*range(1, last + 1)}:
        return f"`classes` is {classes!r}; give a tuple of different int from 1 to {last}, such as sample.classes"
    count, maps = len(classes), scores.maps
    if problem := _problem_of_array("maps", maps, np.float16, f"({count}, h, w)"):
        return problem
    if maps.ndim != 3 or len(maps) != count or 0 in maps.shape[1:]:
        return f"`maps` has the shape {maps.shape}; give (C, h, w) with a map for each of the {count} classes"
    return _problem_of_range("maps", maps, 0.0)


def _problem_of_labels(mask: LabelMap, sample: Sample, last: int) -> str:
    labels = {"labels": mask.labels} | ({} if mask.best is None else {"best": mask.best})
    confidence = {} if mask.confidence is None else {"confidence": mask.confidence}
    for name, array in {**labels, **confidence}.items():
        dtype = np.uint8 if name in labels else np.float32
        if problem := _problem_of_array(name, array, dtype, f"{sample.size}"):
            return problem
        if array.shape != sample.size:
            return f"`{name}` has the shape {array.shape}; give that of the image, {sample.size}: height, width"
    for name, array in labels.items():
        if (unknown := array[(array > last) & (array != IGNORE)]).size:
            return f"`{name}` has the value {unknown[0]}; the last class of the vocabulary is {last}"
    problems = (_problem_of_range(name, array, ROUNDING) for name, array in confidence.items())
    return next(problems, "")


def _are_ints(values: Any) -> bool:
    """Whether this is a tuple of Python's integers; others are not ready for JSON."""
    return isinstance(values, tuple) and all(isinstance(value, int) for value in values)


def _problem_of_array(name: str, array: Any, dtype: type, shape: str) -> str:
    if isinstance(array, np.ndarray) and array.dtype == dtype:
        return ""
    found = f"{array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
    return f"`{name}` is {found}; give a numpy array, {dtype.__name__} {shape}"


def _problem_of_range(name: str, array: np.ndarray, tolerance: float) -> str:
    if not np.isfinite(array).all():
        return f"`{name}` holds {'NaN' if np.isnan(array).any() else 'infinity'}; give values in [0, 1]"
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    is_inside = low >= -tolerance and high <= 1 + tolerance
    return "" if is_inside else f"`{name}` has values from {low:g} to {high:g}; give values in [0, 1]"
