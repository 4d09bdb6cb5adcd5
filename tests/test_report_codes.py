"""What a report says of codes, and of where and when bits fall: against counts of the stored tokens, and the tables."""

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

import divlens
from divlens.pages import page, stored
from divlens.pages.code_charts import code_figures
from divlens.pages.codes import counts_of, curve_of, map_rows, pooled, step_rows, usage_rows
from divlens.store.reader import open_run
from oracles.colour_network import colour_network

MODELS, CONDITIONS = ["toy/ar", "toy/mim"], {"baseline": (), "half": divlens.Subset(0.5)}
PROMPTS = ["red heart", "a cat"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_of_the_session):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("divlens.experiment.comparison"), "load_network", lambda name: colour_network())
        divlens.probe(MODELS, PROMPTS, 6, conditions=CONDITIONS, out=folder)
        divlens.information(MODELS[1], PROMPTS, 6, out=folder)
    return open_run(folder)


def test_usage_is_counted_among_the_tokens_of_the_first_samples(run):
    found: Any = run.samples
    for samples in (6, 2):
        for condition in CONDITIONS:
            rows = found[
                (found["model"] == "toy/mim:0") & (found["condition"] == condition) & (found["sample"] < samples)
            ]
            counts = np.bincount(np.concatenate(rows["tokens"].to_list()))
            expected = np.sort(counts[counts > 0])[::-1]
            assert counts_of(run, "toy/mim:0", condition, samples).tolist() == expected.tolist()
    rows = usage_rows(run, run.requests["probe"], list(CONDITIONS))
    assert list(rows) == ["toy/ar:0", "toy/mim:0"]
    last = {row["series"]: row for row in rows["toy/mim:0"]}
    assert [row["share"] for row in last.values()] == [100, 100]
    assert last["half"]["codes"] < last["baseline"]["codes"]


def test_an_even_usage_is_a_straight_line_with_all_codes_effective():
    rows = list(curve_of("x", np.array([5, 5, 5, 5])))
    assert [(row["rank"], row["share"]) for row in rows] == [(1, 25), (2, 50), (3, 75), (4, 100)]
    assert rows[0]["effective"] == pytest.approx(4) and rows[0]["codes"] == 4
    skewed = next(iter(curve_of("x", np.array([17, 1, 1, 1]))))
    assert skewed["share"] == 85 and skewed["effective"] == pytest.approx(
        np.exp(-(0.85 * np.log(0.85) + 3 * 0.05 * np.log(0.05)))
    )


def test_bits_of_maps_and_steps_are_those_of_the_tables(run):
    tables = run.tables("information")
    steps, maps = tables["steps"], tables["maps"]
    rows: Any = pd.DataFrame(step_rows(steps))
    assert set(rows["done"]) == {100 * step / steps["step"].max() for step in steps["step"]}
    ((series, cells),) = map_rows(maps).items()
    found: Any = pd.DataFrame(cells)
    assert series == "toy/mim:0" and found["of_most"].max() == 1 and found["of_most"].min() >= 0
    for kind in ("path", "execution"):
        assert rows.query(f"kind == '{kind}'")["bits"].to_list() == pytest.approx(steps[kind].to_list())
        of_kind = found.query(f"kind == '{kind}'")
        assert of_kind.query("stage == 0")["bits"].sum() == pytest.approx(maps[kind].sum())
        assert of_kind.query("stage > 0")["bits"].sum() == pytest.approx(maps[kind].sum())
        by_column = of_kind.query("stage == 0").sort_values("column")["bits"]
        assert by_column.to_list() == pytest.approx(maps.groupby("column")[kind].sum().to_list())


def test_a_model_of_one_step_has_its_maps():
    cell = {"model": "one", "condition": "baseline", "step": 0, "row": 0, "column": 0, "path": 0.0, "execution": 3.0}
    ((_, rows),) = map_rows(pd.DataFrame([cell])).items()
    assert [(row["kind"], row["stage"], row["bits"]) for row in rows if row["bits"]] == [
        ("execution", 0, 3.0),
        ("execution", 1, 3.0),
    ]


def test_neighbours_of_a_large_grid_are_meaned():
    grid = np.random.default_rng(0).random((3, 40, 17))
    found = pooled(grid)
    assert found.shape == (3, 14, 9)
    assert found[1, 0, 0] == pytest.approx(grid[1, :3, :2].mean())
    assert found[1, 13, 8] == pytest.approx(grid[1, 39:, 16:].mean())  # what is left at the edges
    assert pooled(np.ones((1, 24, 18))) == pytest.approx(1)  # an even map stays even
    np.testing.assert_array_equal(pooled(grid[:, :16, :8]), grid[:, :16, :8])


def test_a_page_shows_them_and_leaves_out_what_is_not_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "load_network", lambda name: colour_network())
    monkeypatch.setattr(page, "chart_library", lambda: "// charts")
    text = divlens.report(run, tmp_path / "a.html", replay=0).read_text()
    for words in ("Codes that are used, toy/ar:0", "When bits are decided", "Where bits fall, toy/mim:0"):
        assert words in text
    assert [figure.key for figure in code_figures({}, None, None)] == []
