"""A few cases of the fuzz in studies/, which runs many: a changed checkpoint works, or is refused in one line."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from divlens.errors import DivlensError

pytestmark = pytest.mark.usefixtures("one_thread")

sys.path.append(str(Path(__file__).resolve().parent.parent / "studies"))
fuzz = importlib.import_module("fuzz_configurations")


@pytest.mark.parametrize("name", fuzz.LAYOUTS)
def test_a_changed_checkpoint_works_or_is_refused_in_one_line(name, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    fuzz.LAYOUTS[name](folder)
    outcomes = [fuzz.run_case(name, folder, case) for case in fuzz.few_of(fuzz.cases_of(folder, seed=1), 4, seed=1)]
    assert {outcome.kind for outcome in outcomes} <= {"works", "refused"}, outcomes
    # The control: as it is, it works.
    assert fuzz.run_case(name, folder, fuzz.Case("", "nothing", lambda path: None)).kind == "works"


def test_what_must_not_be_is_told_apart():
    def raising(error: BaseException):
        def draw() -> torch.Tensor:
            raise error

        return fuzz.outcome_of(draw).kind

    assert raising(DivlensError("one line")) == "refused"
    assert raising(DivlensError("two\nlines")) == "lines"
    assert raising(KeyError("raw")) == "raw"
    assert fuzz.outcome_of(lambda: torch.full((1, 1), torch.nan)).kind == "pictures"
    assert fuzz.outcome_of(lambda: torch.full((1, 1), 2.0)).kind == "pictures"
    assert fuzz.outcome_of(lambda: torch.zeros(1, 1)).kind == "works"


def test_every_field_and_file_has_its_cases(tmp_path):
    (tmp_path / "config.json").write_text('{"width": 3, "parts": {"names": ["a", "b", "c"], "on": true}}')
    found = [case.what for case in fuzz.cases_of(tmp_path)]
    changed = {what.partition(" = ")[0] for what in found if " = " in what}
    assert changed == {"width", "parts.names.0", "parts.names.1", "parts.on"}
    assert len(found) == len(changed) * (len(fuzz.VALUES) + 1) + 8
    case = next(case for case in fuzz.cases_of(tmp_path) if case.what == "parts.on = -1")
    case.change(tmp_path / case.file)
    assert (tmp_path / "config.json").read_text() == '{"width": 3, "parts": {"names": ["a", "b", "c"], "on": -1}}'
