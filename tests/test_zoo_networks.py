"""The networks of the zoo's generators: where things are, they learn from how far apart these are."""

import pytest
import torch

from divlens.models.zoo.networks import GRID, POSITIONS, Backbone, Sizes, grid_angles, rotated


def products(query, key, cells):
    """Of one query and one key, turned for each cell, the product of every pair of cells."""
    angles = grid_angles(cells, len(query) // 2)
    queries, keys = (rotated(part.expand(len(cells), -1), angles) for part in (query, key))
    return queries @ keys.T


def test_a_product_depends_on_how_far_apart_two_cells_are():
    """And, as it must, not only on how far apart they are in raster order."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 56, generator=generator, dtype=torch.float64)
    cells = torch.arange(POSITIONS)
    found = products(query, key, cells)
    row, column = cells // GRID, cells % GRID
    by_distance: dict[tuple[int, int], list[float]] = {}
    for i in range(POSITIONS):
        for j in range(POSITIONS):
            by_distance.setdefault((int(row[j] - row[i]), int(column[j] - column[i])), []).append(float(found[i, j]))
    assert len(by_distance) == (2 * GRID - 1) ** 2
    means = {distance: sum(values) / len(values) for distance, values in by_distance.items()}
    for distance, values in by_distance.items():
        assert values == pytest.approx([means[distance]] * len(values), abs=1e-5)
    assert len({round(value, 4) for value in means.values()}) > 0.9 * len(means)


def test_turning_keeps_lengths():
    x = torch.randn(POSITIONS, 56, generator=torch.Generator().manual_seed(1))
    turned = rotated(x, grid_angles(torch.arange(POSITIONS), 28))
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1))
    assert not torch.allclose(turned[1:], x[1:], atol=0.1)
    torch.testing.assert_close(turned[0], x[0])  # the first cell is where nothing is turned


@torch.inference_mode()
def test_one_element_at_a_time_is_the_whole_sequence():
    """The caches of a causal backbone; its key is that of the cell before, or nothing would be known of it."""
    torch.manual_seed(0)
    backbone = Backbone(Sizes(50, causal=True, width=32, layers=2, heads=2, codes=16, rotary=True)).eval()
    for parameter in backbone.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
    ids, condition = torch.randint(16, (3, POSITIONS - 1)), torch.randn(3, 32)
    sequence, modulations = backbone.embed(ids, condition), backbone.modulations(condition)
    whole = backbone.trunk(sequence, modulations)
    caches = backbone.new_caches(3)
    steps = [backbone.trunk(sequence[:, [i]], modulations, caches) for i in range(POSITIONS)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    fresh = [backbone.trunk(sequence[:, [i]], modulations, backbone.new_caches(3)) for i in range(POSITIONS)]
    assert not torch.allclose(torch.cat(fresh, dim=1), whole, atol=0.1)
