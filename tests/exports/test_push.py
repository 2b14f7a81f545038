"""Uploads to a hub on localhost, by huggingface_hub itself."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

import pseudolabel as pl
from tests.e2e.commands import Outcome, expect
from tests.e2e.commands import run as run_command
from tests.exports.hub import Hub, open_hub

REPO = "me/masks"


class Nowhere:
    """A hub that cannot be reached."""

    url = "http://127.0.0.1:9"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with open_hub() as opened:
        yield opened


def push(hub: Hub | Nowhere, *arguments: object, token: str = "secret") -> Outcome:
    """The command in a process of its own, for which the hub is ours; without Xet, whose servers are not there."""
    here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    return run_command("push", *arguments, **here, HF_HUB_DISABLE_TELEMETRY="1", NO_PROXY="127.0.0.1")


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for pattern in patterns for path in folder.glob(pattern)}


@pytest.mark.slow
def test_an_export_is_uploaded_without_our_notes(hub: Hub, run: Path, tmp_path: Path, monkeypatch) -> None:
    pl.export(run, to="hf", folder=tmp_path / "hf")
    done = expect(0, push(hub, tmp_path / "hf", REPO, "--private"))
    assert done.last_line == f"push: 5 files -> {hub.url}/datasets/{REPO}/commit/{1:040x}"
    assert hub.trees[REPO, "main"] == files(tmp_path / "hf", "README.md", "classes.json", "data/*.parquet")
    assert hub.private[REPO]
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name, data in hub.trees[REPO, "main"].items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert datasets.load_dataset(str(tmp_path / "downloaded"), cache_dir=str(tmp_path / "cache"))["train"].num_rows == 6


@pytest.mark.slow
def test_shards_are_uploaded_to_a_branch_and_a_card_there_is_kept(hub: Hub, run: Path) -> None:
    expect(0, push(hub, run, REPO, "--revision", "v2"))
    tree = hub.trees[REPO, "v2"]
    assert tree == files(run / "masks", "*.tar", "id2label.json", "index.json")
    assert hub.trees[REPO, "main"] == {}
    tree["README.md"] = b"written by hand"
    (run / "masks" / "README.md").write_text("ours")
    again = expect(0, push(hub, run / "masks", REPO, "--revision", "v2"))
    assert tree["README.md"] == b"written by hand"
    assert "README.md of the repository kept" in again.last_line


@pytest.mark.slow
def test_a_refusal_is_one_message(hub: Hub, run: Path) -> None:
    refused = push(hub, run, REPO, token="wrong")
    assert refused.is_clean_error()
    assert "401" in refused.err
    assert "hf auth login" in refused.err
    assert hub.trees == {}


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_message(run: Path) -> None:
    done = push(Nowhere(), run / "masks", REPO)
    assert done.is_clean_error()
    assert f"could not be uploaded to '{REPO}'" in done.err


def test_only_what_load_dataset_reads_is_uploaded(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    with pytest.raises(pl.UserError, match="is an export in the format png; push one in the format hf"):
        pl.push(tmp_path / "png", REPO)
    pl.export(run, to="hf", folder=tmp_path / "hf")
    (tmp_path / "hf" / "README.md").unlink()
    with pytest.raises(pl.UserError, match="is not finished; run `pseudolabel export` again"):
        pl.push(tmp_path / "hf", REPO)
    with pytest.raises(pl.UserError, match="no shards in"):
        pl.push(tmp_path, REPO)
