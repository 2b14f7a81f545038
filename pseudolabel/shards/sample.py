"""What a shard holds of one sample: `.jpg .cam.npz .json` in CAM shards, `.jpg .png .json` in the others."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pseudolabel.errors import SampleError
from pseudolabel.io.images import mask_image
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.tar import Members
from pseudolabel.records import BACKGROUND, IGNORE, LabelMap, Sample, ScoreMaps
from pseudolabel.shards.confidence import judge
from pseudolabel.vocabulary import Vocabulary

JPEG_QUALITY = 95
DAMAGED = "damaged"  # status of a sample that does not hold what it should
CAM_MEMBERS = frozenset({"jpg", "cam.npz", "json"})
MASK_MEMBERS = frozenset({"jpg", "png", "json"})


def encode_image(sample: Sample) -> bytes:
    """The source's own bytes where they are an upright RGB JPEG, else an upright re-encoding of the same size."""
    if sample.original is not None:
        return sample.original
    buffer = io.BytesIO()
    sample.image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def encode(sample: Sample, result: ScoreMaps | LabelMap, kind: str, vocabulary: Vocabulary) -> Members:
    """Members of a shard: of CAMs where the result is score maps, else of masks or, by `kind`, of segments."""
    if isinstance(result, ScoreMaps):
        return encode_cams(sample, result, vocabulary)
    found = tuple(int(label) for label in np.unique(result.labels) if label not in (BACKGROUND, IGNORE))
    names = [] if kind == "segments" else [vocabulary.names[label] for label in found]
    fields = _describe(result.key, found, names, result.labels.shape)
    return encode_mask(encode_image(sample), result, fields | ({} if kind == "segments" else judge(result, found)))


def encode_cams(sample: Sample, scores: ScoreMaps, vocabulary: Vocabulary) -> Members:
    """Members of a CAM shard."""
    buffer = io.BytesIO()
    final: dict[str, Any] = {"final": np.array(True)} if scores.final else {}
    np.savez(buffer, maps=scores.maps, classes=np.array(scores.classes, np.int64), **final)
    names = [vocabulary.names[index] for index in scores.classes]
    fields = _describe(scores.key, scores.classes, names, scores.size)
    return {"jpg": encode_image(sample), "cam.npz": buffer.getvalue(), "json": encode_json(fields)}


def _describe(key: str, classes: tuple[int, ...], names: list[str], size: tuple[int, ...]) -> dict[str, Any]:
    return {"key": key, "classes": list(classes), "names": names, "height": size[0], "width": size[1]}


@dataclass(frozen=True)
class CamSample:
    """A sample of a CAM shard: the JPEG's bytes, the score maps, and the JSON member's fields."""

    jpeg: bytes
    scores: ScoreMaps
    fields: dict[str, Any]


def decode_cams(key: str, members: Members) -> CamSample:
    """Raises SampleError where a member is missing or unreadable; nothing is unpickled."""
    _check(key, members, CAM_MEMBERS)
    try:
        fields = json.loads(members["json"])
        with np.load(io.BytesIO(members["cam.npz"]), allow_pickle=False) as arrays:
            maps, classes = arrays["maps"], tuple(int(index) for index in arrays["classes"])
            final = are_final(arrays)
        scores = ScoreMaps(key, classes, maps, (int(fields["height"]), int(fields["width"])), final)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise SampleError(DAMAGED, f"sample '{key}': {error!r}") from error
    if maps.ndim != 3 or len(maps) != len(classes):
        raise SampleError(DAMAGED, f"sample '{key}': maps of shape {maps.shape} for {len(classes)} classes")
    return CamSample(members["jpg"], scores, fields)


def are_final(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the maps of a `.cam.npz` are `ScoreMaps.final`."""
    return "final" in arrays and bool(arrays["final"])


def encode_mask(jpeg: bytes, mask: LabelMap, fields: dict[str, Any]) -> Members:
    """Members of a mask shard; the mask is a palette PNG, and the JSON gains the share of ignored pixels."""
    buffer = io.BytesIO()
    mask_image(mask.labels).save(buffer, "PNG")
    ignored = round(float((mask.labels == IGNORE).mean()), 6)
    return {"jpg": jpeg, "png": buffer.getvalue(), "json": encode_json({**fields, "ignored": ignored})}


def _check(key: str, members: Members, wanted: frozenset[str]) -> None:
    if set(members) != wanted:
        raise SampleError(DAMAGED, f"sample '{key}' has members {sorted(members)} instead of {sorted(wanted)}")
