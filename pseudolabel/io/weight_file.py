"""Explain why a file does not hold weights, and how to get the weights."""

import codecs
import json
import os
import tarfile
import zipfile
from pathlib import Path

_HEAD = 512
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")
_ZIP, _SAFETENSORS = b"PK\x03\x04", ".safetensors"
_LENGTH = 8  # first bytes of a safetensors file: the length of its header
_SHOWN = 40


def explain(path: str | os.PathLike[str]) -> str | None:
    """Say what a file is if it cannot hold weights, as the end of a sentence that begins with its name.

    Args:
        path: a local file that should be written by `torch.save` or safetensors, or a file of a model folder.

    Returns:
        For example `is a web page, ...; download the file itself`; None if no problem is found.

    Raises:
        OSError: if the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return "is a folder; give a file in it"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty; download or copy it again"
    if head.startswith(_LFS):
        return "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`, or download it from its page"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return "is a web page that was saved instead of the file; download the file itself, for example in a browser"
    if path.suffix == _SAFETENSORS:
        return _explain_safetensors(path, head)
    if head.startswith(_ZIP):
        return _explain_zip(path)
    if tarfile.is_tarfile(path):
        return "is a tar archive; unpack it and give the weights file in it"
    text = _text(head)
    if text is not None and path.suffix not in (".json", ".txt"):
        return f"is a text file that begins with '{text[:_SHOWN]}'; download the file itself"
    return None


def explain_folder(folder: str | os.PathLike[str]) -> str:
    """One line for each file of a model folder that is not what it should be; empty if none is found."""
    lines = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.suffix in (_SAFETENSORS, ".json", ".txt", ".bin"):
            what = explain(path)
            lines += [f"'{path}' {what}"] if what else []
    return "\n".join(lines)


def _explain_zip(path: Path) -> str | None:
    """`torch.save` writes zip files. Their directory is at the end, so a file that is cut off has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is cut off; download or copy it again"
    is_checkpoint = any(name.endswith("/data.pkl") for name in names)
    return (
        None if is_checkpoint else "is a zip archive, not from `torch.save`; unpack it and give the weights file in it"
    )


def _explain_safetensors(path: Path, head: bytes) -> str | None:
    """The first bytes hold the header's length; the header holds the end of the last tensor."""
    text = _text(head)
    if text is not None:
        return f"is a text file that begins with '{text[:_SHOWN]}'; download the file itself"
    size = path.stat().st_size
    length = int.from_bytes(head[:_LENGTH], "little")
    if size < _LENGTH or (head[_LENGTH:].startswith(b"{") and size < _LENGTH + length + _data_length(path, length)):
        return "is cut off; download or copy it again"
    return None


def _data_length(path: Path, length: int) -> int:
    """Number of bytes of all tensors according to the header; 0 if the header is invalid."""
    with path.open("rb") as file:
        file.seek(_LENGTH)
        try:
            header = json.loads(file.read(length))
            return max((int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return 0


def _text(head: bytes) -> str | None:
    """The first line if the bytes are printable text, else None."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # incremental: the last character may be cut
    except UnicodeDecodeError:
        return None
    is_text = all(character.isprintable() or character in "\r\n\t" for character in text)
    return text.strip().partition("\n")[0].strip() if is_text else None
