"""Dose and response: halving on closed forms, what is left by plain counting, and the curves of probes and runs."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import divlens
from divlens import Argmax, Freeze, Subset, Temperature, probe
from divlens.conditions import BASELINE
from divlens.doses import doses
from divlens.doses.curves import first_crossing, halving, share_left
from divlens.doses.result import halving_text, sweeps_in
from divlens.errors import DivlensError
from divlens.experiment.measures import DIVERSITY, FIDELITY, named, usual_measures
from divlens.models.toy import RULES, ToyModel
from divlens.statistics import Interval, change_of_share, relative_change
from divlens.sweeps import sweep, with_sweeps
from divlens.verdict.evidence import interventions_alone
from oracles.colour_network import colour_network
from oracles.run_folders import record_of

PROMPTS = ("a cat", "a dog", "red heart", "sky", "sea", "sun", "snow")
SWEEPS = ("Subset=1,0.67,0.34", "Argmax=0.5,1", "Temperature=0.3,3", "TopK=2,1", "Paraphrase=1,4")
LPIPS, RIGHT = (named(usual_measures(None), name) for name in (DIVERSITY, FIDELITY))

# Where half is left


def bands(values, width=0.1):
    return [Interval(value, value - width, value + width) for value in values]


@pytest.mark.parametrize(("start", "sign"), [(1.0, -1.0), (0.0, 1.0), (3.0, 2.5)])
def test_a_straight_line_halves_in_its_middle(start, sign):
    """What is left is 1 - way, the band 0.1 to either side: half is at 0.5 of the way, its interval 0.4 to 0.6."""
    way = np.array([0.0, 0.1, 0.3, 0.7, 0.9])
    found = halving(list(start + sign * way), bands(1 - way)).dose
    expected = sorted([start + sign * 0.4, start + sign * 0.6])
    assert [found.value, found.low, found.high] == pytest.approx([start + sign * 0.5, *expected])


def test_a_curve_is_taken_for_straight_between_doses_only():
    """1 / (1 + dose) halves at 1, and its polygon close to that; a dose there makes it exact."""
    for grid in (np.linspace(0, 3, 40), np.linspace(0, 3, 400)):
        found = halving(list(grid), bands(1 / (1 + grid))).dose.value
        # The polygon of a convex curve is above it, by at most h^2 max|f''| / 8 = h^2 / 4, of a slope of -1/4.
        assert 1 <= found <= 1 + (grid[1] - grid[0]) ** 2 * 4 / 4
    assert halving([0, 1, 3], bands([1, 0.5, 0.25])).dose.value == 1


def test_the_first_crossing_counts_and_a_return_is_said():
    found = halving([1, 0.5, 0.25, 0.1], bands([1, 0.25, 0.75, 0.2]))
    assert found.dose.value == pytest.approx(0.5 + 0.5 * 1 / 3) and found.again == 0.25
    assert "more than half is left again at 0.25" in halving_text(found)
    assert math.isnan(halving([1, 0.5, 0.1], bands([1, 0.25, 0.1])).again)  # the control


def test_what_never_halves_has_no_dose_and_a_reason():
    flat = halving([1, 0.5, 0.1], bands([1, 0.9, 0.8]))
    assert math.isnan(flat.dose.value) and math.isnan(flat.dose.low) and math.isnan(flat.dose.high)
    assert halving_text(flat) == "no half: at 0.1, the strongest dose, 80% is left"
    wide = halving([1, 0.5, 0.1], bands([1, 0.9, 0.8], 0.35))
    assert math.isnan(wide.dose.value) and math.isnan(wide.dose.low)
    assert wide.dose.high == pytest.approx(0.1 + 0.4 * 0.05 / 0.1)  # lower ends: 0.55 at 0.5, 0.45 at 0.1
    assert halving_text(wide).endswith("80% is left; not excluded from 0.3 on")
    gone = halving([50, 10], bands([0.3, 0.1]))
    assert math.isnan(gone.dose.value) and gone.why_not == "at 50, the weakest dose, 30% is left already"
    assert halving([1, 0.5], [Interval(math.nan)] * 2).why_not == "undefined"


def test_an_end_beyond_the_doses_is_not_known():
    found = halving([1, 0.5, 0.25], bands([1, 0.7, 0.45]))
    assert math.isnan(found.dose.low) and found.dose.high > found.dose.value  # upper ends stay above a half
    assert "[?, " in halving_text(found)
    alone = halving([1, 0.5], [Interval(1.0), Interval(0.25)])  # of one prompt
    assert alone.dose.value == pytest.approx(2 / 3) and math.isnan(alone.dose.low) and math.isnan(alone.dose.high)
    assert halving_text(alone) == "half at 0.67"


def test_doses_at_which_nothing_is_known_are_left_out():
    left = bands([1, math.nan, 0.25])
    assert halving([1, 0.6, 0.4], left) == halving([1, 0.4], [left[0], left[2]])


def test_an_end_that_is_not_known_on_the_way_or_begins_below_a_half_is_none():
    assert first_crossing([0, 1, 2], [1.0, 0.6, 0.4]) == pytest.approx(1.5)
    assert math.isnan(first_crossing([0, 1, 2, 3], [1.0, math.nan, 0.6, 0.4]))
    assert math.isnan(first_crossing([0, 1, 2], [0.4, 0.6, 0.3]))


def test_the_interval_of_the_dose_holds_the_truth():
    """Each of 12 prompts loses its own share of diversity with the dose, in a straight line: half at 0.5 on average.

    In 200 repetitions 95% are 190; 179 or fewer would come by chance once in 700 (binomial). Some ends lie beyond the
    doses: these sides cannot miss."""
    random, grid, held = np.random.default_rng(0), (0.0, 0.3, 0.6, 0.9), 0
    for _ in range(200):
        base = random.gamma(8, 1 / 8, 12)
        slope = 1 + 0.3 * random.standard_normal(12)
        left = [share_left(LPIPS, base * (1 - dose * slope), base, 8, 0) for dose in grid]
        found = halving(grid, left).dose
        held += not (found.low > 0.5 or found.high < 0.5)
    assert 179 < held < 200


# What is left


def test_what_is_left_is_one_and_the_change_of_the_table():
    random = np.random.default_rng(1)
    baseline = np.append(random.gamma(5, 0.1, 9), np.nan)
    values = baseline * random.uniform(0.2, 0.9, 10)
    values[0] = np.nan
    found, change = share_left(LPIPS, values, baseline, 8, 3), relative_change(values, baseline, 3)
    assert found.value == pytest.approx(values[1:9].sum() / baseline[1:9].sum())
    assert (found.low, found.high) == pytest.approx((1 + change.low, 1 + change.high))
    assert share_left(LPIPS, values, baseline, 8, 4) != found  # the control: another seed resamples others
    assert math.isnan(share_left(LPIPS, values, 0 * baseline, 8, 0).value)


def test_a_share_that_is_all_of_every_prompt_is_not_known_to_be_all():
    ones = np.ones(12)
    found, change = share_left(RIGHT, ones, ones, 8, 0), change_of_share(ones, ones, 8, 0)
    assert found.value == 1 and (found.low, found.high) == (1 + change.low, 1 + change.high) and found.low < 1
    assert share_left(LPIPS, ones, ones, 8, 0) == Interval(1.0, 1.0, 1.0)  # the control


# Of probes and runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def probed(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name=None: colour_network())
        conditions = with_sweeps({BASELINE: (), "frozen": (Freeze("path"),)}, SWEEPS)
        return probe(["toy/ar", "toy/mim"], PROMPTS, n=4, conditions=conditions, out=folder)


def test_the_curves_are_those_of_plain_means(probed):
    found = doses(probed)
    table, means = found.table, probed.table.set_index(["model", "condition"])[DIVERSITY]
    assert list(dict.fromkeys(table["sweep"])) == ["Subset", "Argmax", "Temperature", "TopK", "Paraphrase"]
    for row in table.to_dict("records"):
        assert row["diversity_left"] == pytest.approx(
            means[row["model"], row["condition"]] / means[row["model"], BASELINE]
        )
        change = probed.table.set_index(["model", "condition"]).loc[(row["model"], row["condition"])]
        if row["condition"] != BASELINE:
            ends = [row[f"diversity_left_{end}"] - 1 for end in ("low", "high")]
            assert ends == pytest.approx([change["relative_change_low"], change["relative_change_high"]], abs=1e-12)
    of = {(curve.model, curve.swept.name, curve.points[-1].dose): curve for curve in found.curves}
    doses_of = {key[1:]: [point.dose for point in curve.points] for key, curve in of.items() if key[0] == "toy/mim:0"}
    assert doses_of == {
        ("Subset", 0.34): [1, 0.67, 0.34],
        ("Argmax", 1): [0, 0.5, 1],  # the dose of no effect is baseline where nobody asked for it
        ("Temperature", 0.3): [1, 0.3],
        ("Temperature", 3): [1, 3],
        ("TopK", 1): [2, 1],  # no number of codes is all
        ("Paraphrase", 4): [1, 4],
    }
    assert [point.condition for point in of["toy/ar:0", "Argmax", 1].points] == [BASELINE, "Argmax=0.5", "Argmax=1"]


def test_the_halving_doses_are_those_of_the_curves(probed):
    found = doses(probed)
    of = found.halvings.set_index(["model", "sweep", "measure"])
    row = of.loc[("toy/ar:0", "Subset", DIVERSITY)]
    left = found.table.query("model == 'toy/ar:0' and sweep == 'Subset'")["diversity_left"].to_list()
    (above, below) = next((i, i + 1) for i in range(2) if left[i] > 0.5 >= left[i + 1])
    grid = [1, 0.67, 0.34]
    assert row["halving"] == pytest.approx(np.interp(-0.5, [-left[above], -left[below]], [grid[above], grid[below]]))
    kept = of.loc[("toy/ar:0", "Subset", "kept_diversity")]
    assert math.isnan(kept["halving"]) and kept["why_not"] == "undefined"  # toys have no judge


def test_the_dose_of_no_effect_is_baseline_sample_by_sample(probed, folder):
    table = probed.per_prompt.set_index("condition")
    for nothing in ("Subset=1", "Paraphrase=1"):
        assert table.loc[nothing][DIVERSITY].tolist() == table.loc[BASELINE][DIVERSITY].tolist()
    assert table.loc["Subset=0.34"][DIVERSITY].tolist() != table.loc[BASELINE][DIVERSITY].tolist()  # the control
    samples = divlens.open_run(folder).samples
    conditions = {"Subset=1", "Subset=0.34", BASELINE}
    cells = {name: set(samples[samples["condition"] == name]["cell"]) for name in conditions}
    assert cells["Subset=1"] == cells[BASELINE] and not cells["Subset=0.34"] & cells[BASELINE]


@dataclass(frozen=True)
class Cool(ToyModel):
    """Its published sampling has a temperature of its own, as GLM-Image's has."""

    temperature: float = 0.3


