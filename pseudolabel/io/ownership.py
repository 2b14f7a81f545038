"""Track which files of an output folder this package wrote, and never overwrite any other file."""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pseudolabel.errors import NotOursError, OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.io.left_out import LeftOut

MANIFEST = ".pseudolabel.manifest"
_MANIFEST_NAME = re.compile(rf"{re.escape(MANIFEST)}(-\d+)?")
OWN = "written by pseudolabel"
NAMED = 3  # files that a message lists by name


class OwnFiles:
    """The files below an output folder that this package wrote, according to the manifests in the folder.

    A manifest holds one JSON line per file, with its name and sha256. The line is written before the file appears, so
    every file is known even if the process is killed at any instant. A file that has changed since, such as a mask
    corrected by hand, belongs to the user.

    Args:
        folder: the output folder; it need not exist yet.
        rank: index of the process; each process writes its own manifest.
        option: the option that names the folder, for messages.
    """

    def __init__(self, folder: Folder, rank: int = 0, option: str = "`out`") -> None:
        self.folder, self.option = folder, option
        self._manifest = f"{MANIFEST}-{rank}" if rank else MANIFEST
        self._hashes: dict[str, set[str]] = {}
        self._load()

    def names(self) -> frozenset[str]:
        """Names of all files that this package ever wrote here, whether changed since or not."""
        return frozenset(self._hashes)

    def obstacle(self, name: str) -> str:
        """Why a file with this name can never be written here, such as a name that is too long; empty if it can."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"'{name}' is outside '{self.folder.path}'"
        if self.folder.local is None:
            return ""
        target = self.folder.local / name
        try:
            target.lstat()
            above = target.parent
        except (FileNotFoundError, NotADirectoryError):
            above = next(folder for folder in target.parents if folder.exists())
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                return f"'{target}' cannot be written: {error.strerror or error}"
            above = self.folder.local
        if not above.is_dir():
            return f"'{above}' is a file where a folder is needed for '{name}'; move it or choose another {self.option}"
        is_below = above.is_relative_to(self.folder.local)  # else the output folder does not exist yet
        if is_below and not above.resolve().is_relative_to(self.folder.local.resolve()):
            return f"'{above}' is a link to a place outside '{self.folder.path}'; remove it"
        longest = os.pathconf(above, "PC_NAME_MAX")
        if too_long := [part for part in target.parts if len(os.fsencode(part)) > longest]:
            return f"the name '{too_long[0]}' is too long: {len(os.fsencode(too_long[0]))} bytes of at most {longest}"
        return ""

    def check(self, names: Iterable[str]) -> None:
        """Check that writing these files would overwrite only files of this package.

        Raises:
            NotOursError: if one exists that this package did not write, or that has changed since.
        """
        self._refuse(dict.fromkeys(names, ""))

    def _refuse(self, wanted: Mapping[str, str]) -> None:
        """Raise if a file exists that is not ours, unless its sha256 is the one that would be written."""
        strange = {name: own for name, own in wanted.items() if not self._is_free(name, own)}
        if strange:
            self._load()  # another process may have written it meanwhile
        if strange := {name: own for name, own in strange.items() if not self._is_free(name, own)}:
            shown = ", ".join(map(repr, list(strange)[:NAMED]))
            rest = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
            what = "a file that" if len(strange) == 1 else f"{len(strange)} files that"
            raise NotOursError(
                f"'{self.folder.path}' holds {what} pseudolabel did not write, or that changed since, and "
                f"would overwrite: {shown}{rest}; choose another {self.option}, or move what is there"
            )

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files in the order given; each one appears only when it is complete.

        Raises:
            NotOursError: if one would replace a file that is not ours.
            OutputError: if one cannot be written.
        """
        self.note({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
        for name, data in files.items():
            self.folder.write_bytes(name, data)

    def note(self, hashes: Mapping[str, str]) -> None:
        """Record files by name and sha256 in the manifest, before they are put into the folder.

        Raises:
            NotOursError: if one would replace a file that is not ours.
            OutputError: if a file name is invalid, or the manifest cannot be written.
        """
        for name in hashes:
            if obstacle := self.obstacle(name):
                raise OutputError(obstacle)
        self._refuse(hashes)
        new = {name: own for name, own in hashes.items() if own not in self._hashes.get(name, ())}
        if new:
            lines = (json.dumps({"file": name, "sha256": own}, ensure_ascii=False) for name, own in new.items())
            self.folder.append(self._manifest, "".join(f"{line}\n" for line in lines).encode())
        for name, own in new.items():
            self._hashes.setdefault(name, set()).add(own)

    def _is_free(self, name: str, own: str = "") -> bool:
        """Whether the name is unused, or its file is unchanged since we wrote it, or has this sha256."""
        if self.folder.local is not None:
            try:
                mode = (self.folder.local / name).lstat().st_mode
            except OSError as error:
                return error.errno in (errno.ENOENT, errno.ENOTDIR)
            if not stat.S_ISREG(mode):
                return False
        elif not self.folder.exists(name):
            return True
        known = {*self._hashes.get(name, ()), own}
        return known != {""} and hashlib.sha256(self.folder.read_bytes(name)).hexdigest() in known

    def _load(self) -> None:
        for name in self.folder.names():
            if _MANIFEST_NAME.fullmatch(name) and self._is_plain(name):
                self._read(self.folder.read_bytes(name))

    def _is_plain(self, name: str) -> bool:
        """Whether it is a regular file; a link or a folder is never our manifest."""
        return self.folder.local is None or stat.S_ISREG((self.folder.local / name).lstat().st_mode)

    def _read(self, data: bytes) -> None:
        for line in data.splitlines():
            try:
                entry = json.loads(line)
                self._hashes.setdefault(entry["file"], set()).add(entry["sha256"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # cut off when a run was killed; its file was not written


def own_files_beside(target: str, option: str = "`out`") -> tuple[OwnFiles, str]:
    """For a command that writes one file: the `OwnFiles` of its folder, and its name there."""
    path, _, name = target.rpartition("/")
    return OwnFiles(Folder(path or ("/" if target.startswith("/") else ".")), option=option), name


def write_own(target: str, data: bytes, option: str = "`out`") -> None:
    """Write one file, unless it would replace a file that this package did not write.

    Raises:
        NotOursError: if it would.
        OutputError: if it cannot be written.
    """
    files, name = own_files_beside(target, option)
    files.folder.prepare()
    files.write({name: data})


def without_own_files(root: str, names: Sequence[str], left_out: LeftOut) -> tuple[list[str], LeftOut]:
    """Drop the files that this package wrote from what `find_images` found, and count them as left out.

    A file is ours if a manifest in the root, or in a folder between the root and the file, names it.
    """
    notes: dict[str, list[tuple[str, frozenset[str]]]] = {"": []}  # by folder: each manifest's prefix and names

    def notes_of(folder: str) -> list[tuple[str, frozenset[str]]]:
        if folder not in notes:
            own = OwnFiles(Folder(f"{root.rstrip('/')}/{folder}")).names()
            notes[folder] = notes_of(folder.rpartition("/")[0]) + ([(f"{folder}/", own)] if own else [])
        return notes[folder]

    if own := OwnFiles(Folder(root)).names():
        notes[""] = [("", own)]
    ours = {
        name for name in names for prefix, own in notes_of(name.rpartition("/")[0]) if name.removeprefix(prefix) in own
    }
    return [name for name in names if name not in ours], left_out + LeftOut({OWN: len(ours)} if ours else {})
