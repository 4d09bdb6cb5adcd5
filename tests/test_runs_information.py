"""`information` and `decompose` in the folder of a run: stopped, resumed, extended, and beside other commands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from divlens.decompose import decompose
from divlens.errors import DivlensError, DivlensWarning
from divlens.experiment.probe import probe
from divlens.information import Effort, Information, information
from divlens.interventions import Argmax, Freeze, Paraphrase
from divlens.models.toy import ToyModel
from divlens.resume import resume
from divlens.store.schemas import ACCOUNTS, MAPS, RECORDS, SAMPLES
from divlens.store.shards import Shards
from divlens.types import Prompt
from oracles.crossed_designs import colours
from oracles.runs_in_folders import about

PROMPTS = [Prompt("red heart", ("a heart that is red",)), Prompt("a cat", ("one cat",))]
N, BATCH = 6, 5  # so that a batch has samples of both prompts, and the last is small
ASKED: dict[str, Any] = dict(prompts=PROMPTS, n=N, batch_size=BATCH, effort=Effort(1, 2, 2))
FAMILIES = ("ar", "mim", "diffusion")


def asking(**more: Any) -> dict[str, Any]:
    return {**ASKED, **more}


class StoppedError(Exception):
    pass


def stops_after(batches: int):
    """An `on_batch` that stops the run when it is told of one batch more."""
    told = []

    def on_batch(count: int) -> None:
        told.append(count)
        if len(told) > batches:
            raise StoppedError

    return on_batch


def counted(monkeypatch) -> list[int]:
    """The rows of every call of a toy from now on."""
    calls: list[int] = []
    predictor = ToyModel.predictor

    def counting(self, conditions, guided):
        calls.append(len(conditions))
        return predictor(self, conditions, guided)

    monkeypatch.setattr(ToyModel, "predictor", counting)
    return calls


def batches_drawn(monkeypatch, **asked: Any) -> int:
    """How many batches `information` draws, beside what the bounds ask."""
    with monkeypatch.context() as patch:
        calls = counted(patch)
        information(**asked)
        all_calls = len(calls)
        information(**{**asked, "out": None})
    whole = -(-len(asked["prompts"]) * asked["n"] // asked["batch_size"])
    return all_calls - (len(calls) - all_calls - whole)


def files(folder: Path, command: str = "information") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "tables" / command).iterdir()}


def tables(found: Information) -> list[str]:
    parts = (found.table, found.per_prompt, found.maps_table, found.steps_table, found.tightness_table)
    return [part.to_csv() for part in parts] + [f"{found.usage} {found.perplexity}"]


def first_colour(images):
    """A judge: which colour the first patch has."""
    return images[:, :, 0, 0].argmax(1)


def last_colour(images):
    return images[:, :, 0, -1].argmax(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(family, tmp_path, monkeypatch):
    asked = asking(model=f"toy/{family}", interventions=[Paraphrase(2)], judge=first_colour)
    whole = information(**asked, out=tmp_path / "whole")
    assert tables(whole) == tables(information(**asked))  # and as if there were no folder
    for batches in (0, 1):
        with pytest.raises(StoppedError):
            information(**asked, out=tmp_path / "part", on_batch=stops_after(batches))
    calls, told = counted(monkeypatch), []
    assert tables(information(**asked, out=tmp_path / "part", on_batch=told.append)) == tables(whole)
    assert told == [10, 2] and calls[0] == 2  # two batches of 5 were there
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    other = information(**{**asked, "seed": 1}, out=tmp_path / "other")
    assert tables(other) != tables(whole) and files(tmp_path / "other") != files(tmp_path / "whole")  # it can fail


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 6, 10])
def test_a_run_that_was_stopped_between_the_files_of_a_batch_goes_on(writes, tmp_path, monkeypatch):
    """A batch is up to four files: samples, records, maps, accounts."""
    asked = asking(model="toy/diffusion")
    append, done = Shards.append, []

    def stopping(self, table, owner):
        if len(done) == writes:
            raise StoppedError
        done.append(self.folder)
        return append(self, table, owner)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(Shards, "append", stopping)
        information(**asked, out=tmp_path)
    assert len(done) == writes
    calls = counted(monkeypatch)
    assert tables(information(**asked, out=tmp_path)) == tables(information(**asked))
    lost = 3 - done.count(ACCOUNTS)  # batches, of which the last has 2 samples
    assert calls[:lost] == [5, 5, 2][3 - lost :]


def test_resume_goes_on_with_information_and_has_nothing_to_do_when_it_is_complete(tmp_path, monkeypatch):
    asked = asking(model="toy/diffusion")
    information(**asked, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        information(**asked, out=tmp_path / "part", on_batch=stops_after(1))
    (found,) = resume(tmp_path / "part")
    assert isinstance(found, Information) and files(tmp_path / "part") == files(tmp_path / "whole")
    calls = counted(monkeypatch)
    assert resume(tmp_path / "part") == [] and not calls


def probed(folder: Path, n: int = N) -> None:
    probe("toy/diffusion", PROMPTS, n=n, conditions={"baseline": ()}, batch_size=BATCH, out=folder)


def test_information_after_probe_draws_the_samples_once_more_and_no_other(colours_for_lpips, tmp_path, monkeypatch):
    asked = asking(model="toy/diffusion")
    probed(tmp_path, n=4)
    before = tokens(tmp_path)
    assert tables(information(**asked, out=tmp_path)) == tables(information(**asked))
    after = tokens(tmp_path)
    assert len(before) == 8 and len(after) == 12 and before.items() <= after.items()
    assert batches_drawn(monkeypatch, **asked, out=tmp_path) == 0


def tokens(folder: Path) -> dict[int, list[int]]:
    """The stored tokens by their cell, of which none comes twice."""
    whole = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "samples").glob("*.parquet")))
    found = dict(zip(whole["cell"].to_pylist(), whole["tokens"].to_pylist(), strict=True))
    assert len(found) == len(whole)
    return found


def test_probe_after_information_draws_nothing(colours_for_lpips, tmp_path, monkeypatch):
    information(**ASKED, model="toy/diffusion", out=tmp_path)
    calls = counted(monkeypatch)
    probed(tmp_path)
    assert not calls
    probed(tmp_path, n=N + 1)
    assert calls == [2]  # it can fail


def test_idle_freezes_change_no_sample(colours_for_lpips, tmp_path, monkeypatch):
    """The path of AR has no noise, so `information` leaves its Freeze out, and stores the samples of `probe`."""
    frozen = {"baseline": (), "Freeze(stream='path')": [Freeze("path")]}
    information(**ASKED, model="toy/ar", interventions=[Freeze("path")], out=tmp_path)
    calls = counted(monkeypatch)
    probe("toy/ar", PROMPTS, n=N, conditions=frozen, batch_size=12, out=tmp_path)
    assert calls == [12]  # the baseline alone


def test_samples_that_come_out_otherwise_are_said_to(colours_for_lpips, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # as a device whose rounding is another
        predictor = ToyModel.predictor
        patch.setattr(
            ToyModel, "predictor", lambda self, *of, **guided: predictor(replace(self, seed=1), *of, **guided)
        )
        probed(tmp_path)
    with pytest.warns(
        DivlensWarning, match=r"^\d+ of 12 stored samples of toy/diffusion:0 under baseline came out otherwise"
    ):
        information(**ASKED, model="toy/diffusion", out=tmp_path)


def test_more_samples_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    asked = asking(model="toy/ar", interventions=[Paraphrase(2)], judge=first_colour)
    information(**asked, out=tmp_path)
    told, more = [], {**asked, "n": 2 * N}
    grown = information(**more, out=tmp_path, on_batch=told.append)
    whole = information(**more)
    assert told[0] == 12 and sum(told) == 24
    assert tables(grown) == tables(whole)
    assert tables(information(**more, out=tmp_path)) == tables(grown)
    assert batches_drawn(monkeypatch, **more, out=tmp_path) == 0  # records of the new choice were kept, too
    with pytest.raises(DivlensError, match="n was 12, now 6"):
        information(**asked, out=tmp_path)


def test_samples_that_are_one_cell_have_an_account_each(tmp_path):
    asked = asking(model="toy/diffusion", interventions=[Freeze("path"), Freeze("execution")])
    with pytest.raises(StoppedError):
        information(**asked, out=tmp_path, on_batch=stops_after(1))
    found = information(**asked, out=tmp_path)
    assert tables(found) == tables(information(**asked))


def test_what_another_judge_read_does_not_count(tmp_path):
    asked = asking(model="toy/diffusion")
    first = information(**asked, judge=first_colour, out=tmp_path)
    last = information(**asked, judge=last_colour, out=tmp_path)
    assert tables(last) == tables(information(**asked, judge=last_colour)) != tables(first)


@pytest.mark.parametrize("table", [SAMPLES, ACCOUNTS, RECORDS, MAPS])
def test_a_damaged_file_is_named_and_what_it_held_is_drawn_again(table, tmp_path):
    asked = asking(model="toy/diffusion")
    information(**asked, out=tmp_path)
    before = files(tmp_path)
    path = sorted((tmp_path / table).iterdir())[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DivlensError, match=path.name):
        information(**asked, out=tmp_path)
    for file in (tmp_path / "tables" / "information").iterdir():
        file.unlink()
    resume(tmp_path, repair=True)
    assert files(tmp_path) == before
    information(**asked, out=tmp_path)  # and none is missing any more
    assert files(tmp_path) == before


def test_a_decomposition_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    prompts = [Prompt(f"{text} {i}", (f"one {text} {i}",)) for i in range(2) for text in ("red heart", "a cat")]
    levels = dict(wordings=2, paths=2, executions=2)
    asked: dict[str, Any] = dict(model="toy/diffusion", prompts=prompts, **levels, features=colours, batch_size=2)
    whole = decompose(**asked, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        decompose(**asked, out=tmp_path / "part", on_batch=stops_after(0))
    calls = counted(monkeypatch)
    part = decompose(**asked, out=tmp_path / "part")
    assert sum(calls) == 32 - 16  # a window of 8 batches was there
    assert part.per_prompt.to_csv() == whole.per_prompt.to_csv()
    assert files(tmp_path / "part", "decompose") == files(tmp_path / "whole", "decompose")
    decompose(**{**asked, "seed": 1}, out=tmp_path / "other")
    assert files(tmp_path / "other", "decompose") != files(tmp_path / "whole", "decompose")  # it can fail


def test_what_is_there_under_another_name_is_not_drawn_again(tmp_path):
    """Under the same interventions; under others, or with another seed, it is drawn."""

    def drawn_by_probe(**more: Any) -> int:
        probe("toy/mim", PROMPTS, N, out=tmp_path, batch_size=BATCH, **more)
        return about(tmp_path)["sessions"][-1]["samples_drawn"]

    def stored() -> set[tuple[str, int]]:
        table = pq.read_table(sorted(tmp_path.glob("samples/*.parquet")))
        return set(zip(table["condition"].to_pylist(), table["cell"].to_pylist(), strict=True))

    information("toy/mim", out=tmp_path, interventions=(Argmax(),), **ASKED)
    (name,) = about(tmp_path)["requests"]["information"]["conditions"]
    assert name != "greedy"
    count = N * len(PROMPTS)
    assert drawn_by_probe(conditions={"baseline": (), "greedy": Argmax()}) == count  # the baseline's
    cells = {each: {cell for owner, cell in stored() if owner == each} for each in (name, "greedy", "baseline")}
    assert cells["greedy"] == cells[name] != cells["baseline"]
    again = tmp_path / "again"
    probe("toy/mim", PROMPTS, N, out=again, batch_size=BATCH, conditions={"baseline": (), "greedy": Argmax()})
    table = "tables/probe/per_prompt.csv"
    assert (again / table).read_bytes() == (tmp_path / table).read_bytes()
