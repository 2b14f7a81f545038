"""The plain torch data set of shards."""

import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pseudolabel as pl
from pseudolabel.config import Experiment
from pseudolabel.errors import ShardError
from pseudolabel.io.images import decode_image, read_mask
from pseudolabel.io.tar import read_tar
from pseudolabel.runtime.rank import Rank
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.sample import decode_cams
from pseudolabel.stages.generate import generate
from pseudolabel.vocabulary import load_vocabulary
from tests.shards.samples import draw_sample, numbered, write_masks, write_shard


@pytest.fixture
def run(experiment: Experiment, one_rank: Rank) -> Path:
    """CAM and mask shards of five images."""
    generate(experiment, one_rank)
    return Path(experiment.out)


def stored(folder: Path) -> list:
    samples = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            samples += read_tar(file)
    return samples


def test_masks_equal_the_shards_with_names_of_the_run(run: Path) -> None:
    dataset = pl.ShardDataset(run / "masks")
    assert dataset.names == load_vocabulary("shapes").names
    assert not dataset.holds_cams
    expected = stored(run / "masks")
    assert len(dataset) == len(expected) == 5
    for item, (key, members) in zip(dataset, expected, strict=True):
        assert item["key"] == key
        image = np.asarray(decode_image(members["jpg"], key, 10**9)[0])
        assert torch.equal(item["image"], torch.tensor(image).permute(2, 0, 1))
        mask = read_mask(members["png"], key)
        assert torch.equal(item["mask"], torch.tensor(mask))
        assert item["classes"] == tuple(dataset.names[label] for label in np.unique(mask) if label not in (0, 255))


def test_cams_are_scores_at_the_images_size(run: Path) -> None:
    dataset = pl.ShardDataset(str(run / "cams"))
    assert dataset.holds_cams
    for item, (key, members) in zip(dataset, stored(run / "cams"), strict=True):
        maps = decode_cams(key, members).scores
        assert torch.equal(item["scores"], torch.tensor(at_image_size(maps.maps, maps.size)))
        assert item["classes"] == tuple(dataset.names[index] for index in maps.classes)
        assert item["scores"].shape[1:] == item["image"].shape[1:] == maps.size
        assert "mask" not in item


@pytest.mark.slow
def test_batches_of_transformed_items_come_from_workers(run: Path) -> None:
    dataset = pl.ShardDataset(run / "masks", transform=key_and_mask)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    keys = [key for batch in loader for key in batch[0]]
    assert keys == [key for key, _ in stored(run / "masks")]


def key_and_mask(item: dict) -> tuple[str, torch.Tensor]:
    return item["key"], item["mask"].long()


def test_shards_at_a_url_give_the_same_items(tmp_path: Path) -> None:
    local = write_masks(tmp_path / "masks", [3, 2])
    fs = fsspec.filesystem("memory")
    for path in local.iterdir():
        fs.pipe_file(f"/remote/{path.name}", path.read_bytes())
    remote = pl.ShardDataset("memory://remote", "voc")
    for item, expected in zip(remote, pl.ShardDataset(local, "voc"), strict=True):
        assert item["key"] == expected["key"]
        assert torch.equal(item["image"], expected["image"])
        assert torch.equal(item["mask"], expected["mask"])


def test_negative_indices_are_allowed(tmp_path: Path) -> None:
    dataset = pl.ShardDataset(write_masks(tmp_path / "masks", [3, 2]))
    assert dataset[-1]["key"] == dataset[4]["key"]
    for beyond in (5, -6):
        with pytest.raises(IndexError, match=f"sample {beyond} of 5"):
            dataset[beyond]


def test_labels_without_names_are_numbers(tmp_path: Path) -> None:
    [samples] = numbered([1], draw_sample)
    dataset = pl.ShardDataset(write_shard(tmp_path / "mine.tar", samples))
    assert dataset.names == ()
    assert dataset[0]["classes"] == ("1", "20")
    assert pl.ShardDataset(tmp_path / "mine.tar", "voc")[0]["classes"] == ("aeroplane", "tvmonitor")


def test_a_copy_in_another_process_reads_independently(tmp_path: Path) -> None:
    dataset = pl.ShardDataset(write_masks(tmp_path / "masks", [2]))
    assert dataset[1]["key"] == pickle.loads(pickle.dumps(dataset))[1]["key"]


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "mine.tar", {"a": {"jpg": b"no image", "png": b"no mask"}})
    dataset = pl.ShardDataset(path)
    with pytest.raises(ShardError, match=r"mine\.tar': sample 'a': the image"):
        dataset[0]


def test_masks_and_maps_are_not_mixed(run: Path) -> None:
    with pytest.raises(ShardError, match=r"some of the shards .* hold masks, others CAMs; give one kind"):
        pl.ShardDataset([run / "masks", run / "cams"])
