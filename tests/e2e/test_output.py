"""Full and read-only disks, two runs at once, changed settings: nothing that is finished is lost."""

import shutil
import signal
from pathlib import Path

from tests.e2e.commands import (
    assert_alike,
    call,
    expect,
    family,
    finished_units,
    shards,
    wait_for_all,
    wait_until,
)
from tests.e2e.conftest import Shapes
from tests.e2e.forks import run_fork, start_fork
from tests.mounts import mounted_tmpfs, remount


def test_a_full_disk(shapes: Shapes, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "size=200k"):
        outcome = run_fork("cams", *shapes.at(tmp_path))
        assert outcome.is_clean_error(), outcome.err
        assert "no space left in" in outcome.err
        assert "run the same command again" in outcome.err
        done = finished_units(tmp_path / "cams")
        assert 1 <= len(done) < 8
        reference = shards(shapes.out / "cams")
        assert all(shards(tmp_path / "cams")[f"{name}.tar"] == reference[f"{name}.tar"] for name in done)
        assert expect(1, call("cams", *shapes.at(tmp_path))).is_clean_error()  # as long as it is full
        remount(tmp_path, "size=4m")
        expect(0, call("cams", *shapes.at(tmp_path)))
        assert shards(tmp_path / "cams") == reference
        assert done.items() <= finished_units(tmp_path / "cams").items()


def test_a_disk_too_full_for_masks(shapes: Shapes, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "size=450k"):
        outcome = run_fork("generate", *shapes.at(tmp_path))
        assert outcome.is_clean_error(), outcome.err
        assert "no space left in" in outcome.err
        remount(tmp_path, "size=8m")
        expect(0, call("generate", *shapes.at(tmp_path)))
        for kind in ("cams", "masks"):
            assert shards(tmp_path / kind) == shards(shapes.out / kind)


def test_a_read_only_output(shapes: Shapes, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path, "size=4m"):
        folder = shapes.begun(tmp_path, units=3)
        done, bytes_before = finished_units(folder), shards(folder)
        remount(tmp_path, "ro")
        for command in ("cams", "generate"):
            outcome = expect(1, call(command, *shapes.at(tmp_path)))
            assert outcome.is_clean_error()
            assert f"'{tmp_path}/cams' cannot be written (Read-only file system)" in outcome.err
        assert shards(folder) == bytes_before
        remount(tmp_path, "rw")
        expect(0, call("cams", *shapes.at(tmp_path)))
        assert shards(folder) == shards(shapes.out / "cams")
        assert done.items() <= finished_units(folder).items()


