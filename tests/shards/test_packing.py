import io
import json

from pseudolabel.shards.packing import CAPTIONS, JSONL

SAMPLES = [
    ("a", {"json": b'{"classes": ["cat"], "captions": []}'}),
    ("b/c", {"json": '{"caption": "wét\u2028"}'.encode()}),
]


def test_lines_start_with_their_key() -> None:
    file = io.BytesIO()
    JSONL.write(file, SAMPLES)
    lines = file.getvalue().decode().split("\n")
    assert [json.loads(line)["key"] for line in lines[:-1]] == ["a", "b/c"]
    assert lines[0] == '{"key": "a", "classes": ["cat"], "captions": []}'
    assert lines[-1] == ""


def test_read_and_write_keep_all_bytes() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    JSONL.write(first, SAMPLES)
    first.seek(0)
    read = list(JSONL.read(first))
    assert read == SAMPLES
    JSONL.write(second, read)
    assert second.getvalue() == first.getvalue()


def test_no_samples() -> None:
    file = io.BytesIO()
    JSONL.write(file, [])
    assert list(JSONL.read(io.BytesIO(file.getvalue()))) == []


def test_captions_are_one_line_each() -> None:
    samples = [("a", {"cat": b"a cat", "dog": "a d\u2028g".encode()}), ("b/c", {"cat": b""})]
    file = io.BytesIO()
    CAPTIONS.write(file, samples)
    lines = file.getvalue().decode().split("\n")
    assert json.loads(lines[0]) == {"key": "a", "class": "cat", "caption": "a cat"}
    assert len(lines) == 4
    assert list(CAPTIONS.read(io.BytesIO(file.getvalue()))) == samples
