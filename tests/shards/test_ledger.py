import json
from dataclasses import replace
from pathlib import Path

import pytest

from pseudolabel.errors import OutputError
from pseudolabel.io.folder import Folder
from pseudolabel.records import Failure
from pseudolabel.shards.ledger import INDEX, RUN, Ledger, LedgerEntry, differences
from tests.shards.runs import SETTINGS


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Folder(str(tmp_path)), "cams")


def entry_of(unit: int, shard: bytes = b"shard") -> LedgerEntry:
    failures = (Failure("b", "list.txt line 2", "truncated", "b.jpg: ends early (ü)"),)
    name = f"cams-{unit:06d}.tar"
    return LedgerEntry(unit, name, 1, {"ok": 1, "truncated": 1}, failures, len(shard), "0" * 64, "i", "f", 0.5)


def write(ledger: Ledger, unit: int) -> LedgerEntry:
    entry = entry_of(unit)
    ledger.folder.write_bytes(entry.shard, b"shard")
    ledger.write(entry)
    return entry


def test_an_entry_can_be_read_back(ledger: Ledger) -> None:
    assert ledger.entry(7) is None
    assert ledger.units() == set()
    entry = write(ledger, 7)
    assert ledger.entry(7) == entry
    assert ledger.units() == {7}


def test_an_entry_without_its_shard_does_not_count(ledger: Ledger) -> None:
    ledger.write(entry_of(0))
    assert ledger.entry(0) is None


@pytest.mark.parametrize("shard", [b"", b"shar", b"shard and more"])
def test_a_shard_of_another_size_does_not_count(ledger: Ledger, shard: bytes) -> None:
    entry = write(ledger, 0)
    ledger.folder.write_bytes(entry.shard, shard)
    assert ledger.entry(0) is None


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"null", b"{}", b'{"failures": []}', b"\xff\xfe", b"[1, 2]"])
def test_a_damaged_entry_does_not_count(ledger: Ledger, damaged: bytes) -> None:
    write(ledger, 0)
    ledger.folder.write_bytes("cams-000000.json", damaged)
    assert ledger.entry(0) is None
    assert ledger.units() == {0}


def test_a_truncated_entry_does_not_count(ledger: Ledger) -> None:
    write(ledger, 0)
    whole = ledger.folder.read_bytes("cams-000000.json").rstrip()
    for length in range(len(whole)):
        ledger.folder.write_bytes("cams-000000.json", whole[:length])
        assert ledger.entry(0) is None, whole[:length]


def test_many_entries_are_read_together(ledger: Ledger) -> None:
    assert ledger.read({0, 1}) == {}  # nor is there a folder
    entries = {number: write(ledger, number) for number in range(40)}
    assert ledger.read(set(range(50))) == entries
    assert ledger.read({3, 7, 99}) == {3: entries[3], 7: entries[7]}
    ledger.reopen(entries[3])
    ledger.folder.write_bytes("cams-000004.json", b"{")
    ledger.folder.write_bytes("cams-000005.tar", b"of another size")
    ledger.folder.remove("cams-000006.tar")
    read = ledger.read(set(entries))
    assert entries.keys() - read.keys() == {4, 5, 6}
    assert all(entry == ledger.stored(number) for number, entry in read.items())
    assert read[3].reopened


def test_units_are_distinguished_from_other_files(ledger: Ledger) -> None:
    for name in ("cams-000003.json", "cams-1234567.json", "cams-x.json", "cams-000004.tar", "masks-000005.json", INDEX):
        ledger.folder.write_bytes(name, b"{}")
    assert ledger.units() == {3, 1234567}


def test_a_run_resumes_with_the_same_settings(ledger: Ledger) -> None:
    fingerprint = ledger.start(SETTINGS)
    write(ledger, 0)
    assert ledger.start(SETTINGS) == fingerprint
    assert ledger.settings() == SETTINGS


