import csv
import io
from pathlib import Path

import pytest

from pseudolabel.errors import NoRecordError
from pseudolabel.io.folder import Folder
from pseudolabel.records import Failure
from pseudolabel.shards.failures import COLUMNS, count, find_failures, to_csv
from pseudolabel.shards.ledger import Ledger, LedgerEntry

READ = Failure("a/b", "list.txt line 1", "truncated", "a/b.jpg ends early")
CRF = Failure("c", "cams-000001.tar", "crf", "no memory")
ODD = Failure("new\nline", "list.txt line 3", "missing", 'no file "x, y"')


def record(out: Path, kind: str, unit: int, *failures: Failure) -> None:
    folder = Folder(str(out / kind))
    folder.prepare()
    folder.write_bytes(f"{kind}-{unit:06d}.tar", b"tar")
    statuses = {"ok": 1}
    entry = LedgerEntry(unit, f"{kind}-{unit:06d}.tar", 1, statuses, failures, 3, "hash", "inputs", "run", 0.1)
    Ledger(folder, kind).write(entry)


def test_failures_of_all_kinds_are_found_once(tmp_path: Path) -> None:
    record(tmp_path, "cams", 0, ODD)
    record(tmp_path, "cams", 1, READ)
    record(tmp_path, "masks", 0, READ, CRF)
    record(tmp_path, "filter", 0, READ)
    found = find_failures(Folder(str(tmp_path)))
    assert found == [("cams", READ), ("cams", ODD), ("masks", CRF)]
    assert count(found) == "3 failures: 1 truncated, 1 missing, 1 crf"
    assert find_failures(Folder(str(tmp_path / "masks"))) == [("masks", READ), ("masks", CRF)]


def test_the_csv_file_reads_back(tmp_path: Path) -> None:
    record(tmp_path, "cams", 0, ODD, READ)
    rows = list(csv.reader(io.StringIO(to_csv(find_failures(Folder(str(tmp_path)))).decode(), newline="")))
    assert rows == [
        list(COLUMNS),
        ["cams", READ.key, READ.origin, READ.status, READ.message],
        ["cams", ODD.key, ODD.origin, ODD.status, ODD.message],
    ]


def test_failures_of_captions(tmp_path: Path) -> None:
    record(tmp_path, "captions", 0, READ)
    assert find_failures(Folder(str(tmp_path / "captions"))) == [("captions", READ)]


def test_a_folder_without_a_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoRecordError, match="no job has recorded anything in"):
        find_failures(Folder(str(tmp_path / "absent")))
    assert count([]) == "no failures"
