import copy
import multiprocessing
from collections import Counter
from itertools import islice
from pathlib import Path

import fsspec
import pytest
import torch
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from pseudolabel.errors import ShardError, UserError
from pseudolabel.io.tar import write_tar
from pseudolabel_train import shard_stream
from pseudolabel_train.shard_dataset import ShardDataset
from pseudolabel_train.shard_stream import ShardStream
from tests.shards.runs import write_run
from tests.train.shards import draw_sample, name, numbered, tiny_sample, write_index, write_masks, write_shard

DECODE = [{"type": "LoadShardSample"}, {"type": "PackSegInputs"}]
COUNTS = [7, 0, 12, 1, 9]
TOTAL = sum(COUNTS)
EVERYTHING = [name(number) for number in range(TOTAL)]


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks(tmp_path_factory.mktemp("run") / "masks", COUNTS, tiny_sample)


def of_ranks(ranks: int, *arguments, **options) -> list[ShardStream]:
    """The stream as every one of several ranks has it."""
    streams = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(ranks):
            patch.setattr(shard_stream, "get_dist_info", lambda rank=rank: (rank, ranks))
            streams.append(ShardStream(*arguments, **options))
    return streams


def take_key(results: dict) -> str:
    return results["key"]


def identity(batch: list) -> list:
    return batch


def loader_of(stream: ShardStream, **options) -> DataLoader:
    return DataLoader(stream, collate_fn=identity, **options)


