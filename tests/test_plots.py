"""Figures by matplotlib: what is drawn is what the table says, and what is undefined is named."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.plots import FrontierPlots, InformationPlots, ProbePlots, SharePlots, figures

CONDITIONS = ("baseline", "subset", "argmax")


def of_probe(*models: str) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for model in models:
        for name in CONDITIONS:
            change, fidelity = (0.0, 0.8) if name == "baseline" else random.uniform((-0.5, 0.1), (0.5, 0.9))
            row = {"model": model, "condition": name, "relative_change": change, "fidelity": fidelity}
            row |= {f"{key}_low": row[key] - 0.1 for key in ("relative_change", "fidelity")}
            rows.append(row | {f"{key}_high": row[key] + 0.2 for key in ("relative_change", "fidelity")})
    return pd.DataFrame(rows)


def drawn(axes: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each series of points with error bars where they are, and from where to where the bars go."""
    found = []
    for container in axes.containers:
        points = container[0]
        if points is None:
            continue
        bars = [np.array(one)[:, 0] for one in container[2][0].get_segments() if len(one)]
        found.append((points.get_xdata(), np.array(bars)))
    return found


def texts(figure: Any) -> str:
    import matplotlib.text

    return " ".join(one.get_text() for one in figure.findobj(matplotlib.text.Text))


def test_changes_are_those_of_the_table_with_fidelity_beside_them():
    table = of_probe("zoo/ar", "zoo/mim")
    figure = ProbePlots(table).changes()
    left, right = figure.axes[:2]
    for axes, column in ((left, "relative_change"), (right, "fidelity")):
        for (points, bars), model in zip(drawn(axes), ("zoo/ar", "zoo/mim"), strict=True):
            rows: Any = table[(table["model"] == model) & (table["condition"] != "baseline")]
            assert points == pytest.approx(100 * rows[column].to_numpy())
            ends = 100 * rows[[f"{column}_low", f"{column}_high"]].to_numpy()
            assert bars == pytest.approx(ends)
    assert "95% intervals over prompts; dotted: fidelity under baseline" in texts(figure)


def test_what_is_undefined_is_named_and_not_drawn():
    table = of_probe("toy/ar")
    table.loc[table["condition"] == "subset", ["relative_change", "relative_change_low", "relative_change_high"]] = (
        np.nan
    )
    table[["fidelity", "fidelity_low", "fidelity_high"]] = np.nan
    figure = ProbePlots(table).changes()
    assert "n/a: toy/ar under subset" in texts(figure) and figures.NO_FIDELITY in texts(figure)
    (points, _), *_ = drawn(figure.axes[0])
    assert np.isnan(points).tolist() == [True, False]
    assert figures.NO_FIDELITY not in texts(ProbePlots(of_probe("toy/ar")).changes())  # the control


def test_without_a_condition_there_is_nothing_to_draw():
    with pytest.raises(DivlensError, match=r"plot\.changes expects a condition beside baseline"):
        ProbePlots(of_probe("toy/ar").iloc[:1]).changes()


def test_shares_are_bars_of_the_table():
    rows = [
        {"model": model, "condition": "baseline", "source": source, "share": share}
        | {"share_low": share - 0.1, "share_high": share + 0.1}
        for model, shares in (("zoo/ar", (0.1, 0.0, 0.9)), ("zoo/mim", (0.2, 0.5, 0.3)))
        for source, share in zip(("wording", "path", "execution"), shares, strict=True)
    ]
    figure = SharePlots(pd.DataFrame(rows)).shares()
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert widths == pytest.approx([10, 0, 90, 20, 50, 30])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["wording", "path", "execution"]


def test_the_plane_has_brackets_and_names_what_it_lacks():
    values = {"mutual_lower": 1.0, "mutual_upper": 2.5, "relevant": 0.7}
    rows = [
        {"model": model, "condition": "baseline", "quantity": name, "bits_per_image": value}
        | {"image_low": value - 0.2, "image_high": value + 0.3}
        for model, known in (("zoo/ar", 1.0), ("toy/ar", np.nan))
        for name, value in ((name, value * known if name == "relevant" else value) for name, value in values.items())
    ]
    figure = InformationPlots(pd.DataFrame(rows)).plane()
    bracket = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 2)
    assert list(bracket.get_xdata()) == [1.0, 2.5] and list(bracket.get_ydata()) == [0.7, 0.7]
    assert "left out, for a quantity is not known: toy/ar" in texts(figure)


