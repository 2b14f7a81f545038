"""The scale run with few images; how long it takes is not checked."""

from pathlib import Path

import pytest

from pseudolabel.io.folder import Folder
from pseudolabel.shards.verify import verify


@pytest.mark.slow
def test_a_run_killed_once_ends_complete(bench, tmp_path: Path) -> None:
    work = tmp_path / "work"
    report, shown = bench("scale", "--work", work, "--images", 16, "--unit", 2, "--kills", 1)
    killed, complete = report["starts"]
    assert (killed["ranks"], killed["killed"], complete["ranks"], complete["killed"]) == (2, True, 1, False)
    assert 4 <= killed["shards"]["masks"] < 8
    assert complete["shards"] == {"cams": 8, "masks": 8}
    assert killed["samples"] + complete["samples"] == 16
    assert killed["lost"] > 0 == complete["lost"]
    assert report["done_twice"] == {"cams": 0, "masks": 0}
    for kind, member in (("cams", "cam.npz"), ("masks", "png")):
        assert verify(Folder(str(work / "out" / kind))) == []
        ledger = report["ledgers"][kind]
        assert (ledger["shards"], ledger["samples"], ledger["statuses"]) == (8, 16, {"ok": 16})
        assert set(ledger["member_bytes"]) == {"jpg", member, "json", "tar"}
        assert sum(ledger["member_bytes"].values()) == pytest.approx(ledger["sample_bytes"])
        assert ledger["unit_seconds"]["median"] <= ledger["unit_seconds"]["p95"] <= ledger["unit_seconds"]["max"]
        assert f"{work}/out/{kind}: complete and valid" in shown
