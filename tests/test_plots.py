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
from divlens.plots.style import MARKS

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
    """Of each series of points where they are, and from where to where its bars go."""
    points = [line.get_xdata() for line in axes.lines if line.get_marker() in MARKS]
    return list(zip(points, bars_of(axes), strict=True))


def bars_of(axes: Any, along: int = 0) -> list[np.ndarray]:
    """From where to where the bars of each series go, from left to right or, at 1, from below to above."""
    segments = [container[2][0].get_segments() for container in axes.containers if container[0] is None]
    return [np.array([np.array(one)[:, along] for one in of_series if len(one)]) for of_series in segments]


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
    assert "n/a: change of toy/ar under subset" in texts(figure) and figures.NO_FIDELITY in texts(figure)
    (points, _), *_ = drawn(figure.axes[0])
    assert np.isnan(points).tolist() == [True, False]
    assert figures.NO_FIDELITY not in texts(ProbePlots(of_probe("toy/ar")).changes())  # the control


def test_an_interval_is_drawn_from_end_to_end_and_a_missing_one_is_named():
    table = of_probe("toy/ar")
    assert "no interval" not in texts(ProbePlots(table).changes())  # the control
    table.loc[table["condition"] == "argmax", "relative_change_low"] = 2.0  # beyond the value
    table.loc[table["condition"] == "argmax", "relative_change_high"] = 3.0
    table.loc[table["condition"] == "subset", ["fidelity_low", "fidelity_high"]] = np.nan
    figure = ProbePlots(table).changes()
    left, right = figure.axes[:2]
    assert bars_of(left)[0][1] == pytest.approx([200, 300])
    ends = 100 * table.loc[table["condition"] == "argmax", ["fidelity_low", "fidelity_high"]].to_numpy()
    assert bars_of(right)[0] == pytest.approx(ends)
    assert "no interval of fidelity of toy/ar under subset" in texts(figure).replace("\n", " ")
    table[[name for name in table if name.endswith(("_low", "_high"))]] = np.nan
    assert "no intervals: they are not known" in texts(ProbePlots(table).changes())


def test_without_a_condition_there_is_nothing_to_draw():
    with pytest.raises(DivlensError, match=r"plot\.changes expects a condition beside baseline"):
        ProbePlots(of_probe("toy/ar").iloc[:1]).changes()


def of_shares() -> pd.DataFrame:
    return pd.DataFrame(
        {"model": model, "condition": "baseline", "source": source, "share": share}
        | {"share_low": share - 0.1, "share_high": share + 0.1}
        for model, shares in (("zoo/ar", (0.1, 0.0, 0.9)), ("zoo/mim", (0.2, 0.5, 0.3)))
        for source, share in zip(("wording", "path", "execution"), shares, strict=True)
    )