def test_of_a_model_with_a_temperature_of_its_own_a_temperature_of_1_is_a_dose_as_any_other(colours_for_lpips):
    found = doses(probe(Cool("mim", RULES["mim"]), PROMPTS, 4, conditions=sweep(Temperature, [1, 0.3])))
    at = {point.dose: point.left[DIVERSITY].value for point in found.curves[0].points}
    assert at[0.3] == pytest.approx(1) and abs(at[1] - 1) > 0.05
    found = doses(probe(ToyModel("mim", RULES["mim"]), PROMPTS, 4, conditions=sweep(Temperature, [1, 0.3])))
    at = {point.dose: point.left[DIVERSITY].value for point in found.curves[0].points}
    assert at[1] == 1 and abs(at[0.3] - 1) > 0.05  # the control


def test_a_sweep_grows_by_its_new_doses_only(colours_for_lpips, tmp_path):
    drawn = []
    for conditions in (
        sweep(Subset, [1, 0.67]),
        sweep(Subset, [1, 0.67, 0.34]),
        {"subset": Subset(0.34), **sweep(Subset, [1, 0.67, 0.34])},  # the same under another name
    ):
        probe("toy/mim", PROMPTS, 4, conditions=conditions, out=tmp_path / "out")
        drawn.append(record_of(tmp_path / "out")["sessions"][-1]["samples_drawn"])
    each = 4 * len(PROMPTS)
    assert drawn == [3 * each, each, 0]


