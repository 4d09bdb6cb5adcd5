"""A measure of one's own, in a few lines outside of the package, shows up wherever the usual ones do."""

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import divlens
from divlens.diversity import FeatureNetwork
from divlens.errors import DivlensError
from divlens.experiment.measures import checked_measures, named, usual_measures
from divlens.fidelity import Attribute, judge_of
from divlens.models.toy import RULES, ToyModel
from oracles.colour_network import colour_network

PROMPTS = ("red heart", "a cat", "snow")


# What a user writes.
brightness = divlens.Measure(
    "brightness", lambda look: look.pictures.mean((1, 2, 3)), limits=(0, 1), note="mean of all pixels, black is 0"
)


@dataclass
class Palette:
    """How many different colours the pictures of a prompt have."""

    colours: set[tuple[float, ...]]

    def add(self, look: divlens.Look) -> None:
        self.colours |= set(map(tuple, look.pictures.movedim(1, 3).reshape(-1, 3).tolist()))

    def value(self) -> float:
        return len(self.colours)


palette = divlens.Measure("palette", lambda prompt: Palette(set()), "set", title="colours", limits=(0, math.inf))
reddish = divlens.Measure("reddish", lambda look: look.pictures[:, 0].mean((1, 2)) > 0.4, unit="%", limits=(0, 1))
# Until here.

MINE = (brightness, palette, reddish)


pytestmark = pytest.mark.usefixtures("colours_for_lpips")


def printed(renderable) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_it_is_in_the_table_the_prompts_table_the_notes_the_screen_and_the_files(tmp_path):
    found: Any = divlens.probe("toy/mim", PROMPTS, 5, conditions=[divlens.Argmax()], measures=MINE, batch_size=4)
    assert {"brightness", "brightness_low", "palette_high", "reddish_prompts"} <= set(found.table.columns)
    assert {"brightness", "palette", "reddish"} <= set(found.per_prompt.columns)
    drawn = divlens.sample("toy/mim", PROMPTS, 5).images
    expected = drawn.mean((1, 2, 3, 4)).numpy()
    first = found.per_prompt[found.per_prompt["condition"] == "baseline"]
    np.testing.assert_allclose(first["brightness"], expected, rtol=1e-6)
    assert found.table["brightness"][0] == pytest.approx(expected.mean())
    colours = [len({tuple(c) for c in one.movedim(1, 3).reshape(-1, 3).tolist()}) for one in drawn]
    assert first["palette"].tolist() == colours
    for text in (printed(found), str(found), found._repr_html_()):
        assert "brightness" in text and "mean of all pixels, black is 0" in " ".join(text.split())
    assert "colours" in printed(found) and "reddish %" in printed(found)
    divlens.save(found, tmp_path / "out")
    assert "brightness_low" in pd.read_csv(tmp_path / "out" / "table.csv").columns
    assert "palette" in pd.read_parquet(tmp_path / "out" / "per_prompt.parquet").columns
    plain = divlens.probe("toy/mim", PROMPTS, 5, conditions=[divlens.Argmax()])
    assert "brightness" not in plain.table.columns and "brightness" not in printed(plain)  # the control
    pd.testing.assert_frame_equal(plain.table, found.table[plain.table.columns])


def test_it_is_measured_before_and_after():
    found = divlens.enhance("toy/mim", PROMPTS, 4, measures=MINE)
    assert found.table["figure"].tolist() == [
        *("diversity", "openness", "fidelity", "kept_diversity"),
        *("brightness", "palette", "reddish"),
    ]
    change = found.change("brightness")
    each = [side.images.mean((1, 2, 3, 4)).double() for side in (found.after, found.before)]
    assert change.value == pytest.approx(float((each[0] - each[1]).mean()), abs=1e-7) and change.low <= change.high
    assert "brightness" in printed(found) and "colours" in printed(found)
    with pytest.raises(DivlensError, match=r"expected a measure among diversity, .*, got 'sharpness'"):
        found.change("sharpness")


def test_a_share_has_the_interval_of_a_share():
    values = np.ones(12)
    assert reddish.mean(values, 8, 0).low < 1 == brightness.mean(values, 8, 0).low
    assert reddish.change(values, values, 8, 0).low < 0 == brightness.change(values, values, 8, 0).low


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([brightness, brightness], "'brightness', where these are taken: brightness, brightness_high"),
        ([replace(brightness, name="fidelity")], "no other column has, got 'fidelity'"),
        (
            [brightness, replace(brightness, name="brightness_low")],
            "'brightness_low', where these are taken: brightness_low$",
        ),
        (["brightness"], r"no measure is called 'brightness'; known: diversity,"),
    ],
)
def test_what_is_no_measure_is_refused_before_anything_is_drawn(extra, message, monkeypatch):
    monkeypatch.setattr("divlens.run.steps", lambda *arguments: pytest.fail("it drew"))
    with pytest.raises(DivlensError, match=message):
        divlens.probe("toy/mim", PROMPTS, 2, measures=extra)
    assert checked_measures([brightness]) == (brightness,)  # the control


