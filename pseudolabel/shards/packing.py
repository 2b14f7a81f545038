"""How the samples of a unit become one file: a WebDataset tar, or JSON lines."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pseudolabel.io.tar import Members, read_tar, write_tar


@dataclass(frozen=True)
class Packing:
    """A format of files, whose bytes depend on the samples alone.

    Attributes:
        suffix: of the files' names.
        write: writes (key, {extension: bytes}) pairs.
        read: reads them back in their order.
    """

    suffix: str
    write: Callable[[BinaryIO, Iterable[tuple[str, Members]]], None]
    read: Callable[[BinaryIO], Iterator[tuple[str, Members]]]


class DigestedFile:
    """A file that is written from its beginning to its end, with the size and the digest of its bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_jsonl(file: BinaryIO, samples: Iterable[tuple[str, Members]]) -> None:
    """Write samples of one member each, `json`, an object; its line begins with the key."""
    for key, members in samples:
        line = json.dumps({"key": key, **json.loads(members["json"])}, ensure_ascii=False)
        file.write(line.encode() + b"\n")


def read_jsonl(file: BinaryIO) -> Iterator[tuple[str, Members]]:
    """Read them back."""
    for line in file:
        fields = json.loads(line)
        key = fields.pop("key")
        yield key, {"json": json.dumps(fields, ensure_ascii=False).encode()}


def write_caption_lines(file: BinaryIO, samples: Iterable[tuple[str, Members]]) -> None:
    """Write samples whose members are captions by class name, one line of `key`, `class` and `caption` each."""
    for key, members in samples:
        for name, caption in members.items():
            line = json.dumps({"key": key, "class": name, "caption": caption.decode()}, ensure_ascii=False)
            file.write(line.encode() + b"\n")


def read_caption_lines(file: BinaryIO) -> Iterator[tuple[str, Members]]:
    """Read them back; the lines of a sample follow each other."""
    for key, lines in itertools.groupby(map(json.loads, file), lambda line: line["key"]):
        yield key, {line["class"]: line["caption"].encode() for line in lines}


TAR = Packing("tar", write_tar, read_tar)
JSONL = Packing("jsonl", write_jsonl, read_jsonl)
CAPTIONS = Packing("jsonl", write_caption_lines, read_caption_lines)