def test_a_run_has_the_curves_of_its_probe_and_no_model_is_loaded(probed, folder, monkeypatch, tmp_path):
    monkeypatch.setattr("divlens.models.registry.load", lambda *a, **b: pytest.fail("it loaded a model"))
    expected = doses(probed)
    for asked in (folder, str(folder), divlens.open_run(folder)):
        pd.testing.assert_frame_equal(doses(asked).table, expected.table)
        assert str(doses(asked)) == str(expected)
    for place, result in (("one", expected), ("two", doses(folder))):
        result.save(tmp_path / place)
    names = ["halvings.csv", "halvings.parquet", "table.csv", "table.parquet"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one" / "table.parquet"), expected.table)
    expected.save(tmp_path / "one")  # again over the same


def test_it_fits_a_terminal_and_says_what_it_is(probed):
    text = str(doses(probed))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "toy/ar:0 Subset" in text and "LPIPS diversity: half at" in text
    assert "Paraphrase: a prompt is asked in no more wordings than it has" in text
    assert "openness" not in text  # nobody could take it


def test_a_probe_without_a_sweep_is_refused(probed):
    usual = {name: repr(one) for name, one in {"subset": Subset(0.5), "hot": Temperature(2)}.items()}
    with pytest.raises(DivlensError, match=r"doses expects an intervention at several doses.*, got subset, hot"):
        doses(replace(probed, conditions=usual))
    with pytest.raises(DivlensError, match=r"doses expects what divlens.probe returns"):
        doses(3)  # pyright: ignore[reportArgumentType]


def test_conditions_of_any_name_make_a_sweep_and_mixtures_and_strangers_do_not():
    done = {
        BASELINE: "none",
        "half": repr(Subset(0.5)),
        "again": repr(Subset(0.5)),
        "tenth": repr(Subset(0.1)),
        "random": repr(Subset(0.1, "random")),
        "both": f"{Subset(0.2)} + {Argmax()}",
        "own": "Blur(radius=3)",
        "some": repr(Argmax(share=0.5)),
    }
    ((swept, found),) = sweeps_in(done).items()
    assert (swept.name, found) == ("Subset", {0.5: "half", 0.1: "tenth"})


def test_controls_and_doses_of_no_effect_are_not_the_papers_interventions():
    done: dict[str, Any] = {
        "all": Subset(1),
        "random": Subset(0.5, "random"),
        "mass": Subset(0.5, "mass"),
        "some": Argmax(share=0.5),
        "few": Subset(0.1),
        "half": Subset(0.5),
        "greedy": Argmax(share=1),
        "one": divlens.Paraphrase(1),
        "words": divlens.Paraphrase(4),
    }
    texts = {name: repr(one) for name, one in done.items()} | {"own": "Blur(radius=3)"}
    assert interventions_alone(texts) == {"Argmax": "greedy", "Subset": "half", "Paraphrase": "words"}
    del texts["half"]  # without the usual dose the first
    assert interventions_alone(texts)["Subset"] == "few"


def test_the_command_line_ends_with_the_curves_and_the_run_gets_them_again(
    capsys, monkeypatch, tmp_path, colours_for_lpips
):
    monkeypatch.chdir(tmp_path)
    from divlens.cli import main

    def said(*words: str) -> str:
        main([*words])
        return capsys.readouterr().out

    swept = ("--sweep", "Subset=1,0.34", "--sweep", "Subset(by='random')=0.67,0.34")
    first = said("probe", "toy/mim", "--limit", "3", "-n", "3", "--quiet", "--out", "out", *swept)
    assert max(len(line.rstrip()) for line in first.splitlines()) <= 80
    curves = said("doses", "out", "--out", "tables")
    assert (
        curves in first
        and "toy/mim:0 Subset " in curves
        and "Subset(by='random')" in curves
        and "undecided" not in first
    )
    assert (tmp_path / "tables" / "halvings.csv").exists()
    resumed = said("resume", "out", "--quiet")
    assert resumed == "complete: out has all that was asked for\n"