def test_no_measure_takes_the_name_of_a_column():
    """Of any column that a probe makes, in a table or of a sample, whoever adds one."""
    found = divlens.probe("toy/mim", PROMPTS, 2, measures=[brightness])
    own = {f"brightness{end}" for end in ("", "_low", "_high", "_prompts")}
    assert own <= set(found.table)
    for column in {*found.table, *found.per_prompt, *vars(found.samples[0])} - own:
        with pytest.raises(DivlensError, match=f"no other column has, got '{column}'"):
            checked_measures([replace(brightness, name=column)])
    assert checked_measures([replace(brightness, name="darkness")])  # the control


def test_numbers_of_another_shape_are_refused():
    wrong = divlens.Measure("wrong", lambda look: look.pictures.mean())
    with pytest.raises(DivlensError, match=r"the measure wrong expects to give a number for each of \d+ pictures"):
        divlens.probe("toy/mim", PROMPTS, 2, measures=[wrong])


class OneConcept:
    """A judge that an outside model brings: all it sees is a heart."""

    attributes = (Attribute("concept", ("red heart",)),)

    def __call__(self, images):
        return torch.zeros(len(images), 1, dtype=torch.long)


def test_a_model_declares_its_judge():
    assert judge_of(divlens.load("toy/mim")) is None and judge_of(divlens.load("zoo/mim")) is divlens.load_judge()

    class Judging(ToyModel):
        judge = OneConcept()

    found = divlens.probe(Judging("mim", RULES["mim"]), PROMPTS, 2, conditions={"baseline": ()})
    assert found.per_prompt["fidelity"].tolist()[0] == 1 and np.isnan(found.per_prompt["fidelity"][1])

    class Misled(ToyModel):
        judge = "nobody"

    with pytest.raises(DivlensError, match="the name of one, zoo, got 'nobody'"):
        judge_of(Misled("mim", RULES["mim"]))


def test_the_usual_measures_have_names_of_their_own():
    names = [measure.name for measure in usual_measures(None)]
    assert names == ["diversity", "openness", "fidelity", "kept_diversity"]
    assert named(usual_measures(None), "openness").heading == "openness %"


class Picky(OneConcept):
    """It names right what is not too red."""

    attributes = (Attribute("concept", ("red heart", "nothing")),)

    def __call__(self, images):
        return (images[:, [0]].mean((2, 3)) > REDNESS).long()


REDNESS = 0.3


class PickyToy(ToyModel):
    judge = Picky()


def test_kept_diversity_is_that_of_the_pictures_which_are_right(monkeypatch):
    """Of 40 samples, which are looked at 32 at a time; the network looks at each of them once."""
    model, seen, look = PickyToy("mim", RULES["mim"]), [], FeatureNetwork.forward

    def counted(network, images):
        seen.append(len(images))
        return look(network, images)

    images = divlens.sample(model, ["red heart"], 40).images
    right = images[0, :, 0].mean((1, 2)) <= REDNESS
    assert 2 <= right.sum() < 40
    monkeypatch.setattr(FeatureNetwork, "forward", counted)
    found: Any = divlens.probe(model, ["red heart"], 40, conditions={"baseline": ()}).per_prompt.loc[0]
    assert sorted(seen) == [4, 8, 32]  # four are copies with noise, for the noise floor
    expected = float(divlens.lpips_diversity(images[:, right], colour_network())[0])
    assert found["kept_diversity"] == pytest.approx(expected, rel=1e-6)
    assert found["diversity"] != pytest.approx(expected, rel=1e-3)
    assert found["fidelity"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize(("redness", "all_right"), [(2.0, True), (-1.0, False)])
def test_kept_diversity_of_all_and_of_none(redness, all_right, monkeypatch):
    """Where all pictures are right it is the diversity, bit for bit; where fewer than two are, it is not defined."""
    monkeypatch.setattr(f"{__name__}.REDNESS", redness)
    model = PickyToy("mim", RULES["mim"])
    found: Any = divlens.probe(model, ["red heart", "a cat"], 4, conditions={"baseline": ()}).per_prompt
    kept = found["kept_diversity"].tolist()
    assert kept[0] == found["diversity"][0] if all_right else math.isnan(kept[0])
    assert math.isnan(kept[1])  # the judge knows no cat


def test_kept_diversity_has_no_column_in_print_but_a_row_after_enhancing():
    model = PickyToy("mim", RULES["mim"])
    found = divlens.probe(model, ["red heart", "a cat"], 8, conditions=[divlens.Argmax()])
    assert "kept_diversity_low" in found.table.columns and "kept diversity" not in printed(found)
    enhanced = divlens.enhance(model, ["red heart"], 8)
    assert "kept diversity" in printed(enhanced)
