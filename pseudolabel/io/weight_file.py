"""Files that should hold weights and are something else: what they are, and how to get the weights."""

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
_LENGTH = 8  # bytes of a safetensors file that tell the length of its header
_SHOWN = 40


def explain(path: str | os.PathLike[str]) -> str | None:
    """What a file is where it cannot hold weights, as the end of a sentence that begins with its name.

    Args:
        path: a local file, as `torch.save` or safetensors would have written it, or of a model's folder.

    Returns:
        Such as `is a web page, ...; download the file itself`; None where nothing speaks against it.

    Raises:
        OSError: if it cannot be read.
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
        return "is a web page, which came in place of the file; download the file itself, in a browser if need be"
    if path.suffix == _SAFETENSORS:
        return _explain_safetensors(path, head)
    if head.startswith(_ZIP):
        return _explain_zip(path)
    if tarfile.is_tarfile(path):
        return "is a tar archive; unpack it and give the file of weights in it"
    text = _text(head)
    if text is not None and path.suffix not in (".json", ".txt"):
        return f"is a text that begins with '{text[:_SHOWN]}', no weights; download the file itself"
    return None


def explain_folder(folder: str | os.PathLike[str]) -> str:
    """Which files of a model's folder are something else, one line each; empty where none is known to be."""
    lines = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.suffix in (_SAFETENSORS, ".json", ".txt", ".bin"):
            what = explain(path)
            lines += [f"'{path}' {what}"] if what else []
    return "\n".join(lines)


def _explain_zip(path: Path) -> str | None:
    """`torch.save` writes zips; the list of a zip's parts comes last."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is cut off; download or copy it again"
    is_checkpoint = any(name.endswith("/data.pkl") for name in names)
    return (
        None if is_checkpoint else "is a zip archive, not of torch.save; unpack it and give the file of weights in it"
    )


def _explain_safetensors(path: Path, head: bytes) -> str | None:
    """The first bytes tell the header's length, and the header where the last tensor ends."""
    text = _text(head)
    if text is not None:
        return f"is a text that begins with '{text[:_SHOWN]}', no weights; download the file itself"
    size = path.stat().st_size
    length = int.from_bytes(head[:_LENGTH], "little")
    if size < _LENGTH or (head[_LENGTH:].startswith(b"{") and size < _LENGTH + length + _data_length(path, length)):
        return "is cut off; download or copy it again"
    return None


def _data_length(path: Path, length: int) -> int:
    """Bytes of all tensors, by a header of `length` bytes; 0 where it is not to be understood."""
    with path.open("rb") as file:
        file.seek(_LENGTH)
        try:
            header = json.loads(file.read(length))
            return max((int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return 0


def _text(head: bytes) -> str | None:
    """The first line, where the bytes are printable text."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a character may go on beyond the head
    except UnicodeDecodeError:
        return None
    is_text = all(character.isprintable() or character in "\r\n\t" for character in text)
    return text.strip().partition("\n")[0].strip() if is_text else None
