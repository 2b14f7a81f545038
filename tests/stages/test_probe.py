"""`probe` on the small model and on Stable Diffusion's kinds of layers, against full matrices."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.config import DiffSegmenterConfig, Experiment, ModelConfig, SourceConfig
from pseudolabel.diffusion.noise import draw_noise
from pseudolabel.errors import NothingScoredError, SettingError, SourceError
from pseudolabel.evaluation.confusion import Confusion
from pseudolabel.runtime.rank import Rank
from pseudolabel.sources.source import open_source
from pseudolabel.stages.probe import probe
from pseudolabel.vocabulary import load_vocabulary
from tests.e2e.commands import call, expect
from tests.plain import diffsegmenter as plain
from tests.plain.architectures import loaded, tiny, tiny_xl

SHAPES = load_vocabulary("shapes")
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
CROSS, SELF = f"{BLOCK}.attn2", f"{BLOCK}.attn1"


@pytest.fixture
def settings(experiment: Experiment) -> Experiment:
    own = replace(experiment.diffsegmenter, timesteps=[50, 300], level_weights={8: 0.5, 16: 0.5})
    return replace(experiment, diffsegmenter=own)


def best_miou(maps: list[np.ndarray], truths: list[np.ndarray], classes: list[tuple[int, ...]]) -> float:
    """Of min-max scaled maps of 128 x 128, at the best of the thresholds 0.00, ..., 1.00."""
    best = 0.0
    for threshold in np.arange(101, dtype=np.float32) / np.float32(100):
        confusion = Confusion.empty(len(SHAPES))
        for scores, truth, own in zip(maps, truths, classes, strict=True):
            labels = np.where(scores.max(0) > threshold, np.array(own)[scores.argmax(0)], 0)
            confusion.add(truth, labels.astype(np.uint8))
        best = max(best, confusion.miou)
    return best


def scaled(rows: torch.Tensor) -> np.ndarray:
    side = int(rows.shape[-1] ** 0.5)
    large = F.interpolate(rows.view(1, -1, side, side), (128, 128), mode="bilinear")[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return ((large - low) / (high - low)).numpy()


@torch.inference_mode()
def test_measures_equal_those_of_full_matrices(settings: Experiment, one_rank: Rank) -> None:
    report = probe(settings, one_rank, images=3)
    model, config = loaded("shapes"), settings.diffsegmenter
    source = open_source(settings.source, SHAPES)
    heads, shares, lifts = [[], []], [[], []], [[], []]
    fused_maps, passed, squared, truths, classes = [], [], [], [], []
    for entry in source.entries[:3]:
        sample, truth = source.read(entry), source.ground_truth(entry).labels
        noise = draw_noise(0, "noise", sample.key, 1, model.latent_shape)
        latent = plain.encode_image(model, sample.image, None)
        inside = np.asarray(Image.fromarray(truth).resize((16, 16), Image.Resampling.NEAREST)).ravel()
        own_heads, own_fused, own_passed, own_squared = [[], []], [], [], []
        for index in sample.classes:
            sentence = plain.write_sentence(SHAPES.template, SHAPES.prompt(index))
            embeddings = plain.encode_classes(model, [sentence], config, plain.encode_text(model, ""))
            noised = plain.add_noise(model, latent, noise[0], 50)
            matrices = plain.attend(model, noised, 50, embeddings)
            tokens = plain.class_tokens(model.tokenizer, sentence, config)
            cross = next(m.probabilities for m in matrices if m.is_cross and m.stride == 8)
            own = next(m.probabilities for m in matrices if not m.is_cross and m.stride == 8)
            fused = plain.fuse_cross(config, matrices, tokens, 32)
            start = F.interpolate(fused[None, None], (16, 16), mode="bilinear")[0, 0].flatten()
            mean = own.mean(0)
            sharp = mean**2 / (mean**2).sum(1, keepdim=True)
            own_fused.append(start)
            own_passed.append(mean @ (mean @ start))
            own_squared.append(sharp @ start)
            for head in (0, 1):
                own_heads[head].append(cross[head][:, tokens[0]].mean(1))
                for position in np.flatnonzero(inside == index):
                    share = float(own[head][position][torch.from_numpy(inside == index)].sum())
                    shares[head].append(share)
                    lifts[head].append(share / (inside == index).mean())
        for head in (0, 1):
            heads[head].append(scaled(torch.stack(own_heads[head])))
        fused_maps.append(scaled(torch.stack(own_fused)))
        passed.append(scaled(torch.stack(own_passed)))
        squared.append(scaled(torch.stack(own_squared)))
        truths.append(truth)
        classes.append(sample.classes)
    cross_row = next(row for row in report.cross if (row.layer, row.timestep) == (CROSS, 50))
    assert cross_row.heads == pytest.approx([best_miou(maps, truths, classes) for maps in heads], abs=2e-3)
    row = next(row for row in report.self_attention if (row.layer, row.timestep) == (SELF, 50))
    assert row.head_share == pytest.approx([np.mean(values) for values in shares], abs=1e-4)
    assert row.head_lift == pytest.approx([np.mean(values) for values in lifts], abs=1e-3)
    assert row.share == pytest.approx(np.mean(shares), abs=1e-4)
    assert row.start == pytest.approx(best_miou(fused_maps, truths, classes), abs=2e-3)
    assert row.passes["attention"][1] == pytest.approx(best_miou(passed, truths, classes), abs=2e-3)
    assert row.passes["squared"][0] == pytest.approx(best_miou(squared, truths, classes), abs=2e-3)


def test_every_layer_and_timestep_has_a_row(settings: Experiment, one_rank: Rank) -> None:
    report = probe(settings, one_rank, images=2)
    assert (report.model, report.images, report.failures) == ("shapes", 2, {})
    for rows, kind in ((report.cross, "attn2"), (report.self_attention, "attn1")):
        assert {row.timestep for row in rows} == {50, 300}
        assert len({row.layer for row in rows}) == len(rows) / 2 > 2
        assert all(row.layer.endswith(kind) for row in rows)
    written = json.loads((Path(settings.out) / "metrics.json").read_text())["probe"]
    assert written["self_attention"][0]["passes"].keys() == {"attention", "squared", "perfect"}
    with Image.open(Path(settings.out) / "probe.png") as figure:
        assert figure.width > 1000


@pytest.mark.slow
def test_the_layers_of_sdxl(settings: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    own = DiffSegmenterConfig(timesteps=[100])
    changed = replace(settings, diffsegmenter=own, model=ModelConfig(name=str(tiny_xl(tmp_path / "model"))))
    report = probe(changed, one_rank, images=2)
    for rows in (report.cross, report.self_attention):
        assert [row.stride for row in rows] == [16] * 2 + [32] * 12 + [16] * 3


def test_real_images_and_the_layers_of_stable_diffusion(
    voc_sample: Path, settings: Experiment, one_rank: Rank, tmp_path: Path
) -> None:
    source = SourceConfig(path=str(voc_sample), split="train", labels="masks")
    own = replace(settings.diffsegmenter, timesteps=[100], level_weights={32: 0.5, 64: 0.5})
    changed = replace(settings, source=source, vocabulary="voc", diffsegmenter=own)
    report = probe(replace(changed, model=ModelConfig(name=str(tiny(tmp_path / "model")))), one_rank, images=3)
    assert report.images == 3
    assert {row.stride for row in report.cross} == {8, 16, 32, 64}
    assert all(0 <= row.share <= 1 for row in report.self_attention)
    perfect = [row.passes["perfect"][0] for row in report.self_attention if row.stride == 8]
    assert min(perfect) > max(row.start for row in report.self_attention)  # a random model's maps tell nothing


def test_images_that_cannot_be_measured_are_named(settings: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    folder = shutil.copytree(settings.source.path, tmp_path / "data")
    (folder / "SegmentationClass/val_000002.png").unlink()
    report = probe(replace(settings, source=replace(settings.source, path=str(folder))), one_rank, images=3)
    assert (report.images, list(report.failures)) == (2, ["val_000002"])
    for path in (folder / "SegmentationClass").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(NothingScoredError, match=r"no image of .* was measured: "):
        probe(replace(settings, source=replace(settings.source, path=str(folder))), one_rank, images=3)


def test_unusable_settings(settings: Experiment, one_rank: Rank, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="`images` 0: give at least 1"):
        probe(settings, one_rank, images=0)
    wrong = replace(settings.diffsegmenter, level_weights={4: 1.0})
    with pytest.raises(SettingError, match=r"`diffsegmenter.level_weights` \{4: 1.0\}"):
        probe(replace(settings, diffsegmenter=wrong), one_rank)
    (tmp_path / "images/star").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "images/star/a.png")
    source = SourceConfig(kind="folder", path=str(tmp_path / "images"))
    with pytest.raises(SourceError, match="has no ground-truth masks"):
        probe(replace(settings, source=source), one_rank)


def test_the_command_prints_tables(few_shapes: Path, tmp_path: Path) -> None:
    options = ("--config", "shapes", "--source.path", few_shapes, "--out", tmp_path, "--images", 2)
    shown = expect(0, call("probe", *options, "--diffsegmenter.timesteps", "[100]")).out
    for text in (
        "Cross-attention: mIoU",
        "Self-attention: how much stays in the object",
        "down 1.0.0",
        "best completion",
    ):
        assert text in shown
    assert isinstance(json.loads((tmp_path / "metrics.json").read_text())["probe"], dict)