def of_frontier(**others: Any) -> pd.DataFrame:
    methods = ["", "guidance", "guidance", "top-p", "top-p"]
    return pd.DataFrame(
        {
            "method": methods,
            "condition": ["baseline", "guidance=2", "guidance=1", "top-p=0.9", "top-p=0.8"],
            "in_pareto_set": [False, False, True, True, False],
            **{name: np.linspace(0.5, 0.9, 5) for name in ("diversity", "diversity_low", "diversity_high")},
            **{name: np.linspace(0.9, 0.5, 5) for name in ("fidelity", "fidelity_low", "fidelity_high")},
            **others,
        }
    )


def test_a_frontier_draws_guidance_as_its_curve():
    figure = FrontierPlots(of_frontier(law_distance=0.1)).frontier()
    curve = next(line for line in figure.axes[0].lines if line.get_label() == "baseline and plain guidance")
    assert list(curve.get_xdata()) == pytest.approx([90, 80, 70]) and curve.get_linestyle() == "--"
    assert "guidance=1" in texts(figure) and "openness, %" in texts(figure)  # the most faithful of the Pareto set
    assert "LPIPS diversity" in texts(FrontierPlots(of_frontier()).frontier())
    with pytest.raises(DivlensError, match=r"plot\.frontier expects a figure of fidelity"):
        FrontierPlots(of_frontier().drop(columns="fidelity")).frontier()


@pytest.mark.parametrize("family", ["ar", "mim", "diffusion"])
def test_a_replay_shows_when_each_token_was_fixed_and_its_bits(family):
    found = divlens.sample(f"toy/{family}", ["a cat", "snow"], 3, trace=True)
    figure = found.plot.replay(1, 2)
    assert found.trace is not None
    steps, row = found.trace.steps, 1 * 3 + 2
    fixed = np.full(steps[0].state.shape[1], -1)
    bits = np.zeros(len(steps))
    for number, step in enumerate(steps):
        for place in range(len(fixed)):
            if bool(step.committed[row, place]):
                fixed[place] = number
                bits[number] -= float(step.log_probability[row, place]) / np.log(2)
    left, middle, right = figure.axes[:3]
    assert np.ma.filled(middle.images[0].get_array(), -1).flatten().tolist() == fixed.tolist()
    assert list(right.lines[0].get_ydata()) == pytest.approx(list(np.cumsum(bits)))
    assert np.abs(left.images[0].get_array() - found.images[1, 2].permute(1, 2, 0).numpy()).max() < 1e-6
    assert not torch.equal(found.images[1, 2], found.images[0, 0])  # the control


def test_a_replay_says_what_it_lacks():
    plain = divlens.sample("toy/ar", ["a cat"], 2)
    with pytest.raises(DivlensError, match=r"plot\.replay expects what divlens\.sample\(\.\.\., trace=True\) returns"):
        plain.plot.replay()
    traced = divlens.sample("toy/ar", ["a cat"], 2, trace=True)
    with pytest.raises(DivlensError, match=r"plot\.replay expects a sample from 0 to 1, got 2"):
        traced.plot.replay(0, 2)


@pytest.mark.usefixtures("colours_for_lpips")
def test_results_have_their_figures(tmp_path):
    probe = divlens.probe("toy/mim", ["a cat", "snow", "sea"], 4, conditions={"baseline": [], "hot": divlens.TopK(1)})
    probe.plot.changes().savefig(tmp_path / "changes.pdf")
    split = divlens.decompose("toy/mim", ["a cat", "snow", "sea"], 1, 2, 2)
    split.plot.shares().savefig(tmp_path / "shares.png")
    divlens.information("toy/mim", ["a cat", "snow"], n=8).plot.plane().savefig(tmp_path / "plane.svg")
    assert {path.stat().st_size > 1000 for path in tmp_path.iterdir()} == {True}
    assert "matplotlib.pyplot" not in sys.modules  # a figure is nobody's but the caller's


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("divlens.plots.style.find_spec", lambda name: None)
    with pytest.raises(DivlensError, match=r"figures need matplotlib: pip install 'divlens\[plots\]'"):
        ProbePlots(of_probe("toy/ar")).changes()