def keys(loader: DataLoader) -> list[str]:
    return [key for batch in loader for key in batch]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_rank_gets_as_many_and_every_sample_is_seen(masks: Path, ranks: int, workers: int) -> None:
    streams = of_ranks(ranks, str(masks), "voc", [take_key], batch_size=4)
    loaders = [loader_of(stream, batch_size=4, num_workers=workers) for stream in streams]
    orders = set()
    for _ in range(2):
        shares = [list(loader) for loader in loaders]
        assert {sum(map(len, share)) for share in shares} == {len(stream) for stream in streams} == {-(-TOTAL // ranks)}
        assert {len(share) for share in shares} == {len(loader) for loader in loaders}
        seen = Counter(key for share in shares for batch in share for key in batch)
        assert set(seen) == set(EVERYTHING)
        assert sum(seen.values()) - TOTAL == -TOTAL % ranks
        assert max(seen.values()) <= 2
        orders.add(str(shares))
    assert len(orders) == 2


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_the_parts_make_up_the_list(counts, ranks: int, workers: int, batch_size: int, shuffle: bool) -> None:
    folder = f"memory://parts-{'-'.join(map(str, counts))}"
    for number, samples in enumerate(numbered(counts)):
        with fsspec.open(f"{folder}/masks-{number:06d}.tar", "wb") as file:
            write_tar(file, samples)
    total = sum(counts)
    streams = of_ranks(
        ranks, folder, "voc", [take_key], samples=counts, shuffle=shuffle, batch_size=batch_size, buffer=3
    )
    share = len(streams[0])
    assert share == -(-total // ranks)
    parts = [[list(s._process(0, worker, workers)) for worker in range(workers)] for s in streams]
    for rank in parts:
        assert sum(map(len, rank)) == share
        assert sum(len(part) % batch_size > 0 for part in rank) <= 1
        assert sum(-(-len(part) // batch_size) for part in rank) == -(-share // batch_size)
    seen = Counter(key for rank in parts for part in rank for key in part)
    least, once_more = divmod(ranks * share, total)
    assert Counter(seen.values()) == Counter({least: total - once_more} | ({least + 1: once_more} if once_more else {}))
    if not shuffle:
        order = [key for rank in parts for part in rank for key in part]
        assert order == [name(position % total) for position in range(ranks * share)]


def test_the_repeated_samples_are_the_first_of_the_list(masks: Path) -> None:
    streams = of_ranks(3, str(masks), "voc", [take_key], shuffle=False)
    assert [key for stream in streams for key in stream] == [*EVERYTHING, name(0)]


def test_the_order_follows_seed_and_epoch_alone(masks: Path) -> None:
    def epochs(seed: int, workers: int) -> list[list[str]]:
        loader = loader_of(ShardStream(str(masks), "voc", [take_key], seed=seed), num_workers=workers)
        return [keys(loader) for _ in range(3)]

    for workers in (0, 2):
        first = epochs(0, workers)
        assert epochs(0, workers) == first
        assert len({tuple(epoch) for epoch in [*first, *epochs(1, workers)]}) == 6
        assert all(sorted(epoch) == EVERYTHING != epoch for epoch in first)


def test_both_shards_and_samples_are_shuffled(masks: Path) -> None:
    stream = ShardStream(str(masks), "voc", [take_key], buffer=1)
    shard_orders = {tuple(dict.fromkeys(int(key[-6:]) // 7 > 0 for key in stream)) for _ in range(8)}
    assert shard_orders == {(True, False), (False, True)}  # with no buffer, a shard's samples stay together
    wide = list(ShardStream(str(masks), "voc", [take_key]))
    assert sum(abs(EVERYTHING.index(key) - position) for position, key in enumerate(wide)) > TOTAL


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_agree_on_the_epoch(masks: Path, method: str, persistent: bool) -> None:
    passes = 4 if method == "fork" or persistent else 2  # spawned workers take seconds to start
    stream = ShardStream(str(masks), "voc", [take_key], batch_size=2)
    options = {"num_workers": 2, "multiprocessing_context": method, "persistent_workers": persistent}
    loader = loader_of(stream, batch_size=2, **options)
    orders = [keys(loader) for _ in range(passes)]
    assert all(sorted(order) == EVERYTHING for order in orders)
    assert len(set(map(tuple, orders))) == passes


def test_an_epoch_that_is_broken_off_upsets_nothing(masks: Path) -> None:
    loader = loader_of(ShardStream(str(masks), "voc", [take_key]), num_workers=2)
    orders = []
    for _ in range(4):
        next(iter(loader))
        orders.append(keys(loader))
        one, other = iter(loader), iter(loader)  # both alive at once
        orders += [[key for batch in each for key in batch] for each in (one, other)]
    assert all(sorted(order) == EVERYTHING for order in orders)
    assert len(set(map(tuple, orders))) == 12


def test_epochs_are_counted_one_by_one(masks: Path) -> None:
    plain = ShardStream(str(masks), "voc", [take_key])
    orders = [list(plain) for _ in range(4)]
    stream = ShardStream(str(masks), "voc", [take_key])
    for _ in range(2):
        keys(loader_of(stream, num_workers=2))
    persistent = loader_of(stream, num_workers=1, persistent_workers=True)
    assert [keys(persistent), keys(persistent)] == orders[2:]


def test_every_worker_of_every_rank_draws_in_its_own_way(masks: Path) -> None:
    ways = set()
    for stream in of_ranks(2, str(masks / "masks-{000000..000003}.tar"), "voc", [take_key]):  # 20 samples
        for worker in range(2):
            read = [key for _, key, *_ in stream._read(0, *stream._part(worker, 2))]
            drawn = list(stream._process(0, worker, 2))
            assert sorted(drawn) == sorted(read)
            ways.add(tuple(read.index(key) for key in drawn))
    assert len(ways) == 4


def test_a_copy_starts_anew(masks: Path) -> None:
    stream = ShardStream(str(masks), "voc", [take_key])
    first, second = list(stream), list(stream)
    assert first != second
    assert list(copy.deepcopy(stream)) == first


def test_remote_shards_are_decoded_as_local_ones(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", [3, 4], draw_sample)
    fs = fsspec.filesystem("memory")
    fs.put(str(masks), "/bucket/masks", recursive=True)
    local = ShardDataset(str(masks), "voc", DECODE)
    stream = ShardStream("memory://bucket/masks/masks-{000000..000001}.tar", "voc", DECODE, shuffle=False)
    assert stream.metainfo == local.metainfo
    found = [sample for batch in loader_of(stream, batch_size=3, num_workers=2) for sample in batch]
    assert len(found) == 7
    by_key = {Path(sample["data_samples"].img_path).name: sample for sample in found}
    for number in range(7):
        wanted, sample = local[number], by_key[name(number)]
        assert torch.equal(sample["inputs"], wanted["inputs"])
        assert torch.equal(sample["data_samples"].gt_sem_seg.data, wanted["data_samples"].gt_sem_seg.data)
    assert by_key[name(3)]["data_samples"].img_path == f"memory://bucket/masks/masks-000001.tar/{name(3)}"
    assert len(ShardStream("memory://bucket/masks", "voc")) == 7


def test_the_training_loop_of_mmengine_goes_round(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", [3, 5], draw_sample)

    def endless() -> _InfiniteDataloaderIterator:
        return _InfiniteDataloaderIterator(
            Runner.build_dataloader(
                {
                    "dataset": {
                        "type": "ShardStream",
                        "shards": str(masks),
                        "vocabulary": "voc",
                        "pipeline": DECODE,
                        "batch_size": 4,
                    },
                    "sampler": None,
                    "batch_size": 4,
                    "num_workers": 1,
                    "persistent_workers": True,
                },
                seed=3,
            )
        )

    def paths(iterator: _InfiniteDataloaderIterator, count: int) -> list[list[str]]:
        batches = [batch["data_samples"] for batch in islice(iterator, count)]
        return [[sample.img_path for sample in batch] for batch in batches]

    whole = paths(endless(), 4)
    for epoch in (whole[:2], whole[2:]):
        assert len({path for batch in epoch for path in batch}) == 8
    assert whole[:2] != whole[2:]
    resumed = endless()
    resumed.skip_iter(1)
    assert paths(resumed, 1) == whole[1:2]


def run_rank(rank: int, rendezvous: str, masks: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    stream = ShardStream(masks, "voc", [take_key])
    results.put((rank, list(stream)))
    torch.distributed.destroy_process_group()


def test_ranks_of_a_process_group_share_the_samples(masks: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tmp_path / "rendezvous"), str(masks), results)
    processes = [context.Process(target=run_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    shares = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert [len(shares[rank]) for rank in range(2)] == [TOTAL // 2 + 1] * 2
    assert set(shares[0]) | set(shares[1]) == set(EVERYTHING)


# Where the number of samples comes from, and what is refused.


def test_the_ledger_tells_how_many_samples_there_are(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", COUNTS, tiny_sample)
    assert ShardStream(str(masks), "voc").counts.tolist() == COUNTS
    (masks / "index.json").unlink()
    assert ShardStream(str(masks), "voc").counts.tolist() == COUNTS
    (masks / "masks-000002.json").unlink()
    with pytest.raises(ShardError, match=r"nothing tells how many samples '.*masks-000002.tar' holds.*give `samples`"):
        ShardStream(str(masks), "voc")
    assert sorted(ShardStream(str(masks), "voc", [take_key], samples=COUNTS)) == EVERYTHING
    write_index(masks, {f"masks-{number:06d}.tar": count for number, count in enumerate(COUNTS)})
    assert sorted(ShardStream(str(masks), "voc", [take_key])) == EVERYTHING


def test_one_count_for_all_shards(tmp_path: Path) -> None:
    for number, samples in enumerate(numbered([3, 3])):
        write_shard(tmp_path / f"{number}.tar", samples)
    assert sorted(ShardStream(str(tmp_path), "voc", [take_key], samples=3)) == EVERYTHING[:6]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (2, "0.tar' holds more than 2 samples where 2 are listed"),
        (4, "0.tar' holds 3 samples where 4 are listed"),
        ([3, 5], "1.tar' holds 3 samples where 5 are listed"),
        ([3], "does not fit 2 shards"),
        ([3, -1], "does not fit 2 shards"),
        (0, "hold no samples"),
    ],
)
def test_wrong_counts_are_seen(tmp_path: Path, samples, message: str) -> None:
    for number, shard in enumerate(numbered([3, 3])):
        write_shard(tmp_path / f"{number}.tar", shard)
    with pytest.raises(ShardError, match=message):
        list(ShardStream(str(tmp_path), "voc", [take_key], samples=samples, shuffle=False))


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    def refusal(shards, **options) -> str:
        with pytest.raises(UserError) as caught:
            list(ShardStream(str(shards), "voc", [take_key], **options))
        return str(caught.value)

    assert "no shards in" in refusal(tmp_path / "none" / "*.tar")
    assert "no shards in" in refusal("memory://none/*.tar")
    assert "cannot be read after sample 0" in refusal("memory://none/a.tar", samples=1)
    assert "buffer=0" in refusal(tmp_path, buffer=0)
    write_run(tmp_path / "cams", "cams", [[("a", {"jpg": b"", "cam.npz": b"", "json": b""})]])
    assert "holds CAMs, not pseudo-masks" in refusal(tmp_path / "cams")
    write_run(tmp_path / "half", "masks", [[("a", {"jpg": b"", "json": b""})]])
    assert "sample 'a' has members ['jpg', 'json']" in refusal(tmp_path / "half")
    masks = write_masks(tmp_path / "masks", [9], draw_sample)
    (masks / "index.json").write_text("{")
    assert "index.json' is damaged" in refusal(masks)


@pytest.mark.parametrize(("bytes_left", "message"), [(20_000, "holds 4 samples where 9"), (19_000, "cannot be read")])
def test_a_cut_shard_is_an_error(tmp_path: Path, bytes_left: int, message: str) -> None:
    masks = write_masks(tmp_path / "masks", [9], draw_sample)
    shard = masks / "masks-000000.tar"
    shard.write_bytes(shard.read_bytes()[:bytes_left])
    with pytest.raises(ShardError, match=rf"shard '{shard}' {message}.*pseudolabel verify {masks}"):
        list(ShardStream(str(masks), "voc", [take_key]))