def test_shares_are_bars_of_the_table():
    figure = SharePlots(of_shares()).shares()
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert widths == pytest.approx([10, 0, 90, 20, 50, 30])
    assert bars_of(figure.axes[0])[1] == pytest.approx(np.array([[10, 30], [40, 60], [20, 40]]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["wording", "path", "execution"]
    assert "n/a" not in texts(figure)  # the control of the next test


def test_a_share_that_is_undefined_is_no_share_of_zero():
    table = of_shares()
    table.loc[1, ["share", "share_low", "share_high"]] = np.nan
    figure = SharePlots(table).shares()
    assert [patch.get_width() for patch in figure.axes[0].patches] == pytest.approx([10, 90, 20, 50, 30])
    assert "n/a: path of zoo/ar" in texts(figure)


BOUNDS = {"conditional_lower": 8.0, "conditional_upper": 9.0, "sequence_lower": 10.0, "sequence_upper": 11.0}
BOUNDS |= {"mutual_lower": 1.0, "mutual_upper": 2.5, "ceiling": 3.0, "relevant": 0.7}


def of_information(**models: dict[str, float]) -> pd.DataFrame:
    """By model, what is other than BOUNDS."""
    return pd.DataFrame(
        {"model": model, "condition": "baseline", "quantity": name, "bits_per_image": value}
        | {"image_low": value - 0.2, "image_high": value + 0.3}
        for model, others in models.items()
        for name, value in (BOUNDS | others).items()
    )


def test_the_planes_have_brackets_with_their_intervals():
    figure = InformationPlots(of_information(ar={})).plane()
    for axes, (x, y) in zip(figure.axes, (((8, 9), (10, 11)), ((1, 2.5), (0.7, 0.7))), strict=True):
        across, upright = (line for line in axes.lines if line.get_linewidth() == 5)
        assert tuple(across.get_xdata()) == x and set(across.get_ydata()) == {sum(y) / 2}
        assert tuple(upright.get_ydata()) == y and set(upright.get_xdata()) == {sum(x) / 2}
        assert bars_of(axes)[0][0] == pytest.approx([x[0] - 0.2, x[1] + 0.3])
        assert bars_of(axes, 1)[1][0] == pytest.approx([y[0] - 0.2, y[1] + 0.3])
        assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0  # a plane that begins elsewhere makes much of little
    assert "I(X;Z) is at most 3 bits" in texts(figure).replace("\n", " ") and "left out" not in texts(figure)


def test_the_planes_name_what_they_lack():
    figure = InformationPlots(of_information(ar={}, mim={"relevant": np.nan}, toy={"sequence_upper": np.nan})).plane()
    shown = [[line.get_label() for line in axes.lines if line.get_marker() in MARKS] for axes in figure.axes]
    assert shown == [["ar", "mim"], ["ar", "toy"]]
    assert "left out, for a quantity is not known: mim (I(X;Z), I(Z;Y)), toy (H(Z|X), H(Z))" in texts(figure).replace(
        "\n", " "
    )


ENDS = {"": 0.0, "_low": -0.1, "_high": 0.1}


def of_frontier(**others: Any) -> pd.DataFrame:
    methods = ["", "guidance", "guidance", "top-p", "top-p"]
    return pd.DataFrame(
        {
            "method": methods,
            "condition": ["baseline", "guidance=2", "guidance=1", "top-p=0.9", "top-p=0.8"],
            "in_pareto_set": [False, False, True, True, False],
            **{f"diversity{end}": np.linspace(0.5, 0.9, 5) + by for end, by in ENDS.items()},
            **{f"fidelity{end}": np.linspace(0.9, 0.5, 5) + by for end, by in ENDS.items()},
            **others,
        }
    )


def test_a_frontier_draws_guidance_as_its_curve():
    figure = FrontierPlots(of_frontier(law_distance=0.1)).frontier()
    curve = next(line for line in figure.axes[0].lines if line.get_label() == "baseline and plain guidance")
    assert list(curve.get_xdata()) == pytest.approx([90, 80, 70]) and curve.get_linestyle() == "--"
    assert "Pareto set: guidance=1, top-p=0.9" in texts(figure) and "openness, %" in texts(figure)
    assert "n/a" not in texts(figure)  # the control
    across, upright = bars_of(figure.axes[0])[::2], bars_of(figure.axes[0], 1)[1::2]
    assert [len(one) for one in across] == [len(one) for one in upright] == [2, 2]  # of guidance, of the Pareto set
    assert upright[1] == pytest.approx(np.array([[60, 80], [70, 90]]))
    lost = of_frontier()
    lost.loc[4, "diversity"] = np.nan
    assert "n/a: top-p=0.8" in texts(FrontierPlots(lost).frontier())
    assert "LPIPS diversity" in texts(FrontierPlots(of_frontier()).frontier())
    with pytest.raises(DivlensError, match=r"plot\.frontier expects a figure of fidelity"):
        FrontierPlots(of_frontier().drop(columns="fidelity")).frontier()


@pytest.mark.parametrize("family", ["ar", "mim", "diffusion"])
def test_a_replay_shows_when_each_token_was_fixed_and_its_bits(family):
    found = divlens.sample(f"toy/{family}", ["a cat", "snow"], 3, trace=True)
    figure = found.plot.replay(1, 2)
    assert found.trace is not None
    steps, row = found.trace.steps, 1 * 3 + 2
    since = np.full(steps[0].state.shape[1], -1)
    bits = np.zeros(len(steps))
    for number, step in enumerate(steps):
        for place in range(len(since)):
            if number and step.state[row, place] == steps[number - 1].state[row, place]:
                changed = False
            else:
                changed = number > 0 or bool(step.committed[row, place])
            since[place] = number + 1 if changed else since[place]
            if bool(step.committed[row, place]):
                bits[number] -= float(step.log_probability[row, place]) / np.log(2)
    left, middle, right = figure.axes[:3]
    assert np.ma.filled(middle.images[0].get_array(), -1).flatten().tolist() == since.tolist()
    assert [bar.get_height() for bar in right.patches] == pytest.approx(list(bits))
    assert np.abs(left.images[0].get_array() - found.images[1, 2].permute(1, 2, 0).numpy()).max() < 1e-6
    assert not torch.equal(found.images[1, 2], found.images[0, 0])  # the control


def test_text_of_others_is_drawn_as_it_is(tmp_path):
    """Dollars are no formula, what hides is written out, and what the font lacks has its name: no warning, no error."""
    found = divlens.sample("toy/ar", ["$\\frac{ \U0001f680 costs $5"], 1, trace=True)
    figure = found.plot.replay()
    figure.savefig(tmp_path / "replay.png")
    assert "$\\frac{ [rocket] costs $5" in texts(figure)
    odd = "$\\bad$\x1b \u732b"
    table = of_probe(odd, "zoo/ar").replace({"condition": {"subset": odd, "baseline": "$\\no$"}})
    table.loc[1, "relative_change"] = np.nan
    figure = ProbePlots(table).changes()
    figure.savefig(tmp_path / "changes.png")
    shown = "$\\bad$\\x1b [cjk unified ideograph-732b]"
    left = figure.axes[0]
    assert left.get_yticklabels()[0].get_text() == left.get_legend().get_texts()[0].get_text() == shown
    assert f"n/a: change of {shown} under {shown}" in texts(figure).replace("\n", " ")


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
    pyplot: Any = sys.modules.get("matplotlib.pyplot")  # another test may have imported it
    assert pyplot is None or pyplot.get_fignums() == []  # a figure is nobody's but the caller's


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("divlens.plots.style.find_spec", lambda name: None)
    with pytest.raises(DivlensError, match=r"figures need matplotlib: pip install 'divlens\[plots\]'"):
        ProbePlots(of_probe("toy/ar")).changes()
