"""The permutohedral lattice against one of dictionaries, written out vertex by vertex from the paper."""

import numpy as np
import pytest
import torch

from pseudolabel.crf.lattice import build_lattice, find_simplices, join_lattices
from pseudolabel.errors import LatticeOverflowError


def plain_simplex(point):
    """Vertices, as tuples of d + 1 coordinates, and barycentric weights (Adams et al. 2010, section 3.1)."""
    d = len(point)
    basis = np.zeros((d + 1, d))
    for column in range(d):
        basis[: column + 1, column] = 1
        basis[column + 1, column] = -(column + 1)
        basis[:, column] /= np.sqrt((column + 1) * (column + 2))
    x = basis @ point * np.sqrt(2 / 3) * (d + 1)
    # The simplex's vertices are the points of A*_d nearest to x, one of each remainder.
    nearest = np.round(x / (d + 1)) * (d + 1)
    order = np.argsort(-(x - nearest), kind="stable")
    off = round(nearest.sum() / (d + 1))
    for place in order[-off:] if off > 0 else []:
        nearest[place] -= d + 1
    for place in order[:-off] if off < 0 else []:
        nearest[place] += d + 1
    order = np.argsort(-(x - nearest), kind="stable")
    vertices, vertex = [], nearest.copy()
    for remainder in range(d + 1):
        vertices.append(tuple(int(value) for value in vertex))
        # The next vertex is one step along all axes, and back by d + 1 along the one with the smallest distance left.
        vertex = vertex + 1
        vertex[order[d - remainder]] -= d + 1
    matrix = np.vstack([np.array(vertices, float).T, np.ones(d + 1)])
    return vertices, np.linalg.lstsq(matrix, np.append(x, 1.0), rcond=None)[0]


def plain_filter(points, values):
    """Splat, blur and slice with a dictionary of vertices; points of one image."""
    d = points.shape[1]
    simplices = [plain_simplex(point) for point in points]
    ghosts = plain_simplex(np.zeros(d))[0] if len(points) % 4 else []
    table = {vertex: np.zeros(values.shape[1]) for vertices, _ in simplices for vertex in vertices}
    table |= {vertex: np.zeros(values.shape[1]) for vertex in ghosts if vertex not in table}
    for (vertices, weights), value in zip(simplices, values, strict=True):
        for vertex, weight in zip(vertices, weights, strict=True):
            table[vertex] = table[vertex] + weight * value
    for axis in range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] = d
        zero = np.zeros(values.shape[1])
        table = {
            vertex: value
            + 0.5 * table.get(tuple(np.array(vertex) + step), zero)
            + 0.5 * table.get(tuple(np.array(vertex) - step), zero)
            for vertex, value in table.items()
        }
    sums = [
        sum(weight * table[vertex] for vertex, weight in zip(vertices, weights, strict=True))
        for vertices, weights in simplices
    ]
    return np.array(sums) / (1 + 0.5**d)


def draw(seed, count, dimensions, spread=3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (count, dimensions)).astype(np.float32), rng.random((count, 2), np.float32)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_simplices_contain_their_points(dimensions):
    points, _ = draw(0, 200, dimensions)
    rounded, ranks, weights = find_simplices(torch.from_numpy(points).T)
    assert torch.equal(rounded.sum(0), torch.zeros(200))
    assert torch.equal(ranks.sort(0).values, torch.arange(dimensions + 1)[:, None].expand(-1, 200))
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-5)
    assert weights.min() > -1e-5
    for number, point in enumerate(points):
        vertices, expected = plain_simplex(point.astype(float))
        assert vertices[0] == tuple(rounded[:, number].int().tolist())
        np.testing.assert_allclose(weights[:, number], expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 37, 120])
@pytest.mark.parametrize("dimensions", [2, 5])
def test_filtering_equals_a_version_with_dictionaries(count, dimensions):
    points, values = draw(count, count, dimensions, spread=1.0)
    found = build_lattice([torch.from_numpy(points)]).filter(torch.from_numpy(values))
    np.testing.assert_allclose(found, plain_filter(points.astype(float), values), rtol=1e-4, atol=1e-5)


def test_neighbours_are_blurred_through_the_vertices_around_the_origin():
    """With a number of points that is no multiple of four, as the C++ has it on x86."""
    points = torch.tensor([[0.9, 0.0], [-0.9, 0.0], [0.0, 0.9], [0.0, -0.9]])
    values = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    three = build_lattice([points[:3]]).filter(values[:3])
    np.testing.assert_allclose(three, plain_filter(points[:3].numpy().astype(float), values[:3].numpy()), atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_images_are_independent(dimensions):
    """Neither in one lattice, nor in joined ones; to the byte."""
    images = [draw(seed, count, dimensions) for seed, count in enumerate((1, 30, 44, 7))]
    points = [torch.from_numpy(points) for points, _ in images]
    values = torch.cat([torch.from_numpy(values) for _, values in images])
    alone = [build_lattice([own]).normalised(2.0) for own in points]
    expected = torch.cat(
        [lattice.filter(torch.from_numpy(own)) for lattice, (_, own) in zip(alone, images, strict=True)]
    )
    assert torch.equal(build_lattice(points).normalised(2.0).filter(values), expected)
    assert torch.equal(join_lattices(alone).filter(values), expected)


def test_a_normalised_kernel_is_divided_by_the_roots_of_its_sums():
    points, _ = draw(3, 60, 2, spread=0.5)
    lattice = build_lattice([torch.from_numpy(points)])
    kernel, sums = lattice.filter(torch.eye(60)), lattice.filter(torch.ones(60, 1))
    np.testing.assert_allclose(
        lattice.normalised(3.0).filter(torch.eye(60)), 3 * kernel / (sums * sums.T).sqrt(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0.0, 0.0], [1e9, 0.0]], "too far apart"),
        ([[0.0, 0.0], [float("inf"), 0.0]], "too far apart"),
        ([[float("nan"), 0.0]], "too far apart"),
        ([[0.0] * 5, [2e4] * 5], "too large to be numbered"),
    ],
)
def test_a_lattice_overflow_is_refused(points, message):
    with pytest.raises(LatticeOverflowError, match=message):
        build_lattice([torch.tensor(points)])


def test_more_images_overflow_earlier():
    """Digits of the image count, too: half of the batch may fit where the whole does not."""
    points = torch.zeros(2, 5)
    points[1] = 900.0
    build_lattice([points])
    with pytest.raises(LatticeOverflowError, match="too large to be numbered"):
        build_lattice([points] * 5000)
