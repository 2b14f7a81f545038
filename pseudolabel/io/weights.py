"""What a checkpoint's weights are, wherever they lie."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash
from huggingface_hub import snapshot_download
from safetensors import safe_open

SUFFIX = ".safetensors"


def weights_digest(
    place: str,
    part: str = "",
    stem: str = "model",
    *,
    revision: str = "main",
    variant: str = "",
    without: tuple[str, ...] = (),
) -> str:
    """Digest of all tensors of a checkpoint that has been loaded: names, types, shapes and values, as stored.

    It does not depend on where the checkpoint lies, on how it is split into files, or on the precision that it is
    loaded in.

    Args:
        place: folder, or hub id of a checkpoint in the hub's cache.
        part: subfolder, such as `unet`.
        stem: name of the weights file without suffix.
        revision, variant: those that it was loaded with from the hub.
        without: tensors whose names begin so are left out.

    Raises:
        FileNotFoundError: if there are no safetensors files.
    """
    folders = [Path(place)] if Path(place).is_dir() else _cached(place, revision)
    files = next(filter(None, (_find(folder / part, stem, variant) for folder in folders)), [])
    if not files:
        raise FileNotFoundError(f"no {stem}{SUFFIX} of '{place}' in '{folders[0] / part}'")
    digests = sorted(digest for file in files for digest in _digests(file, without))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """Digest of the relative names and the bytes of all files below a folder."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {xxhash.xxh3_128_hexdigest(path.read_bytes())}"
        for path in _files(folder)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _cached(name: str, revision: str) -> list[Path]:
    """Folders of a hub checkpoint in the cache, where loading has put it: the revision's, then the newest others.

    For transformers may take a conversion to safetensors from a revision of its own.
    """
    folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime, reverse=True)
    return [folder, *(other for other in others if other != folder)]


def _find(folder: Path, stem: str, variant: str) -> list[Path]:
    """The file, or the files that it is split into, in the variant if there is one; else what a config may name."""
    for name in [f"{stem}.{variant}", stem] if variant else [stem]:
        whole = folder / f"{name}{SUFFIX}"
        files = [whole] if whole.exists() else sorted(folder.glob(f"{name}-*-of-*{SUFFIX}"))
        if files:
            return files
    return sorted(folder.glob(f"*{SUFFIX}"))


def _digests(file: Path, without: tuple[str, ...]) -> Iterator[str]:
    with safe_open(str(file), framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (no mapping)
            if not name.startswith(without):
                tensor = tensors.get_tensor(name)
                values = tensor.contiguous().view(-1).view(torch.uint8).numpy()
                yield f"{name} {tensor.dtype} {tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(values)}"
