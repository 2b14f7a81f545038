import os
import pickle
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate, sampler
from mmengine.runner import Runner
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from pseudolabel.errors import ShardError, UserError
from pseudolabel.shards import dataset
from pseudolabel_train.shard_dataset import ShardDataset
from tests.shards.runs import write_run
from tests.shards.samples import LABELS, draw_sample, name, numbered, tiny_sample, write_masks, write_shard

DECODE = [{"type": "LoadShardSample"}, {"type": "PackSegInputs"}]


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 5, 0, 3 and 4 samples."""
    return write_masks(tmp_path_factory.mktemp("run") / "masks", [5, 0, 3, 4])


def identity(batch):
    return batch


def test_samples_come_in_the_order_of_the_shards(masks: Path) -> None:
    dataset = ShardDataset(str(masks), "voc")
    assert len(dataset) == 12
    for number in [*range(12), *range(-12, 0)]:
        members, results = draw_sample(number % 12), dataset[number]
        assert results["key"] == name(number % 12)
        assert (results["image_bytes"], results["mask_bytes"]) == (members["jpg"], members["png"])
        assert results["sample_idx"] == number % 12
    assert dataset[5]["img_path"] == f"{masks}/masks-000002.tar/{name(5)}"
    for beyond in (12, -13):
        with pytest.raises(IndexError):
            dataset[beyond]


def test_the_data_sets_metainfo_equals_mmsegmentations_voc(masks: Path) -> None:
    dataset = DATASETS.build({"type": "ShardDataset", "shards": str(masks), "vocabulary": "voc", "test_mode": True})
    assert dataset.metainfo["classes"] == PascalVOCDataset.METAINFO["classes"]
    assert dataset.metainfo["palette"] == PascalVOCDataset.METAINFO["palette"]
    assert dataset.metainfo["reduce_zero_label"] is False
    assert dataset.metainfo["label_map"] is None
    assert len(ShardDataset(str(masks), "shapes").metainfo["classes"]) == 7


def test_shards_can_be_given_in_several_forms(masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(shards) -> list[str]:
        dataset = ShardDataset(shards, "voc")
        return [dataset[number]["key"] for number in range(len(dataset))]

    everything = [name(number) for number in range(12)]
    assert keys(f"{masks}/") == everything
    assert keys(f"{masks}/masks-*.tar") == everything
    assert keys(f"file://{masks}") == everything
    assert keys(f"{masks}/masks-{{000000..000002}}.tar") == everything[:8]
    assert keys(f"{masks}/masks-000002.tar") == everything[5:8]
    assert keys([f"{masks}/masks-000003.tar", f"{masks}/masks-000000.tar"]) == everything[8:] + everything[:5]
    monkeypatch.chdir(masks.parent)
    assert keys("masks") == everything
    assert ShardDataset("masks", "voc")[8]["img_path"] == f"masks/masks-000003.tar/{name(8)}"


def decoded(samples) -> list[tuple[str, bytes, bytes]]:
    return [
        (s["data_samples"].img_path, s["inputs"].numpy().tobytes(), s["data_samples"].gt_sem_seg.data.numpy().tobytes())
        for s in samples
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_samples(masks: Path, method: str) -> None:
    dataset = ShardDataset(str(masks), "voc", DECODE)
    here = decoded(dataset[number] for number in range(12))
    assert set(np.unique(dataset[0]["data_samples"].gt_sem_seg.data)) == set(LABELS)
    loader = DataLoader(
        dataset,
        batch_size=3,
        num_workers=2 if method == "fork" else 1,  # spawned ones take seconds to start
        multiprocessing_context=method,
        collate_fn=identity,
        persistent_workers=method == "spawn",
    )
    for _ in range(2):  # with the parent's descriptors open
        assert decoded(sample for batch in loader for sample in batch) == here
    assert decoded(dataset[number] for number in range(12)) == here


def test_a_pickled_data_set_holds_no_open_file(masks: Path) -> None:
    dataset = ShardDataset(str(masks), "voc", DECODE)
    before = decoded([dataset[0]])
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    assert decoded([pickle.loads(data)[0]]) == before


def test_open_files_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "OPEN_SHARDS", 4)
    samples = numbered([1] * 40)
    for number, shard in enumerate(samples):
        write_shard(tmp_path / f"masks-{number:06d}.tar", shard)
    before = len(os.listdir("/proc/self/fd"))
    opened = ShardDataset(str(tmp_path), "voc")
    assert len(os.listdir("/proc/self/fd")) == before
    assert [opened[number % 40]["key"] for number in range(80)] == [name(number % 40) for number in range(80)]
    assert before < len(os.listdir("/proc/self/fd")) <= before + 2 * 4
    del opened
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    def held(count: int) -> tuple[int, int]:
        path = tmp_path / f"{count}.tar"
        write_shard(path, numbered([count])[0])
        ShardDataset(str(path), "voc")
        tracemalloc.start()
        dataset = ShardDataset(str(path), "voc")
        for number in range(0, count, count // 100):
            assert dataset[number]["key"] == name(number)
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return current, len(pickle.dumps(dataset))

    held(100)  # whatever is set up once
    few, many = held(101), held(4_000)
    assert many[0] < few[0] + 20_000
    assert many[1] < few[1] + 100


def test_a_shard_replaced_during_training_is_an_error(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", [2, 2], tiny_sample)
    dataset = ShardDataset(str(masks), "voc")
    assert dataset[0]["key"] == name(0)
    for number in range(2):
        other = write_shard(tmp_path / "other.tar", {f"other_{index}": tiny_sample(index) for index in range(2)})
        other.rename(masks / f"masks-{number:06d}.tar")
    assert dataset[1]["image_bytes"] == tiny_sample(1)["jpg"]  # the shard as it was, still open
    with pytest.raises(ShardError, match=r"masks-000001.tar' has changed since the data set was opened"):
        dataset[2]
    assert ShardDataset(str(masks), "voc")[2]["key"] == "other_0"


def test_a_shard_truncated_during_training_is_an_error(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", [2], tiny_sample)
    dataset = ShardDataset(str(masks), "voc")
    assert dataset[0]["key"] == name(0)
    os.truncate(masks / "masks-000000.tar", 4000)
    with pytest.raises(ShardError, match=rf"sample '{name(1)}': the file ends inside it.*pseudolabel verify {masks}"):
        dataset[1]


def test_a_damaged_sample_is_an_error_and_is_not_replaced(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", {"a": draw_sample(0), "b": {**draw_sample(1), "jpg": b"\xff\xd8"}})
    dataset = ShardDataset(str(path), "voc", DECODE)
    assert decoded([dataset[0]])[0][0].endswith("s.tar/a")
    message = f"'{path}': sample 'b': the image is damaged; download or copy it again"
    with pytest.raises(UserError, match=message):
        dataset[1]
    loader = DataLoader(dataset, num_workers=1, collate_fn=pseudo_collate)
    with pytest.raises(ShardError, match=message):
        list(loader)


def drop(results: dict) -> None:
    return None


def test_a_transform_that_gives_nothing_is_an_error(masks: Path) -> None:
    with pytest.raises(ShardError, match=f"gives nothing for '{masks}/masks-000000.tar/{name(0)}'"):
        ShardDataset(str(masks), "voc", [drop])[0]


def test_training_on_an_unfinished_run_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    masks = write_masks(tmp_path / "masks", [5, 3], tiny_sample)
    assert len(ShardDataset(str(masks), "voc")) == 8
    assert not caplog.messages
    (masks / "index.json").unlink()
    assert len(ShardDataset(str(masks), "voc")) == 8
    [warning] = caplog.messages
    assert f"'{masks}' is of a run that is not finished" in warning
    assert "8 samples in 2 shards" in warning


def test_invalid_training_data_is_refused(tmp_path: Path) -> None:
    def refusal(shards) -> str:
        with pytest.raises(UserError) as caught:
            ShardDataset(str(shards), "voc")
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "no shards in" in refusal(tmp_path / "empty")
    assert "pseudolabel refine" in refusal(tmp_path / "*.tar")
    assert "none.tar'; write it with `pseudolabel generate`" in refusal(tmp_path / "none.tar")
    assert "none.tar'; write it with `pseudolabel generate`" in refusal("memory://masks/none.tar")

    write_run(tmp_path / "cams", "cams", [[("a", {"jpg": b"", "cam.npz": b"", "json": b""})]])
    assert "holds CAMs, not pseudo-masks; make masks of them with `pseudolabel refine`" in refusal(tmp_path / "cams")

    write_masks(tmp_path / "masks", [1], tiny_sample)
    assert f"but '{tmp_path}/masks' does; give that" in refusal(tmp_path)

    (tmp_path / "compressed").mkdir()
    (tmp_path / "compressed" / "masks-000000.tar.gz").write_bytes(b"\x1f\x8b")
    assert "compressed tars such as 'masks-000000.tar.gz'; unpack" in refusal(tmp_path / "compressed")

    write_masks(tmp_path / "none", [0, 0])
    assert "hold no samples" in refusal(tmp_path / "none")


# Samplers: the ranks' shares, and going on where a run stopped.


def rank_samplers(monkeypatch: pytest.MonkeyPatch, ranks: int, make) -> list:
    made = []
    for rank in range(ranks):
        monkeypatch.setattr(sampler, "get_dist_info", lambda rank=rank: (rank, ranks))
        made.append(make())
    return made


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(0, 9))
def test_ranks_are_balanced(masks: Path, ranks: int, seed: int) -> None:
    dataset = ShardDataset(str(masks), "voc")
    with pytest.MonkeyPatch.context() as patch:
        shares = [list(one) for one in rank_samplers(patch, ranks, lambda: DefaultSampler(dataset, seed=seed))]
        endless = rank_samplers(patch, ranks, lambda: InfiniteSampler(dataset, seed=seed))
    assert {len(share) for share in shares} == {-(-12 // ranks)}
    assert {dataset[number]["key"] for share in shares for number in share} == {name(number) for number in range(12)}
    # Twelve draws per rank are as many epochs as there are ranks.
    drawn = [number for one in endless for number in islice(one, 12)]
    assert sorted(drawn) == sorted([*range(12)] * ranks)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_resumes(masks: Path, workers: int) -> None:
    def batches() -> DataLoader:
        config = {"type": "ShardDataset", "shards": str(masks), "vocabulary": "voc", "pipeline": DECODE}
        return Runner.build_dataloader(
            {
                "dataset": config,
                "sampler": {"type": "InfiniteSampler", "shuffle": True},
                "batch_size": 5,
                "num_workers": workers,
                "persistent_workers": workers > 0,
            },
            seed=7,
        )

    def keys(loader: DataLoader, count: int) -> list[list[str]]:
        found = [batch["data_samples"] for batch in islice(loader, count)]
        return [[sample.img_path for sample in samples] for samples in found]

    whole = keys(batches(), 9)
    assert len({path for batch in whole for path in batch}) == 12
    resumed = batches()
    resumed.sampler.skip(4 * 5)
    assert keys(resumed, 5) == whole[4:]


def test_the_least_confident_share_is_left_out(tmp_path: Path) -> None:
    """MMSegmentation's config reaches `pseudolabel.ShardDataset`, which tests/shards checks."""
    masks = write_masks(tmp_path / "masks", [3, 1])
    with pytest.raises(ShardError, match="`leave_out` needs a confidence of each image"):
        ShardDataset(str(masks), "voc", leave_out=0.25)
