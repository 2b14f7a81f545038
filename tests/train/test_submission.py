"""The archive for VOC's server: everything that its scorer would refuse is found and named."""

import gzip
import io
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.errors import UserError
from pseudolabel.vocabulary import load_vocabulary, voc_palette
from pseudolabel_train.submission import MEMBERS, pack, read_ids
from tests.e2e.commands import call, succeed

IDS = ["2008_000006", "2008_000011", "2008_000012", "2009_000001", "2010_000002"]
WIDTH, HEIGHT = 40, 30


def labels(seed: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 21, shape, dtype=np.uint8)


def save(path: Path, values: np.ndarray, palette: np.ndarray | None = None) -> None:
    image = Image.fromarray(values)
    image.putpalette((voc_palette() if palette is None else palette).tobytes())
    image.save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Five JPEGs, the last with an EXIF orientation that lays it on its side, and the list that names them."""
    root = tmp_path / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for number, name in enumerate(IDS):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == IDS[-1] else 1
        Image.fromarray(noise).save(root / "JPEGImages" / f"{name}.jpg", exif=exif)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("".join(f"{name}\n" for name in IDS))
    return root


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    folder.mkdir()
    for seed, name in enumerate(IDS):
        save(folder / f"{name}.png", labels(seed))
    return folder


def refusal(predictions: Path, voc: Path) -> str:
    """The message of a refusal, which must leave no file behind."""
    archive = predictions.with_name("out") / "test.tar.gz"
    with pytest.raises(UserError) as caught:
        pack(predictions, voc, "test", archive)
    assert not archive.parent.exists() or not list(archive.parent.iterdir())
    return str(caught.value)


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_the_archive_has_the_scorers_layout(predictions, voc, tmp_path):
    archive = tmp_path / "out" / "test.tar.gz"
    assert pack(predictions, voc, "test", archive) == len(IDS)
    found = members(archive)
    assert list(found) == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in IDS]
    for seed, name in enumerate(IDS):
        image = Image.open(io.BytesIO(found[f"{MEMBERS}/{name}.png"]))
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels(seed))
    assert [path.name for path in archive.parent.glob("[!.]*")] == ["test.tar.gz"]


def test_equal_predictions_give_equal_bytes_at_any_time(predictions, voc, tmp_path):
    pack(predictions, voc, "test", tmp_path / "first.tar.gz")
    time.sleep(1.1)  # gzip and tar count whole seconds
    for path in predictions.iterdir():
        path.touch()
        path.chmod(0o600)
    pack(predictions, voc, "test", tmp_path / "second.tgz")
    assert (tmp_path / "first.tar.gz").read_bytes() == (tmp_path / "second.tgz").read_bytes()
    with tarfile.open(tmp_path / "first.tar.gz") as tar:
        headers = {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in tar}
    assert headers == {(0, 0, 0, "", "", 0o644)}


def test_other_files_do_not_matter(predictions, voc, tmp_path):
    (predictions / "metrics.json").write_text("{}")
    assert pack(predictions, voc, "test", tmp_path / "test.tar.gz") == len(IDS)


def test_small_palettes_and_packed_bits_are_accepted(predictions, voc, tmp_path):
    few = labels(7) % 4
    image = Image.fromarray(few)
    image.putpalette(voc_palette()[:4].tobytes())
    image.save(predictions / f"{IDS[0]}.png", bits=2)
    assert (predictions / f"{IDS[0]}.png").read_bytes()[24] == 2
    pack(predictions, voc, "test", tmp_path / "test.tar.gz")


@pytest.mark.parametrize(
    ("mode", "message"), [("L", "has mode L"), ("RGB", "has mode RGB"), ("RGBA", "has mode RGBA"), ("I;16", "I;16")]
)
def test_other_modes_than_palette_are_refused(predictions, voc, mode, message):
    values = labels(1)
    image = Image.fromarray(values) if mode == "L" else Image.fromarray(values.astype(np.uint16))
    if mode.startswith("RGB"):
        image = Image.open(predictions / f"{IDS[1]}.png").convert(mode)
    image.save(predictions / f"{IDS[1]}.png")
    text = refusal(predictions, voc)
    assert "1 problem\n" in text
    assert f"'{IDS[1]}.png'" in text
    assert message in text
    assert "mode P" in text


def test_grey_masks_of_iou_metric_are_refused(predictions, voc, tmp_path):
    """The real metric, `format_only`, on the real predictions."""
    pytest.importorskip("mmseg")
    import torch
    from mmseg.evaluation import IoUMetric

    written = tmp_path / "iou_metric"
    metric = IoUMetric(output_dir=str(written), format_only=True)
    metric.dataset_meta = {"classes": load_vocabulary("voc").names}
    samples = [
        {"pred_sem_seg": {"data": torch.from_numpy(labels(seed))[None]}, "img_path": f"{name}.jpg"}
        for seed, name in enumerate(IDS)
    ]
    metric.process({}, samples)
    text = refusal(written, voc)
    assert "5 problems" in text
    assert "has mode L" in text
    assert "IoUMetric" in text


def test_greys_of_a_converted_palette_png_are_named(predictions, voc):
    path = predictions / f"{IDS[0]}.png"
    save(path, np.full((HEIGHT, WIDTH), 1, np.uint8))
    Image.open(path).convert("L").save(path)
    text = refusal(predictions, voc)
    assert f"'{IDS[0]}.png' holds 38: VOC's labels are 0 (background) to 20" in text
    assert "has mode L" in text


def test_the_ignore_label_has_a_separate_message(predictions, voc):
    values = labels(2)
    values[3, :7] = 255
    save(predictions / f"{IDS[2]}.png", values)
    text = refusal(predictions, voc)
    assert f"'{IDS[2]}.png' holds 255 in 7 pixels: the scorer aborts on the ignore label" in text
    assert "1 problem\n" in text


@pytest.mark.parametrize("value", [21, 220, 254])
def test_values_beyond_the_classes_are_refused(predictions, voc, value):
    values = labels(2)
    values[0, 0] = value
    save(predictions / f"{IDS[2]}.png", values)
    text = refusal(predictions, voc)
    assert f"'{IDS[2]}.png' holds {value}: VOC's labels are 0 (background) to 20" in text
    assert "1 problem\n" in text


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH + 1), (HEIGHT - 1, WIDTH), (WIDTH, HEIGHT), (1, 1)])
def test_another_size_is_refused(predictions, voc, shape):
    save(predictions / f"{IDS[0]}.png", labels(1, shape))
    text = refusal(predictions, voc)
    assert f"'{IDS[0]}.png' is {shape[1]} x {shape[0]}, its JPEG {WIDTH} x {HEIGHT}" in text


def test_a_jpeg_with_exif_orientation_has_its_stored_size(predictions, voc):
    name = IDS[-1]
    assert Image.open(voc / "JPEGImages" / f"{name}.jpg").getexif()[0x0112] == 6
    save(predictions / f"{name}.png", labels(4, (WIDTH, HEIGHT)))  # upright, as a viewer shows the image
    text = refusal(predictions, voc)
    assert f"'{name}.png' is {HEIGHT} x {WIDTH}, its JPEG {WIDTH} x {HEIGHT}" in text
    assert "EXIF" in text


def test_missing_and_additional_predictions_are_named(predictions, voc):
    (predictions / f"{IDS[1]}.png").rename(predictions / "2007_000033.png")
    (predictions / f"{IDS[3]}.png").rename(predictions / f"{IDS[3]}.PNG")
    text = refusal(predictions, voc)
    assert "4 problems" in text
    assert f"no '{IDS[1]}.png', no '{IDS[3]}.png': every image of test.txt needs a prediction" in text
    assert f"'2007_000033.png', '{IDS[3]}.PNG': test.txt does not list it" in text


def test_truncation_anywhere_is_detected(predictions, voc):
    path = predictions / f"{IDS[0]}.png"
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 13, len(whole) - 12, len(whole) - 8, len(whole) - 1]:
        path.write_bytes(whole[:length])
        text = refusal(predictions, voc)
        assert f"'{IDS[0]}.png'" in text, length
        assert "write it again" in text, length
        assert "0x" not in text, length


def test_missing_pixels_with_valid_checksums_are_detected(predictions, voc):
    """A file that was cut and then closed properly: all checksums hold, a part of the pixels is missing."""
    path = predictions / f"{IDS[0]}.png"
    whole = path.read_bytes()
    start = whole.index(b"IDAT")
    length = int.from_bytes(whole[start - 4 : start], "big") // 2
    chunk = whole[start : start + 4 + length]
    end = zlib.crc32(chunk).to_bytes(4, "big") + bytes(4) + b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
    path.write_bytes(whole[: start - 4] + length.to_bytes(4, "big") + chunk + end)
    Image.open(path).verify()
    assert "write it again" in refusal(predictions, voc)


@pytest.mark.parametrize("place", [-20, -14, -100])
def test_a_flipped_bit_is_detected(predictions, voc, place):
    """In the pixels, their checksum by zlib (the 4 bytes up to -16), or their checksum by PNG (up to -12)."""
    path = predictions / f"{IDS[0]}.png"
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)
    assert "write it again" in refusal(predictions, voc)


def test_a_jpeg_under_a_png_name_is_refused(predictions, voc):
    Image.new("L", (WIDTH, HEIGHT)).save(predictions / f"{IDS[0]}.png", "JPEG")
    assert "the file is damaged or no PNG" in refusal(predictions, voc)


def test_a_folder_under_a_png_name_is_refused(predictions, voc):
    (predictions / f"{IDS[0]}.png").unlink()
    (predictions / f"{IDS[0]}.png").mkdir()
    assert f"'{IDS[0]}.png'" in refusal(predictions, voc)


def test_a_palette_other_than_vocs_is_refused_for_values_in_use(predictions, voc, tmp_path):
    palette = voc_palette()
    palette[15] = 1, 2, 3
    save(predictions / f"{IDS[0]}.png", np.full((HEIGHT, WIDTH), 15, np.uint8), palette)
    text = refusal(predictions, voc)
    assert f"'{IDS[0]}.png' paints 15 as [1, 2, 3] instead of [192, 128, 128]" in text
    save(predictions / f"{IDS[0]}.png", np.full((HEIGHT, WIDTH), 14, np.uint8), palette)
    pack(predictions, voc, "test", tmp_path / "test.tar.gz")


def test_a_palette_that_is_too_short_is_refused(predictions, voc):
    path = predictions / f"{IDS[0]}.png"
    save(path, np.full((HEIGHT, WIDTH), 15, np.uint8), voc_palette()[:5])
    text = refusal(predictions, voc)
    assert f"'{IDS[0]}.png' paints 15 as nothing instead of [192, 128, 128]" in text


def test_all_problems_are_counted_and_the_first_of_each_kind_named(predictions, voc):
    for name in IDS[:4]:
        Image.fromarray(labels(0)).save(predictions / f"{name}.png")
    values = labels(4)
    values[0] = 255
    save(predictions / f"{IDS[4]}.png", values)
    (predictions / "further.png").write_bytes(b"")
    text = refusal(predictions, voc)
    assert "6 problems\n" in text
    assert f"'{IDS[2]}.png' has mode L and 1 more: " in text
    assert f"'{IDS[3]}.png'" not in text
    assert f"'{IDS[4]}.png' holds 255 in {WIDTH} pixels" in text
    assert "'further.png'" in text


def test_an_older_archive_is_kept_if_the_checks_fail(predictions, voc, tmp_path):
    archive = tmp_path / "test.tar.gz"
    pack(predictions, voc, "test", archive)
    before = archive.read_bytes()
    save(predictions / f"{IDS[0]}.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    with pytest.raises(UserError, match="no archive was written"):
        pack(predictions, voc, "test", archive)
    assert archive.read_bytes() == before


def test_a_missing_jpeg_is_a_problem(predictions, voc):
    (voc / "JPEGImages" / f"{IDS[0]}.jpg").unlink()
    text = refusal(predictions, voc)
    assert f"JPEGImages/{IDS[0]}.jpg'" in text
    assert "1 problem\n" in text


def test_wrong_paths_are_reported(predictions, voc, tmp_path):
    archive = tmp_path / "out.tar.gz"
    with pytest.raises(UserError, match=r"no folder '.*nowhere'; give the one that holds the predictions"):
        pack(tmp_path / "nowhere", voc, "test", archive)
    with pytest.raises(UserError, match=r"give the folder that holds ImageSets, such as VOCdevkit/VOC2012"):
        pack(predictions, tmp_path, "test", archive)
    with pytest.raises(UserError, match=r"no file '.*val\.txt'; `split` can be test\."):
        pack(predictions, voc, "val", archive)
    with pytest.raises(UserError, match=r"the server takes a tar\.gz, not '.*out\.zip'"):
        pack(predictions, voc, "test", tmp_path / "out.zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"below a file; choose another `out`"):
        pack(predictions, voc, "test", tmp_path / "file" / "out.tar.gz")


def test_lists_and_images_in_common_spellings(predictions, voc, tmp_path):
    (voc / "JPEGImages" / f"{IDS[0]}.jpg").rename(voc / "JPEGImages" / f"{IDS[0]}.JPG")
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png  \r\n" for name in IDS]
    (voc / "ImageSets" / "Segmentation" / "test.txt").write_text("\ufeff" + "".join(lines), newline="")
    assert read_ids(voc, "test") == IDS
    assert pack(predictions, voc, "test", tmp_path / "out.tar.gz") == len(IDS)


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("\n \n", "is empty"), ("a\nb\na\n", "'a' is listed twice")]
)
def test_invalid_lists(voc, text, message):
    (voc / "ImageSets" / "Segmentation" / "test.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_ids(voc, "test")


def test_the_archive_is_a_complete_tar_gz(predictions, voc, tmp_path):
    """Read to its end, so that gzip's checksum and tar's closing blocks are seen as well."""
    archive = tmp_path / "test.tar.gz"
    pack(predictions, voc, "test", archive)
    tar = gzip.decompress(archive.read_bytes())
    assert tar.endswith(bytes(1024))
    assert len(tar) % tarfile.RECORDSIZE == 0


@pytest.mark.slow
def test_the_command_packs_the_val_masks_of_voc(voc_sample: Path, tmp_path: Path):
    """Ground truth itself, with the ignored border as background, goes through the command as a user runs it."""
    folder, archive = tmp_path / "val", tmp_path / "val.tar.gz"
    folder.mkdir()
    ids = read_ids(voc_sample, "val")
    for name in ids:
        values = np.array(Image.open(voc_sample / "SegmentationClass" / f"{name}.png"))
        values[values == 255] = 0
        save(folder / f"{name}.png", values)
    packed = succeed("pack-voc-test", folder, voc_sample, "--split", "val")
    assert packed.out == f"{len(ids)} predictions -> {archive}\n"
    assert members(archive) == {f"{MEMBERS}/{name}.png": (folder / f"{name}.png").read_bytes() for name in ids}
    archive.unlink()
    (folder / f"{ids[0]}.png").write_bytes((voc_sample / "SegmentationClass" / f"{ids[0]}.png").read_bytes())
    refused = call("pack-voc-test", folder, voc_sample, "--split", "val", "--out", archive)
    assert refused.is_clean_error()
    assert f"'{ids[0]}.png' holds 255 in" in refused.err
    assert not archive.exists()


def test_another_file_is_not_overwritten(predictions, voc, tmp_path):
    archive = tmp_path / "test.tar.gz"
    archive.write_bytes(b"somebody's archive")
    done = call("pack-voc-test", predictions, voc, "--out", archive)
    assert done.is_clean_error()
    assert "'test.tar.gz'; choose another --out" in done.err
    assert archive.read_bytes() == b"somebody's archive"
    archive.unlink()
    for seed in (1, 2):
        save(predictions / f"{IDS[0]}.png", labels(seed))
        pack(predictions, voc, "test", archive)  # its own it replaces
