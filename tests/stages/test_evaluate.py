import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.config import EvaluateConfig, Experiment, SourceConfig, WorkConfig
from pseudolabel.errors import NothingScoredError, NotOursError, SettingError, SourceError
from pseudolabel.evaluation.hungarian import Hungarian
from pseudolabel.evaluation.per_image import image_miou
from pseudolabel.io.folder import Folder
from pseudolabel.io.images import mask_image
from pseudolabel.io.tar import write_tar
from pseudolabel.runtime.rank import Rank
from pseudolabel.stages.evaluate import evaluate
from pseudolabel.stages.generate import generate
from tests.e2e.commands import samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def labelled(few_shapes: Path, one_rank: Rank, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment whose CAMs and masks are written."""
    from pseudolabel.config import CrfConfig, ModelConfig

    experiment = Experiment(
        out=str(tmp_path_factory.mktemp("labelled")),
        vocabulary="shapes",
        source=SourceConfig(path=str(few_shapes), split="val"),
        model=ModelConfig(name="shapes"),
        work=WorkConfig(unit=2, workers=1),
        crf=CrfConfig(iterations=0, background="threshold", background_value=0.4, ignore_below=0.0),
        evaluate=EvaluateConfig(threshold=0.4, threshold_chosen_on="seed 1", plots=False),
    )
    generate(experiment, one_rank)
    return experiment


def test_shards_and_files_of_masks_agree(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    for key, members in samples(Path(labelled.out) / "masks").items():
        (tmp_path / f"{key}.png").write_bytes(members["png"])
    of_shards = evaluate(labelled, "masks", one_rank)
    of_files = evaluate(replace(labelled, out=str(tmp_path / "out")), "masks", one_rank, str(tmp_path))
    assert of_shards.to_dict() == of_files.to_dict()
    assert of_shards.images == 5
    assert 0.2 < of_shards.miou <= 1  # it knows Shapes


def test_cams_at_the_threshold_equal_the_masks(labelled: Experiment, one_rank: Rank) -> None:
    """Without a CRF the masks are the CAMs against the fixed threshold."""
    of_cams = evaluate(labelled, "cams", one_rank)
    of_masks = evaluate(labelled, "masks", one_rank)
    assert of_cams.fixed.threshold == 0.4
    assert of_cams.fixed.miou == pytest.approx(of_masks.miou, abs=1e-3)
    assert of_cams.oracle.miou >= of_cams.fixed.miou
    metrics = json.loads((Path(labelled.out) / "metrics.json").read_text())
    assert set(metrics) == {"cams", "masks"}
    assert metrics["cams"]["fixed"]["miou"] == of_cams.fixed.miou
    assert metrics["masks"]["listed"] == 5
    assert metrics["masks"]["not_scored"] == 0


def test_the_truth_scores_one(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    truth = f"{labelled.source.path}/SegmentationClass"
    report = evaluate(replace(labelled, out=str(tmp_path)), "masks", one_rank, truth)
    assert report.miou == 1


def test_unscored_images_are_reported(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    truth = sorted(Path(labelled.source.path, "SegmentationClass").glob("*.png"))
    for path in truth:
        (masks / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(masks / truth[0].name)
    (masks / truth[1].name).write_bytes(b"no image")
    (masks / truth[2].name).unlink()
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(masks / "of-another-set.png")
    (masks / "notes.txt").write_text("mine")
    report = evaluate(replace(labelled, out=str(tmp_path)), "masks", one_rank, str(masks))
    assert report.images == 2
    assert not report.scope.is_whole
    metrics = json.loads((tmp_path / "metrics.json").read_text())["masks"]
    assert metrics["reasons"] == {"size_mismatch": 1, "unreadable": 1, "no prediction": 1}
    assert list(metrics["failures"]) == [path.stem for path in truth[:3]]
    assert "prediction is (64, 128), ground truth is (128, 128)" in metrics["failures"][truth[0].stem]["message"]
    assert (metrics["listed"], metrics["not_scored"], metrics["unlisted"]) == (5, 3, 1)
    lines = report.scope.lines()
    assert lines[:3] == [
        "1 file left out: 1 .txt",
        "1 prediction is of no listed image: 'of-another-set.png'",
        f"3 of 5 images not scored: no prediction for '{truth[2].stem}'; size_mismatch for '{truth[0].stem}'; "
        f"unreadable for '{truth[1].stem}'",
    ]
    assert f"    no prediction for '{truth[2].stem}' in '{masks}'" in lines


def test_failed_predictions_are_reported(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    """The job recorded why; the shard of another image is cut short."""
    masks = Path(shutil.copytree(Path(labelled.out) / "masks", tmp_path / "masks"))
    entry = json.loads((masks / "masks-000000.json").read_text())
    failure = {"key": "val_000001", "origin": "list", "status": "truncated", "message": "it ends early"}
    (masks / "masks-000000.json").write_text(json.dumps({**entry, "failures": [failure]}))
    kept = list(samples(masks).items())
    with (masks / "masks-000000.tar").open("wb") as file:
        write_tar(file, kept[1:2])
    entry["size"] = (masks / "masks-000000.tar").stat().st_size
    (masks / "masks-000000.json").write_text(json.dumps({**entry, "failures": [failure]}))
    last = masks / "masks-000002.tar"
    last.write_bytes(last.read_bytes()[:700])
    report = evaluate(replace(labelled, out=str(tmp_path)), "masks", one_rank)
    assert report.images == 3
    assert report.scope.not_scored["val_000001"] == (
        "no prediction",
        "no prediction for 'val_000001', which failed as truncated: it ends early",
    )
    assert report.scope.not_scored["val_000005"][0] == "no prediction"
    assert "masks-000002.tar' cannot be read to its end" in report.scope.warnings[0]


def test_shards_of_another_kind_are_refused(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    with pytest.raises(NothingScoredError, match=r"5 of 5 images not scored: .*\n.*\n.* has cam\.npz, jpg"):
        evaluate(replace(labelled, out=str(tmp_path)), "masks", one_rank, f"{labelled.out}/cams")


def test_an_empty_evaluation_is_an_error(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "val_000001.png")
    with pytest.raises(NothingScoredError, match=r"nothing was scored in .*\n5 of 5 images not scored: .*\n") as error:
        evaluate(labelled, "masks", one_rank, str(tmp_path))
    assert "'val_000001': prediction is (4, 4)" in str(error.value)
    assert error.value.exit_status == 3
    with pytest.raises(SourceError, match=r"no mask shards or PNG masks in .*`predictions`"):
        evaluate(labelled, "masks", one_rank, str(tmp_path / "absent"))
    with pytest.raises(SourceError, match="no CAM shards in"):
        evaluate(labelled, "cams", one_rank, str(tmp_path))


@pytest.mark.parametrize("what", ["ground truth", "predictions"])
def test_masks_of_only_0_and_255_are_reported(labelled: Experiment, one_rank: Rank, tmp_path: Path, what: str) -> None:
    binary = tmp_path / "binary"
    binary.mkdir()
    for path in Path(labelled.source.path, "SegmentationClass").glob("*.png"):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(binary / path.name)
    source = replace(labelled.source, masks=str(binary)) if what == "ground truth" else labelled.source
    experiment = replace(labelled, out=str(tmp_path), source=source)
    report = evaluate(experiment, "masks", one_rank, str(binary))
    assert report.scope.is_empty == (what == "ground truth")
    assert len(report.scope.warnings) == 1
    assert f"no class in the {what} of the scored images, only 0 and 255" in report.scope.warnings[0]
    assert "1 for 'circle'" in report.scope.warnings[0]
    assert (report.miou == 1) == (what == "ground truth")


def test_predictions_in_folders_and_with_dots_are_found(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    for path in Path(labelled.source.path, "SegmentationClass").glob("*.png"):
        target = tmp_path / "sub" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    report = evaluate(replace(labelled, out=str(tmp_path / "out")), "masks", one_rank, str(tmp_path / "sub" / ".."))
    assert (report.images, report.miou, report.scope.is_whole) == (5, 1, True)


def test_no_ground_truth_is_an_error(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    for name in ("JPEGImages", "ImageSets", "Annotations"):
        (tmp_path / name).symlink_to(f"{labelled.source.path}/{name}")
    bare = replace(labelled, source=replace(labelled.source, path=str(tmp_path)))
    with pytest.raises(SourceError, match=r"no ground-truth masks.*`source\.masks`"):
        evaluate(bare, "cams", one_rank)
    named = replace(bare.source, masks=f"{labelled.source.path}/SegmentationClass")
    assert evaluate(replace(bare, source=named), "cams", one_rank).images == 5


def test_without_background_zero_is_not_a_label(one_rank: Rank, tmp_path: Path) -> None:
    """Truth 1 1 2 2 and 2 255 1 1, predicted 1 0 2 2 and 2 0 1 0: five of seven are right, none is another class."""
    for folder, first, second in (("truth", [1, 1, 2, 2], [2, 255, 1, 1]), ("found", [1, 0, 2, 2], [2, 0, 1, 0])):
        (tmp_path / folder).mkdir()
        for name, row in (("a", first), ("b", second)):
            mask_image(np.array([row], np.uint8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 1)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "all.yaml").write_text("background: false\nclasses: [ground, sky]")
    experiment = Experiment(
        out=str(tmp_path / "out"),
        vocabulary=str(tmp_path / "all.yaml"),
        source=SourceConfig(kind="folder", path=str(tmp_path / "images"), masks=str(tmp_path / "truth")),
        work=WorkConfig(workers=1),
        evaluate=EvaluateConfig(plots=False),
    )
    report = evaluate(experiment, "masks", one_rank, str(tmp_path / "found"))
    assert report.per_class["ground"].iou == 2 / 4
    assert report.per_class["sky"].iou == 3 / 3
    assert np.isnan(report.per_class["unlabelled"].iou)
    assert report.miou == (2 / 4 + 3 / 3) / 2
    assert report.miou_covered == 1
    assert report.coverage == 5 / 7
    with pytest.raises(SettingError, match="scored against background, which vocabulary 'all' lacks"):
        evaluate(experiment, "cams", one_rank)


def test_plots(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    plotted = replace(labelled, out=str(tmp_path), evaluate=replace(labelled.evaluate, plots=True))
    evaluate(plotted, "cams", one_rank, f"{labelled.out}/cams")
    names = [name for name in Folder(str(tmp_path)).names() if name.endswith(".png")]
    assert names == ["cams-confusion.png", "cams-iou.png", "cams-threshold.png"]
    assert all(Image.open(tmp_path / name).size > (200, 100) for name in names)


def test_segments_are_scored_by_both_protocols(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    """The truth under other values; a corner of each image is a segment without a label."""
    counts, mious = Hungarian.empty(6, has_background=True), []
    for path in sorted(Path(labelled.source.path, "SegmentationClass").glob("*.png")):
        truth = np.asarray(Image.open(path))
        segments = (100 - truth).astype(np.uint8)
        segments[:8, :8] = 200
        Image.fromarray(segments).save(tmp_path / path.name)
        mious.append(image_miou(*counts.add(truth, segments)))
    experiment = replace(labelled, out=str(tmp_path / "out"), evaluate=replace(labelled.evaluate, plots=True))
    report = evaluate(experiment, "segments", one_rank, str(tmp_path))
    assert 0.5 < report.miou_official == counts.miou_official <= report.miou_matched == counts.miou_matched < 1
    assert report.accuracy == counts.accuracy
    assert report.miou_per_image == pytest.approx(np.mean(mious))
    assert report.segments > 2
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["segments"]
    assert metrics["miou_matched"] == report.miou_matched
    assert metrics["listed"] == report.images == 5
    assert (tmp_path / "out" / "segments-confusion.png").exists()
    with pytest.raises(SourceError, match="no segment shards or PNG files in"):
        evaluate(labelled, "segments", one_rank, str(tmp_path / "absent"))


def test_masks_are_scored_per_image_with_void_as_background(
    labelled: Experiment, one_rank: Rank, tmp_path: Path
) -> None:
    expected, with_void = [], tmp_path / "void"
    with_void.mkdir()
    for key, members in samples(Path(labelled.out) / "masks").items():
        truth = np.array(Image.open(f"{labelled.source.path}/SegmentationClass/{key}.png"))
        truth[20:60, 20:60] = 255
        Image.fromarray(truth).save(with_void / f"{key}.png")
        (tmp_path / "mask.png").write_bytes(members["png"])
        expected.append(image_miou(np.where(truth == 255, 0, truth), np.asarray(Image.open(tmp_path / "mask.png"))))
    experiment = replace(labelled, out=str(tmp_path), source=replace(labelled.source, masks=str(with_void)))
    report = evaluate(experiment, "masks", one_rank, f"{labelled.out}/masks")
    assert report.miou_per_image == pytest.approx(np.mean(expected))
    plain = evaluate(replace(labelled, out=str(tmp_path)), "masks", one_rank, f"{labelled.out}/masks")
    assert plain.miou_per_image != report.miou_per_image


@pytest.mark.parametrize("name", ["metrics.json", "masks-iou.png", "masks-confusion.png"])
def test_a_users_file_is_not_overwritten(labelled: Experiment, one_rank: Rank, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"accuracy": 0.9}')
    plotted = replace(labelled, out=str(tmp_path), evaluate=replace(labelled.evaluate, plots=True))
    with pytest.raises(NotOursError, match=rf"'{name}'; choose another `out`"):
        evaluate(plotted, "masks", one_rank, f"{labelled.out}/masks")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b'{"accuracy": 0.9}'


def test_plots_are_written_again_beside_the_metrics(labelled: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    plotted = replace(labelled, out=str(tmp_path), evaluate=replace(labelled.evaluate, plots=True))
    for threshold in (0.4, 0.5):
        changed = replace(plotted, evaluate=replace(plotted.evaluate, threshold=threshold))
        evaluate(changed, "cams", one_rank, f"{labelled.out}/cams")
    evaluate(plotted, "masks", one_rank, f"{labelled.out}/masks")
    expected = {"cams-threshold", "cams-iou", "cams-confusion", "masks-iou", "masks-confusion"}
    assert {path.stem for path in tmp_path.glob("*.png")} == expected
    assert all(Image.open(path).format == "PNG" for path in tmp_path.glob("*.png"))
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == {"cams", "masks"}


def test_an_unknown_kind_is_refused(labelled, one_rank):
    with pytest.raises(SettingError, match="`kind` 'cam': give one of cams, masks, segments"):
        evaluate(labelled, "cam", one_rank)
