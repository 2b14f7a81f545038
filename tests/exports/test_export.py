"""What holds for every format: splits, repeats, what is not ours, and what cannot be exported."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pseudolabel as pl
from pseudolabel.errors import NotOursError, OutputError, SettingError, ShardError
from pseudolabel.exports.sample import split_of
from pseudolabel.exports.units import HIDDEN
from pseudolabel.io.folder import Folder
from pseudolabel.io.lock import lock_output
from pseudolabel.io.tar import Members
from pseudolabel.records import LabelMap
from pseudolabel.shards.confidence import judge
from pseudolabel.shards.sample import encode_mask
from tests.e2e.commands import call, expect, samples
from tests.exports.conftest import members, path_of
from tests.shards.runs import write_run
from tests.shards.samples import write_shard


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_command_says_how_it_ended(run: Path, tmp_path: Path) -> None:
    done = expect(0, call("export", run, "--to", "png", "--out", tmp_path / "png", "--split", "0.5"))
    counts = json.loads(done.out.splitlines()[0])
    assert counts["samples"] == 6 == sum(counts["splits"].values())
    assert done.last_note.startswith("export: 6 samples (")
    assert done.last_note.endswith(f" -> {tmp_path / 'png'}")
    assert "ETA" in done.err


def test_the_masks_folder_itself_is_taken(run: Path, tmp_path: Path) -> None:
    assert pl.export(run / "masks", to="png", folder=tmp_path / "png").samples == 6


def test_the_least_confident_samples_alone(run: Path, tmp_path: Path) -> None:
    def sample(key: str, confidence: float) -> tuple[str, Members]:
        mask = LabelMap(key, np.ones((40, 56), np.uint8), np.full((40, 56), confidence, np.float32))
        fields = {"key": key, "classes": [1], "names": ["ring"], "height": 40, "width": 56} | judge(mask, (1,))
        return key, encode_mask(members(key, mask.labels, 0)["jpg"], mask, fields)

    folder = tmp_path / "run" / "masks"
    write_run(folder, "masks", [[sample("a", 0.9), sample("b", 0.5)], [sample("c", 0.7)]])
    (folder / "id2label.json").write_text('{"0": "background", "1": "ring"}')
    expect(0, call("export", tmp_path / "run", "--to", "png", "--out", tmp_path / "two", "--worst", 2))
    assert {path.stem for path in (tmp_path / "two" / "masks").iterdir()} == {"b", "c"}
    with pytest.raises(SettingError, match="`worst` 0: give the number of samples"):
        pl.export(tmp_path / "run", to="png", folder=tmp_path / "none", worst=0)
    with pytest.raises(ShardError, match="so none is worst"):
        pl.export(run, to="png", folder=tmp_path / "none", worst=1)


def test_a_split_depends_on_the_key_alone() -> None:
    keys = [f"image_{number}" for number in range(2000)]
    trained = {key for key in keys if split_of(key, 0.9) == "train"}
    assert 0.87 < len(trained) / len(keys) < 0.93
    assert {key for key in keys if split_of(key, 0.8) == "train"} < trained  # more training samples move none away
    assert split_of("any", None) == ""


def test_each_sample_is_in_its_split(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="png", folder=tmp_path / "png", split=0.5)
    for key in drawn:
        assert (tmp_path / "png" / "images" / split_of(key, 0.5) / f"{path_of(key)}.jpg").is_file()
    assert {split_of(key, 0.5) for key in drawn} == {"train", "val"}


def test_a_repeat_writes_nothing_again(run: Path, tmp_path: Path) -> None:
    first = pl.export(run, to="png", folder=tmp_path / "png")
    before = times(tmp_path / "png")
    again = pl.export(run, to="png", folder=tmp_path / "png")
    assert (first.written, again.written, again.samples) == (6, 0, 6)
    common = {"data.yaml", "classes.json", f"{HIDDEN}/.lock-0"}
    assert {name: time for name, time in times(tmp_path / "png").items() if name not in common} == {
        name: time for name, time in before.items() if name not in common
    }


def test_an_interrupted_export_ends_with_the_same_files(run: Path, tmp_path: Path) -> None:
    """As if it had been killed in the second shard: some files are there, the note of the shard is not."""
    pl.export(run, to="png", folder=tmp_path / "whole")
    pl.export(run, to="png", folder=tmp_path / "png")
    for name in ("masks-000001.jsonl", "masks-000002.jsonl"):
        (tmp_path / "png" / HIDDEN / name).unlink()
    for name in ("data.yaml", "classes.json", "images/ring.jpg", "masks/touching.png"):
        (tmp_path / "png" / name).unlink()
    (tmp_path / "png" / "images" / "folder" / ".unfinished-two discs.jpg-x").write_bytes(b"half")
    assert pl.export(run, to="png", folder=tmp_path / "png").written == 4
    ours, theirs = files(tmp_path / "png"), files(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if "manifest" not in name and ".lock" not in name)


def test_two_processes_do_not_write_one_folder(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    with (
        lock_output(Folder(str(tmp_path / "png" / HIDDEN)), 0),
        pytest.raises(OutputError, match=r"another run writes to .* choose another folder for the export"),
    ):
        pl.export(run, to="png", folder=tmp_path / "png")


def test_changed_shards_are_exported_again_and_lost_samples_removed(run: Path, tmp_path: Path, drawn) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    other = np.full((40, 56), 2, np.uint8)
    assert {"ring", "touching"} <= samples(run / "masks").keys()
    write_shard(run / "masks" / "masks-000002.tar", {"ring": members("ring", other, 9)})
    result = pl.export(run, to="png", folder=tmp_path / "png")
    assert (result.samples, result.written) == (5, 1)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png" / "masks" / "ring.png")), other)
    assert not (tmp_path / "png" / "masks" / "touching.png").exists()


def test_a_mask_that_somebody_corrected_stays(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    corrected = tmp_path / "png" / "masks" / "ring.png"
    Image.fromarray(np.ones((40, 56), np.uint8)).save(corrected)
    kept = corrected.read_bytes()
    assert pl.export(run, to="png", folder=tmp_path / "png").written == 0
    write_shard(run / "masks" / "masks-000002.tar", {"ring": members("ring", np.full((40, 56), 2, np.uint8), 9)})
    with pytest.raises(NotOursError, match=r"masks/ring\.png' was not written by this export, or was changed since"):
        pl.export(run, to="png", folder=tmp_path / "png")
    assert corrected.read_bytes() == kept


def test_a_folder_with_other_files_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.yaml").write_text("mine")
    refused = call("export", run, "--to", "png", "--out", tmp_path / "mine")
    assert refused.is_clean_error()
    assert "'data.yaml'; choose a new or empty folder for the export" in refused.err
    assert files(tmp_path / "mine") == {"data.yaml": b"mine"}


def test_a_collected_file_that_somebody_changed_stays(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    (tmp_path / "png" / "data.yaml").write_text("mine")
    with pytest.raises(NotOursError, match=r"would overwrite: 'data\.yaml'"):
        pl.export(run, to="png", folder=tmp_path / "png")


def test_other_settings_need_another_folder(run: Path, tmp_path: Path) -> None:
    pl.export(run, to="png", folder=tmp_path / "png")
    with pytest.raises(OutputError, match=r"(?s)holds an export with other settings:\n  split: None -> 0\.5"):
        pl.export(run, to="png", folder=tmp_path / "png", split=0.5)


def test_only_some_keys_and_the_others_are_counted(run: Path, tmp_path: Path) -> None:
    result = pl.export(run, to="png", folder=tmp_path / "png", keys=["ring", "folder/two discs", "unheard of"])
    assert (result.samples, result.left_out, result.statuses) == (2, 4, {"missing": 1})
    assert result.exit_status == 3
    assert result.first_failures == {"missing": ["unheard of: no shard has it"]}
    assert result.notes()[-1] == f"export: 2 samples, 1 failed, 4 left out -> {tmp_path / 'png'}"


def test_samples_that_cannot_be_exported_are_told(run: Path, tmp_path: Path, drawn) -> None:
    good = members("good", drawn["ring"], 1)
    small = encode_mask(good["jpg"], LabelMap("small", np.zeros((3, 4), np.uint8)), {})
    unknown = members("unknown", np.full((40, 56), 4, np.uint8), 1)
    shard = {
        "good": good,
        "no image": {**good, "jpg": b"nothing"},
        "no mask": {**good, "png": good["png"][:50]},
        "small": small,
        "unknown": unknown,
        "n" * 260: good,
    }
    write_shard(run / "masks" / "masks-000003.tar", shard)
    done = expect(3, call("export", run, "--to", "png", "--out", tmp_path / "png"))
    assert json.loads(done.out.splitlines()[0])["statuses"] == {
        "unreadable": 1, "truncated": 1, "size": 1, "unknown_class": 1, "name": 1
    }  # fmt: skip
    assert "unknown: the mask holds label 4, but the classes end at 3" in done.err
    assert done.last_note == f"export: 7 samples, 5 failed -> {tmp_path / 'png'}"


def test_images_of_other_kinds_are_turned_into_upright_jpegs(run: Path, tmp_path: Path, drawn) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))
    turned, buffer = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the file lies on its side
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", exif=exif)
    image.save(buffer, "WEBP", lossless=True)
    mask = members("a", drawn["ring"], 1)["png"]
    shard = {"turned": {"jpg": turned.getvalue(), "png": mask}, "webp": {"webp": buffer.getvalue(), "png": mask}}
    write_shard(run / "masks" / "masks-000003.tar", shard)
    assert pl.export(run, to="png", folder=tmp_path / "png").samples == 8
    for key in shard:
        with Image.open(tmp_path / "png" / "images" / f"{key}.jpg") as read:
            assert (read.format, read.size, read.getexif().get(0x0112)) == ("JPEG", (56, 40), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 1.0}, r"`split` 1.0: give the share"),
        ({"ignore": 4}, r"`ignore` 4: give 0 for background, a class's label up to 3, or 255"),
        ({"pieces": True}, r"`pieces` is for `to` coco, not for png"),
    ],
)
def test_options_out_of_range(run: Path, tmp_path: Path, options, message: str) -> None:
    with pytest.raises(pl.SettingError, match=message):
        pl.export(run, to="png", folder=tmp_path / "png", **options)
    assert not (tmp_path / "png").exists()


def test_shards_without_class_names_are_refused(run: Path, tmp_path: Path) -> None:
    (run / "masks" / "id2label.json").unlink()
    with pytest.raises(ShardError, match=r"names the classes of the masks; write 'id2label\.json' there"):
        pl.export(run, to="png", folder=tmp_path / "png")


def test_what_holds_no_masks_is_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, maps=np.zeros((1, 2, 2)), classes=np.array([1]))
    (tmp_path / "cams").mkdir()
    write_shard(tmp_path / "cams" / "cams-000000.tar", {"a": {"jpg": b"image", "cam.npz": buffer.getvalue()}})
    with pytest.raises(ShardError, match="holds class activation maps; `pseudolabel refine` makes masks"):
        pl.export(tmp_path / "cams", to="png", folder=tmp_path / "png")
    with pytest.raises(ShardError, match="no shards in"):
        pl.export(tmp_path, to="png", folder=tmp_path / "png")
