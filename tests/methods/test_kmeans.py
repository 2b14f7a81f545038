"""K-means against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, kmeans_plusplus

from pseudolabel.methods.kmeans import kmeans, lloyd, plus_plus
from pseudolabel.methods.precision import full_precision

RESTARTS = 4


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def blobs(seed, count=300, width=12, groups=6, spread=1.0):
    """Points (count, width) around some places, in float32."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(groups, width)) * 2
    return (places[rng.integers(groups, size=count)] + spread * rng.normal(size=(count, width))).astype(np.float32)


def distributions(seed, count=256, width=256):
    """Rows like attention's: positive, summing to one, nearly equal within a few groups."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, width))[rng.integers(5, size=count)] + 0.7 * rng.normal(size=(count, width))
    rows = np.exp(logits)
    return (rows / rows.sum(1, keepdims=True)).astype(np.float32)


def inertia_of(points, labels):
    """The sum of squared distances from the labels' means, point by point."""
    total = 0.0
    for label in set(labels.tolist()):
        members = points[labels == label].astype(np.float64)
        total += sum(np.sum((row - members.mean(0)) ** 2) for row in members)
    return total


@pytest.mark.parametrize("make", [blobs, distributions], ids=["blobs", "distributions"])
@pytest.mark.parametrize("clusters", [1, 2, 4, 6, 17])
def test_results_equal_scikit_learn_from_the_same_centres(make, clusters):
    images = [make(seed) for seed in range(3)]
    rng = np.random.default_rng(9)
    starts = [[points[rng.choice(len(points), clusters, replace=False)] for _ in range(RESTARTS)] for points in images]
    labels, inertia = lloyd(torch.from_numpy(np.stack(images)), torch.from_numpy(np.array(starts)))
    for image, points in enumerate(images):
        for start, centres in enumerate(starts[image]):
            theirs = KMeans(clusters, init=centres, n_init=1, algorithm="lloyd").fit(points)
            np.testing.assert_array_equal(labels[image, start].numpy(), theirs.labels_)
            assert inertia[image, start].item() == pytest.approx(theirs.inertia_, rel=1e-3)


def test_an_empty_cluster_gets_the_farthest_point_as_in_scikit_learn():
    points = blobs(3)
    centres = np.concatenate([points[:3], np.full((2, points.shape[1]), 1e3, np.float32)])
    labels, _ = lloyd(torch.from_numpy(points)[None], torch.from_numpy(centres)[None, None])
    theirs = KMeans(5, init=centres, n_init=1, algorithm="lloyd").fit(points)
    np.testing.assert_array_equal(labels[0, 0].numpy(), theirs.labels_)
    assert len(labels.unique()) == 5


@pytest.mark.parametrize("make", [blobs, distributions], ids=["blobs", "distributions"])
@pytest.mark.parametrize("clusters", [2, 6, 10])
def test_the_best_start_is_about_as_good_as_scikit_learns(make, clusters):
    for seed in range(4):
        points = make(seed)
        labels = kmeans(torch.from_numpy(points)[None], clusters, generators(seed), restarts=10)[0].numpy()
        theirs = KMeans(clusters, n_init=10, random_state=seed).fit(points)
        assert inertia_of(points, labels) <= 1.02 * inertia_of(points, theirs.labels_)


def test_more_starts_are_no_worse_and_the_best_is_kept():
    points = torch.from_numpy(blobs(1, spread=2.0))[None]
    _, inertia = lloyd(points, plus_plus(points, 8, generators(0), 10))
    kept = kmeans(points, 8, generators(0), 10)[0].numpy()
    assert inertia.max() > 1.001 * inertia.min()  # else there is nothing to choose
    assert inertia_of(points[0].numpy(), kept) == pytest.approx(inertia.min().item(), rel=1e-4)


def test_initial_centres_are_distributed_as_in_scikit_learn():
    """Greedy k-means++ is random; its mean cost before the first step is compared over many starts."""
    points = blobs(5)
    chosen = plus_plus(torch.from_numpy(points)[None], 6, generators(0), 200)[0].numpy()
    theirs = [kmeans_plusplus(points, 6, random_state=seed)[0] for seed in range(200)]

    def costs(starts):
        distances = ((points[None, :, None] - np.asarray(starts)[:, None]) ** 2).sum(-1)
        return distances.min(-1).sum(-1)

    assert costs(chosen).mean() == pytest.approx(costs(theirs).mean(), rel=0.03)
    assert {tuple(row) for start in chosen for row in start} <= {tuple(row) for row in points}


def test_an_image_depends_only_on_its_generator():
    one, other = (torch.from_numpy(blobs(seed)) for seed in range(2))
    together = kmeans(torch.stack([one, other]), 5, generators(3, 4), RESTARTS)
    assert torch.equal(together[1], kmeans(other[None], 5, generators(4), RESTARTS)[0])
    assert torch.equal(together[0], kmeans(one[None], 5, generators(3), RESTARTS)[0])


def test_fewer_distinct_points_than_clusters():
    points = torch.tensor([0.0, 0, 0, 5, 5, 9])[None, :, None]
    labels = kmeans(points, 5, generators(0), RESTARTS)[0]
    assert len(labels.unique()) == 3
    assert len(labels[:3].unique()) == len(labels[3:5].unique()) == 1
    assert torch.equal(
        kmeans(torch.ones(1, 4, 2), 2, generators(0))[0].unique(return_counts=True)[1], torch.tensor([4])
    )


@pytest.mark.parametrize(("clusters", "seeds"), [(0, (0,)), (7, (0,)), (2, (0, 1))])
def test_invalid_numbers_are_refused(clusters, seeds):
    with pytest.raises(ValueError, match=f"{clusters} clusters and {len(seeds)} generators"):
        kmeans(torch.zeros(1, 6, 2), clusters, generators(*seeds))


def test_full_precision_ends_with_its_context():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
