"""Digests of a checkpoint's weights and of folders of files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash
from huggingface_hub import snapshot_download
from safetensors import safe_open

SUFFIX = ".safetensors"
HALF = "fp16"  # the variant that is taken where there are no plain files


def weights_digest(
    place: str,
    part: str = "",
    stem: str = "model",
    *,
    revision: str = "main",
    variant: str = "",
    without: tuple[str, ...] = (),
) -> str:
    """Digest of all tensors of a checkpoint: names, dtypes, shapes and values, as stored.

    It does not depend on the checkpoint's location, on how it is split into files, or on the precision in which it is
    loaded.

    Args:
        place: folder, file, or hub id of a checkpoint in the hub's cache.
        part: subfolder, such as `unet`.
        stem: name of the weights file without suffix.
        revision, variant: those with which the checkpoint was loaded from the hub.
        without: prefixes of the names of tensors that are left out.

    Raises:
        FileNotFoundError: if there are no safetensors files.
    """
    if Path(place).is_file():
        return _combined([Path(place)], without)
    folders = [Path(place)] if Path(place).is_dir() else _cached(place, revision)
    files = next(filter(None, (_find(folder / part, stem, variant) for folder in folders)), [])
    if not files:
        raise FileNotFoundError(f"no {stem}{SUFFIX} of '{place}' in '{folders[0] / part}'")
    return _combined(files, without)


def _combined(files: list[Path], without: tuple[str, ...]) -> str:
    digests = sorted(digest for file in files for digest in _digests(file, without))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """Digest of the relative paths and the bytes of all files below a folder, except `__pycache__`."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {xxhash.xxh3_128_hexdigest(path.read_bytes())}"
        for path in _files(folder)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _cached(name: str, revision: str) -> list[Path]:
    """Folders of a hub checkpoint in the cache: that of the revision, then the others, newest first.

    The others matter because transformers may load a safetensors conversion from a different revision.
    """
    folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime, reverse=True)
    return [folder, *(other for other in others if other != folder)]


def _find(folder: Path, stem: str, variant: str) -> list[Path]:
    """The weights file or its parts, of the variant if it exists; else all safetensors files of the folder.

    Without a variant, the plain files, or else those of fp16.
    """
    for name in [f"{stem}.{variant}", stem] if variant else [stem, f"{stem}.{HALF}"]:
        single = folder / f"{name}{SUFFIX}"
        files = [single] if single.exists() else sorted(folder.glob(f"{name}-*-of-*{SUFFIX}"))
        if files:
            return files
    return sorted(folder.glob(f"*{SUFFIX}"))


def _digests(file: Path, without: tuple[str, ...]) -> Iterator[str]:
    with safe_open(str(file), framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (not a mapping)
            if not name.startswith(without):
                tensor = tensors.get_tensor(name)
                values = tensor.contiguous().view(-1).view(torch.uint8).numpy()
                yield f"{name} {tensor.dtype} {tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(values)}"