def test_other_settings_are_refused_and_shown(ledger: Ledger) -> None:
    ledger.start(SETTINGS)
    write(ledger, 0)
    changed = {"method": {"class_weight": 1.0, "timesteps": [1, 50]}, "work": {"unit": 1, "seed": 3}}
    with pytest.raises(OutputError) as error:
        ledger.start(changed)
    assert "  method.class_weight: 1.21 -> 1.0\n  work.seed: None -> 3\n" in str(error.value)
    assert "timesteps" not in str(error.value)
    assert ledger.settings() == SETTINGS


def test_changed_labels_are_accepted_if_expected(ledger: Ledger) -> None:
    labelled = {**SETTINGS, "inputs": {"count": 2, "sha256": "a"}}
    fingerprint = ledger.start(labelled)
    write(ledger, 0)
    corrected = {**SETTINGS, "inputs": {"count": 2, "sha256": "b"}}
    with pytest.raises(OutputError, match=r"inputs\.sha256: a -> b\n.*\n.*add `retry_failed`"):
        ledger.start(corrected)
    with pytest.raises(OutputError, match=r"inputs\.count: 2 -> 3\n"):
        ledger.start({**SETTINGS, "inputs": {"count": 3, "sha256": "b"}}, relabelled=True)
    assert ledger.start(corrected, relabelled=True) == fingerprint
    assert ledger.settings() == corrected


def test_a_reopened_entry_is_not_finished(ledger: Ledger) -> None:
    entry = write(ledger, 0)
    ledger.reopen(entry)
    assert ledger.entry(0) is None
    assert ledger.stored(0) == replace(entry, reopened=True)
    assert ledger.units() == {0}


def test_without_a_finished_shard_settings_may_change(ledger: Ledger) -> None:
    before = ledger.start(SETTINGS)
    after = ledger.start({"method": {}})
    assert before != after
    assert ledger.settings() == {"method": {}}


@pytest.mark.parametrize("damaged", [b"", b"{", b"{}", b"[]"])
def test_damaged_settings_are_an_error(ledger: Ledger, damaged: bytes) -> None:
    ledger.folder.write_bytes(RUN, damaged)
    write(ledger, 0)
    with pytest.raises(OutputError, match=rf"{RUN}' is damaged"):
        ledger.start(SETTINGS)


def test_keys_of_other_types_are_the_same_settings(ledger: Ledger) -> None:
    """Level weights have whole numbers for keys, which JSON turns into text; tuples become lists."""
    ledger.start({"level_weights": {64: 0.3, 8: 0.1}, "classes": (1, 2)})
    write(ledger, 0)
    ledger.start({"level_weights": {8: 0.1, 64: 0.3}, "classes": [1, 2]})
    with pytest.raises(OutputError, match=r"level_weights\.64: 0\.3 -> 0\.4"):
        ledger.start({"level_weights": {8: 0.1, 64: 0.4}, "classes": [1, 2]})


def test_the_index_has_totals(ledger: Ledger) -> None:
    entries = [write(ledger, 0), replace(write(ledger, 1), samples=4, statuses={"ok": 4})]
    index = json.loads(ledger.index(entries, "f"))
    assert index["samples"] == 5
    assert index["statuses"] == {"ok": 5, "truncated": 1}
    assert [shard["shard"] for shard in index["shards"]] == ["cams-000000.tar", "cams-000001.tar"]


def test_differences() -> None:
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({"a": {"b": [1]}}, {"a": {"b": [1, 2]}, "c": 0}) == ["a.b: [1] -> [1, 2]", "c: None -> 0"]
    assert differences({"a": None}, {"a": {"b": 1}}) == ["a: None -> {'b': 1}"]
    changed = "plugin: the file that registers the method has changed since the run began"
    digests = ({"model": {"weights": "0f" * 8}}, {"model": {"weights": "1e" * 8}})
    assert differences(*digests) == ["model.weights: other content than when the run began"]
    assert differences({"plugin": "1a"}, {"plugin": "2b"}) == [changed]
    assert differences({"cams": {"plugin": "1a"}}, {"cams": {"plugin": "2b"}}) == [f"cams.{changed}"]
    assert differences({}, {"plugin": "2b"}) == ["plugin: None -> 2b"]
