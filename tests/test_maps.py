"""Maps of where and when the bits fall."""

import numpy as np
import pytest

import divlens
from divlens.heat_maps import HEAT, STAGES, TILE, heat, heat_sheet, stages
from divlens.models import load


def corner(picture, place):
    return tuple(int(channel) for channel in picture.getpixel(place))


def test_heat_goes_from_dark_to_bright_and_keeps_rows_and_columns_apart():
    picture = heat(np.array([[0.0, 0.5], [1.0, 2.0]]), most=1.0)
    last = TILE - 1
    dark, middle, bright = (tuple(HEAT[i].astype(int)) for i in (0, 2, 4))
    assert corner(picture, (0, 0)) == dark
    assert corner(picture, (last, 0)) == middle
    assert corner(picture, (0, last)) == bright == corner(picture, (last, last))  # what is above the scale is cut
    assert corner(heat(np.ones((2, 2)), most=0.0), (0, 0)) == dark  # nothing to scale by


@pytest.mark.parametrize("steps", [1, 3, STAGES, 23])
def test_stages_lose_no_bits(steps):
    part = np.random.default_rng(0).random((steps, 2, 3))
    found = stages(part)
    assert len(found) == min(STAGES, steps)
    assert np.allclose(sum(found), part.sum(0))
    assert not np.allclose(found[0], part.sum(0)) or steps == 1  # the control


def test_the_sheet_has_two_rows_per_model():
    results = [divlens.information(load(f"toy/{family}"), ["red heart", "a cat"], n=4) for family in ("ar", "mim")]
    maps = [("", part) for result in results for part in (result.path_map, result.execution_map)]
    one, both = heat_sheet(maps[:2]), heat_sheet(maps)
    assert one.width == both.width and both.height > 1.9 * one.height
    path, execution = 40, 40 + TILE + 22
    assert corner(one, (20, path)) == tuple(HEAT[0].astype(int))  # AR draws no path
    assert corner(one, (20, execution)) != corner(one, (20, path))