def test_an_output_below_a_file(shapes: Shapes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for command in ("cams", "generate", "refine"):
        assert expect(1, call(command, *shapes.at(tmp_path / "file" / "out"))).is_clean_error()


def test_two_runs_on_one_output(shapes: Shapes, tmp_path: Path) -> None:
    first = start_fork("cams", *shapes.at(tmp_path / "out"), log=tmp_path / "log")
    wait_until(lambda: len(finished_units(tmp_path / "out" / "cams")) >= 1 or first.poll() is not None)
    processes = family(first)
    first.send_signal(signal.SIGSTOP)
    try:
        second = expect(1, call("cams", *shapes.at(tmp_path / "out")))
        assert second.is_clean_error()
        assert f"another run writes to '{tmp_path}/out/cams' (process {first.pid} on " in second.err
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0
    wait_for_all(processes)
    assert shards(tmp_path / "out" / "cams") == shards(shapes.out / "cams")


def test_changed_settings(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes.begun(tmp_path, units=2, kind="masks")
    before = {kind: shards(tmp_path / kind) for kind in ("cams", "masks")}
    changes = {
        ("cams", "--diffsegmenter.class_weight", "1.0"): "diffsegmenter.class_weight: 1.21 -> 1.0",
        ("cams", "--work.unit", "4"): "work.unit: 2 -> 4",
        ("cams", "--work.seed", "1"): "work.seed: 0 -> 1",
        ("cams", "--source.limit", "3"): "inputs.count: 16 -> 3",
        ("cams", "--vocabulary", "circle, square, triangle, star, heart, cross"): "vocabulary.names: ",
        ("refine", "--crf.iterations", "3"): "crf.iterations: 2 -> 3",
    }
    for (command, name, value), difference in changes.items():
        outcome = expect(1, call(command, *shapes.at(tmp_path), name, value))
        assert outcome.is_clean_error()
        assert f"  {difference}" in outcome.err
        assert "Choose another --out" in outcome.err
        assert {kind: shards(tmp_path / kind) for kind in ("cams", "masks")} == before
    expect(0, call("generate", *shapes.at(tmp_path), "--work.loaders", "1"))
    assert shards(folder) == shards(shapes.out / "masks")


def test_a_smaller_batch_resumes_in_the_same_folder(shapes: Shapes, tmp_path: Path) -> None:
    done = finished_units(shapes.begun(tmp_path, units=2))
    outcome = expect(0, call("generate", *shapes.at(tmp_path), "--work.batch", "4", "--crf.engine", "pydensecrf"))
    assert "cams: the run resumes with work.batch: 32 -> 4\n" in outcome.err
    assert done.items() <= finished_units(tmp_path / "cams").items()
    for kind in ("cams", "masks"):
        assert_alike(tmp_path / kind, shapes.out / kind)


def test_generate_refuses_another_crf_before_it_makes_cams(shapes: Shapes, tmp_path: Path) -> None:
    shapes.begun(tmp_path, units=2, kind="masks")
    last = tmp_path / "cams" / "cams-000007.tar"
    last.unlink()
    outcome = expect(1, call("generate", *shapes.at(tmp_path), "--crf.iterations", "3"))
    assert outcome.is_clean_error()
    assert "  crf.iterations: 2 -> 3" in outcome.err
    assert "Choose another --out" in outcome.err
    outcome = expect(2, call("generate", *shapes.at(tmp_path), "--crf.bilateral_srgb", "0"))
    assert "--crf.bilateral_srgb 0.0: give more than 0" in outcome.err
    assert not last.exists()


def test_moved_data_are_the_same_data(shapes: Shapes, own_data: Path, tmp_path: Path) -> None:
    folder = shapes.begun(tmp_path / "out", units=7)
    done = finished_units(folder)
    expect(0, call("cams", *shapes.at(tmp_path / "out", own_data)))
    assert done.items() <= finished_units(folder).items()
    assert shards(folder) == shards(shapes.out / "cams")


def test_damaged_shards_are_found_and_rewritten(shapes: Shapes, tmp_path: Path) -> None:
    shutil.copytree(shapes.out, tmp_path, dirs_exist_ok=True)
    assert expect(0, call("verify", tmp_path / "cams")).last_line.endswith("complete and valid")
    shard = tmp_path / "cams" / "cams-000002.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    outcome = expect(1, call("verify", tmp_path / "cams"))
    assert outcome.out.splitlines() == [
        "cams-000002.tar: the bytes differ from those that were written (sha256)",
        f"{tmp_path}/cams: 1 failure",
    ]
    shard.unlink()
    assert "its shard is missing" in expect(1, call("verify", tmp_path / "cams")).out
    both = expect(1, call("verify", tmp_path))
    assert both.out.splitlines()[-2:] == [f"{tmp_path}/cams: 2 failures", f"{tmp_path}/masks: complete and valid"]
    expect(0, call("generate", *shapes.at(tmp_path)))
    for kind in ("cams", "masks"):
        assert shards(tmp_path / kind) == shards(shapes.out / kind)
    valid = [f"{tmp_path}/{kind}: complete and valid" for kind in ("cams", "masks")]
    assert expect(0, call("verify", tmp_path)).out.splitlines() == valid
