import json
from pathlib import Path

import pytest

from pseudolabel.errors import NotOursError
from pseudolabel.io.folder import Folder
from pseudolabel.shards.ledger import RUN, Ledger
from pseudolabel.shards.others import check_shard_folder
from tests.e2e.commands import call


def test_a_new_folder_and_one_with_our_run_are_accepted(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "cams"))
    check_shard_folder(folder, "cams")
    folder.prepare()
    folder.write_bytes("ID.png", b"ground truth, which has another name")
    check_shard_folder(folder, "cams")
    Ledger(folder, "cams").start({"inputs": {"count": 1, "sha256": "0"}})
    folder.write_bytes("cams-000000.tar", b"of a killed run, without an entry")
    check_shard_folder(folder, "cams")


@pytest.mark.parametrize("name", ["cams-000000.tar", "cams-000003.json", "run.json", "index.json", "summary.json"])
@pytest.mark.parametrize("run", [None, b"{}", b"[1]", b"no json", b'{"fingerprint": "x", "settings": {}}'])
def test_files_of_other_programs_are_reported(tmp_path: Path, name: str, run: bytes | None) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes(name, b"another's")
    if run is not None:
        folder.write_bytes(RUN, run)
    with pytest.raises(NotOursError, match=rf"did not write.*{name}.*choose another `out`"):
        check_shard_folder(folder, "cams")


def test_the_command_refuses_before_a_model_is_loaded(tmp_path: Path) -> None:
    call("shapes", "--out", tmp_path / "data", "--train", 1, "--val", 1)
    (tmp_path / "out" / "cams").mkdir(parents=True)
    (tmp_path / "out" / "cams" / "index.json").write_text(json.dumps({"mine": 1}))
    data = ("--source.path", tmp_path / "data", "--out", tmp_path / "out")
    done = call("cams", "--config", "shapes", *data, "--model.name", "/nowhere")
    assert done.is_clean_error()
    assert "'index.json'; choose another --out" in done.err
    assert [path.name for path in (tmp_path / "out" / "cams").iterdir()] == ["index.json"]
