"""Upload an export for the Hugging Face hub, or a folder of mask shards."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel.errors import UserError
from pseudolabel.exports.huggingface import CARD
from pseudolabel.exports.units import HIDDEN, SETTINGS
from pseudolabel.io.terminal import escaped
from pseudolabel.shards.classes import ID2LABEL
from pseudolabel.shards.find import find_shards, folder_of, warn_if_unfinished
from pseudolabel.shards.index import load_index
from pseudolabel.shards.ledger import INDEX

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KIND = "dataset"
_OF_EXPORT = [CARD, "classes.json", "data/*.parquet"]
_OF_SHARDS = [CARD, ID2LABEL, INDEX, "*.tar"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushResult:
    """What was uploaded.

    Attributes:
        address: of the commit.
        files: names of the files that are in the repository now.
        kept: those of the repository that were left as they are.
    """

    address: str
    files: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """Of the command."""
        return 0

    def lines(self) -> list[str]:
        """The command's result."""
        kept = f", {', '.join(self.kept)} of the repository kept" if self.kept else ""
        return [escaped(f"push: {len(self.files):,} files{kept} -> {self.address}")]

    def notes(self) -> list[str]:
        """None."""
        return []


def push(
    out: str | os.PathLike[str],
    repo: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> PushResult:
    """Upload an export in the format hf, or the mask shards of a run, to a data set repository of the Hugging Face hub.

    `datasets.load_dataset(repo)` reads both. The same call completes an upload that was stopped. A data set card that
    the repository has already is kept.

    Args:
        out: a folder that `export` wrote with `to="hf"`; or the output folder of a run, or its folder of mask shards.
        repo: such as `my-name/my-masks`; it is created where it is missing.
        token: for the hub; None is the one that `hf auth login` has stored, or `HF_TOKEN`.
        private: create the repository for its owner alone. One that exists stays as it is.
        revision: the branch, created where it is missing; None is the main one.

    Raises:
        UserError: if the folder holds neither, or the hub refuses; the message has its reason.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder, patterns = _find(os.fspath(out))
    try:
        return _upload(HfApi(token=token), folder, patterns, repo, private, revision)
    # The bases are OSError and the errors of the HTTP client, which is another package from one version to the next.
    except (HFValidationError, *HfHubHTTPError.__bases__) as error:  # type: ignore[misc]
        raise UserError(
            f"'{folder}' could not be uploaded to '{repo}': {error}\nLog in with `hf auth login`, or give a `token` "
            "that may write there; the same command completes the upload"
        ) from error


def _upload(
    api: "HfApi", folder: Path, patterns: list[str], repo: str, private: bool, revision: str | None
) -> PushResult:
    name = api.create_repo(repo, repo_type=KIND, private=private, exist_ok=True).repo_id
    if revision is not None:
        api.create_branch(name, branch=revision, repo_type=KIND, exist_ok=True)
    kept = (CARD,) if api.file_exists(name, CARD, repo_type=KIND, revision=revision) else ()
    if kept:
        log.info("'%s' of '%s' stays as it is", CARD, name)
    commit = api.upload_folder(
        repo_id=name,
        folder_path=folder,
        repo_type=KIND,
        revision=revision,
        commit_message="Pseudo-masks",
        allow_patterns=patterns,
        ignore_patterns=[*kept, ".*"],
    )
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.name[0] != "."})
    names = tuple(str(path.relative_to(folder)) for path in files)
    return PushResult(commit.commit_url, tuple(file for file in names if file not in kept), kept)


def _find(out: str) -> tuple[Path, list[str]]:
    """The folder to upload, and patterns of its files."""
    settings = Path(out) / HIDDEN / SETTINGS
    if not settings.exists():
        inner = Path(out) / "masks"
        paths = find_shards(str(inner if inner.is_dir() else out))
        indexes = {path: load_index(path) for path in paths}
        if any(len(index) and index.holds_cams for index in indexes.values()):
            raise UserError(f"'{out}' holds class activation maps; give the folder of masks")
        warn_if_unfinished({path: len(index) for path, index in indexes.items()})
        return Path(folder_of(paths[0])), _OF_SHARDS
    chosen = json.loads(settings.read_bytes())["format"]
    if chosen != "hf":
        raise UserError(f"'{out}' is an export in the format {chosen}; push one in the format hf, or the run itself")
    if not (Path(out) / CARD).exists():
        raise UserError(f"the export in '{out}' is not finished; run `pseudolabel export` again, which completes it")
    return Path(out), _OF_EXPORT
