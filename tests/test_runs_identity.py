"""What a stored sample is called: what makes another cell, and what does not."""

import shutil
from collections.abc import Mapping
from dataclasses import fields, replace

import pytest
import torch

import divlens
from divlens.interventions import Argmax, DisableTop, Freeze, Guidance, Subset, Temperature, TopK, TopP
from divlens.methods import (
    ConditionNoise,
    EntropyTemperature,
    GuidanceInterval,
    MinP,
    PathTemperature,
    RandomOrder,
    RepulseTokens,
    StratifiedNoise,
)
from divlens.models import load
from divlens.paths import Raster
from divlens.planning import plan
from divlens.run import Row, Run
from divlens.settings import Settings
from divlens.store.cells import COUNTS, cells_of, common, stratum_of
from divlens.types import DrawnWith, Prompt
from oracles import tiny_llamagen
from oracles.toy_grids import toy

PROMPTS = ("red heart", "a cat")


def planned(model=None, n=4, seed=0, batch_size=96, interventions=()) -> Run:
    return plan(model or toy("mim"), [Prompt(text) for text in PROMPTS], n, seed, interventions, batch_size=batch_size)


def stratum(run: Run) -> str:
    return stratum_of(run, run.identity()["model_content"])


# --- every field is classified --------------------------------------------------------------------------------------


def names_of(identity: Mapping) -> set[str]:
    """The fields of an identity, of its settings and of what was drawn with."""
    inner = {f"{key}.{name}" for key in ("settings", "drawn_with") for name in identity[key]}
    return set(identity) - {"settings", "drawn_with"} | inner


def fields_of_rows(row: type = Row, prompt: type = Prompt) -> set[str]:
    own = {f"row.{field.name}" for field in fields(row)} - {"row.prompt"}
    return own | {f"row.prompt.{field.name}" for field in fields(prompt)}


def test_every_field_says_whether_it_counts():
    settings = {f"settings.{field.name}" for field in fields(Settings)}
    drawn_with = {f"drawn_with.{field.name}" for field in fields(DrawnWith)}
    known = names_of(planned().identity())
    assert settings | drawn_with <= known  # a field that the identity lacks would not be asked for
    assert set(COUNTS) == known | fields_of_rows()


def test_a_field_that_says_nothing_is_noticed():
    identity = planned().identity()
    for new in (
        {"weather": "rain"},
        {"settings": {**identity["settings"], "weather": "rain"}},
        {"drawn_with": {**identity["drawn_with"], "weather": "rain"}},
    ):
        assert names_of(identity | new) - set(COUNTS)
        with pytest.raises(KeyError, match="weather"):
            common(identity | new)
    assert "row.path" not in fields_of_rows(row=Prompt)
    common(identity)  # the control


# --- what makes another cell ----------------------------------------------------------------------------------------


def of_run(run: Run) -> list[int]:
    return cells_of(stratum(run), run.rows).tolist()


def with_another(identity: dict, name: str) -> dict:
    """The identity with another value of one field."""
    part, _, field = name.partition(".")
    return identity | {part: {**identity[part], field: "another"} if field else "another"}


@pytest.mark.parametrize("name", [name for name in COUNTS if not name.startswith("row.")])
def test_a_field_of_a_run_makes_other_cells_when_it_counts(name):
    identity = planned().identity()
    assert (common(identity) != common(with_another(identity, name))) == COUNTS[name]


OTHER_ROWS = {
    "row.prompt.text": {"prompt": Prompt("snow")},
    "row.prompt.paraphrases": {"prompt": Prompt("red heart", ("a heart",))},
    "row.prompt.concept": {"prompt": Prompt("red heart", (), "heart")},
    "row.wording": {"wording": "a heart"},
    "row.path": {"path": 7},
    "row.execution": {"execution": 7},
}


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("row.")])
def test_a_field_of_a_row_makes_another_cell_when_it_counts(name):
    run = planned()
    row = run.rows[0]
    one, other = cells_of(stratum(run), [row, replace(row, **OTHER_ROWS[name])])
    assert (one != other) == COUNTS[name]


INTERVENTIONS = (
    *(Argmax(), Temperature(2.0), Guidance(2.0), Freeze("path"), Subset(0.5), TopK(2), TopP(0.9)),
    *(DisableTop(0.5, strength=0.5), MinP(0.1), EntropyTemperature(), GuidanceInterval(0.5, 1.0)),
    *(ConditionNoise(), StratifiedNoise(4), RepulseTokens(2), PathTemperature(1.0), RandomOrder()),
)


def test_runs_of_another_seed_model_or_settings_share_no_cell():
    others = [planned(seed=1), planned(toy("ar")), planned(toy("mim", 7))]
    others += [planned(interventions=[intervention]) for intervention in INTERVENTIONS]
    others += [replace(planned(), settings=replace(planned().settings, rule=Raster(3)))]
    cells = [cell for run in (planned(), *others) for cell in of_run(run)]
    assert len(set(cells)) == len(cells)
    assert of_run(planned()) == of_run(planned(batch_size=3)) == cells[:8]  # the control


def test_the_name_counts_for_a_model_of_unknown_content():
    unknown = planned().identity() | {"model_content": None}
    assert common(unknown) != common(with_another(unknown, "model"))
    assert common(unknown) == common({**unknown})  # the control


def test_the_order_of_prompts_and_the_number_of_samples_change_no_cell():
    run = planned()
    backwards = plan(toy("mim"), [Prompt(text) for text in reversed(PROMPTS)], 4, 0)
    assert sorted(of_run(run)) == sorted(of_run(backwards)) and of_run(run) != of_run(backwards)
    assert set(of_run(run)) < set(of_run(planned(n=6)))
    assert not set(of_run(run)) & set(of_run(planned(seed=1)))  # the control


def test_folders_of_equal_content_are_one_model_and_a_changed_file_makes_another(tmp_path):
    first, second = tmp_path / "first", tmp_path / "deep" / "second"
    tiny_llamagen.save(first)
    shutil.copytree(first, second)

    def cells(folder):
        return of_run(planned(load(f"llamagen:{folder}"), n=2))

    known = cells(first)
    assert cells(second) == known
    weights = second / tiny_llamagen.GPT_FILE
    state = torch.load(weights, weights_only=True)
    next(iter(tensors_of(state)))[0] += 1e-3
    torch.save(state, weights)
    assert not set(cells(second)) & set(known)


def tensors_of(state):
    for value in state.values() if isinstance(state, Mapping) else ():
        if isinstance(value, torch.Tensor):
            yield value.view(-1)
        else:
            yield from tensors_of(value)


def test_what_was_drawn_in_other_batches_is_found(tmp_path, monkeypatch, colours_for_lpips):
    arguments = {"n": 6, "conditions": {"baseline": ()}, "out": tmp_path / "run"}
    before = divlens.probe("toy/mim", PROMPTS, batch_size=5, **arguments)
    monkeypatch.setattr("divlens.store.draw.fill", lambda run: iter(()) if not run.rows else pytest.fail("drawn again"))
    after = divlens.probe("toy/mim", PROMPTS[::-1], batch_size=4, **arguments)
    tokens = [{(one.prompt, one.sample): one.tokens for one in result.samples} for result in (before, after)]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 12
