"""`divlens zoo scenes evaluate`: tables, cards and sheets of whatever weights are there."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from divlens.lab.bars import Bar, table_rows
from divlens.lab.captions import vocabulary
from divlens.lab.evaluation import Figure
from divlens.lab.reading import read
from divlens.models.zoo.assets import write_tensors
from divlens.models.zoo.networks import Backbone, Sizes
from divlens.statistics import Interval
from divlens.zoo import scene_commands, scene_report, train_scene_generators
from divlens.zoo.scene_evaluate import Compared, questions
from divlens.zoo.scene_likelihood import pictures_to_find
from divlens.zoo.scene_measures import samples
from divlens.zoo.scene_report import SHEET_PROMPTS, table_of, write_card

WEIGHTS = Path(__file__).parent.parent / "scenes" / "weights"
BARS = (Bar("respect of size", least=0.9), Bar("bits, held out over trained", most=1.3), Bar("openness of place", 0.85))
ROWS = table_rows(
    [
        Figure("respect of size", Interval(0.91, 0.88, 0.94)),
        Figure("bits, held out over trained", Interval(1.4, 1.35, 1.45), "an upper bound"),
        Figure("near copies", Interval(0.02, 0.01, 0.03)),
    ],
    BARS,
    [Figure("near copies", Interval(0.01, 0.0, 0.04))],
)


def cells_of(card):
    """By the first cell of each line of a table, the others."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if "|" in line]
    return {first: others for first, *others in lines}


def test_a_card_has_every_figure_with_its_interval_and_its_bar(tmp_path):
    (tmp_path / "runs").mkdir()
    run = {"model": {"weight": torch.zeros(3, 4)}, "recipe": {"steps": 70, "batch": 8}, "step": 70, "minutes": 3.2}
    torch.save(run, tmp_path / "runs" / "ar.pt")
    write_card("ar", ROWS, tmp_path, tmp_path)
    card = (tmp_path / "card-ar.md").read_text()
    assert "12 numbers; 70 steps, 3 minutes" in card and "recipe: steps 70, batch 8." in card
    cells = cells_of(card)
    assert cells["respect of size"] == [".910 [.880, .940]", "", "at least 0.9", "met"]
    assert cells["bits, held out over trained"] == ["1.400 [1.350, 1.450]", "", "at most 1.3", "MISSED"]
    assert cells["near copies"] == [".020 [.010, .030]", ".010 [.000, .040]", "", ""]
    assert cells["openness of place"] == ["n/a", "", "at least 0.85", "MISSED"]
    assert card.splitlines()[-2:] == [
        "- bits, held out over trained: an upper bound",
        "- openness of place: not measured",
    ]
    records = {record["name"]: record for record in json.loads((tmp_path / "card-ar.json").read_text())}
    assert records["respect of size"] == {
        "name": "respect of size",
        "value": 0.91,
        "low": 0.88,
        "high": 0.94,
        "real": None,
        "bar": "at least 0.9",
        "passed": True,
        "note": "",
    }
    assert records["near copies"]["real"] == 0.01 and np.isnan(records["openness of place"]["value"])
    write_card("families", ROWS, tmp_path, tmp_path)  # of no training of its own
    assert "recipe" not in (tmp_path / "card-families.md").read_text()


def test_a_table_says_what_is_real_only_where_it_was_measured():
    titles = [[column.header for column in table_of("ar", rows).columns] for rows in (ROWS, ROWS[:1])]
    assert titles == [
        ["what", "value, 95% interval", "real pictures", "bar", ""],
        ["what", "value, 95% interval", "bar", ""],
    ]


def test_prompts_of_the_sheet_are_captions_of_the_lab():
    assert len(SHEET_PROMPTS) == 8 and len({read(text) for text in SHEET_PROMPTS}) == 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The trained tokenizer and judge with two generators that were never trained, and little that is asked."""
    target = tmp_path / "lab" / "weights"
    shutil.copytree(WEIGHTS, target)
    small = partial(Sizes, width=16, layers=1, heads=2, rank=4)
    monkeypatch.setattr(
        train_scene_generators, "sizes_of", lambda family, words, codes: small(words, family == "ar", codes=codes)
    )
    for family in ("ar", "diffusion"):
        torch.manual_seed(0)
        sizes = train_scene_generators.sizes_of(family, len(vocabulary()) + 2, 1024)
        write_tensors(family, Backbone(sizes).state_dict(), target)
    for name, little in {
        "questions": partial(questions, named=6, unseen_pairs=6, bare=6, of_bare=2),
        "pictures_to_find": partial(pictures_to_find, pairs=6, unseen_pairs=6),
        "samples": partial(samples, 48),
        "compared": lambda tokenizer, asked: Compared(*np.zeros((2, 3, 64), np.int16)),
    }.items():
        monkeypatch.setattr(scene_report, name, little)
    monkeypatch.setattr(scene_commands, "sample_sheet", partial(scene_report.sample_sheet, n=2))
    return tmp_path / "lab"


def test_every_part_that_is_there_is_measured(folder, run):
    (folder / "runs").mkdir()
    for part in ("tokenizer", "judge", "ar", "diffusion"):
        state = {"model": {}, "recipe": {}, "step": 1, "minutes": 0.0}
        torch.save(state, folder / "runs" / f"{part}.pt")
    code, printed, _ = run("zoo", "scenes", "evaluate", "--folder", folder, "--cards")
    assert code == 0  # a bar that is missed is a result, no error
    parts = ["tokenizer", "judge", "ar", "diffusion", "families"]
    assert [line.strip() for line in printed.splitlines() if line.strip() in parts] == parts
    # Untrained generators know nothing of 1,024 codes, 10 bits a token; a bound may be above that.
    for family, kind in (("ar", "exact"), ("diffusion", "bound")):
        records = {r["name"]: r for r in json.loads((folder / "weights" / f"card-{family}.json").read_text())}
        assert records[f"bits a picture, trained ({kind})"]["value"] > 500
        assert records["respect of concept"]["passed"] is False and records["respect of concept"]["real"] > 0.8
        with Image.open(folder / "weights" / f"sheet-{family}.png") as picture:
            assert picture.size == (4 + 2 * 52, 4 + 8 * 52)
    apart = json.loads((folder / "weights" / "card-families.json").read_text())
    assert {record["name"] for record in apart if record["passed"] is not None} == {
        f"respect of {name}, apart" for name in ("concept", "background", "size", "place")
    }


def test_only_what_is_asked_for_is_measured(folder, run):
    code, printed, _ = run("zoo", "scenes", "evaluate", "--folder", folder, "--only", "judge")
    assert code == 0 and "judge" in printed and "signal to noise" not in printed and "openness" not in printed
    assert "concept read right" in printed and not list((folder / "weights").glob("card-*"))


def test_what_is_missing_is_told_before_the_work(folder, run, monkeypatch):
    monkeypatch.setattr(scene_report, "samples", None)  # the work would fail
    for arguments, said in (
        (("--folder", "nowhere"), "zoo weights are missing: expected tokenizer.safetensors in nowhere/weights"),
        (("--folder", folder, "--only", "mim"), "zoo weights are missing: expected mim.safetensors in"),
        (("--folder", folder, "--cards"), "--cards expects the checkpoints of `divlens zoo scenes train`, but"),
    ):
        code, printed, error = run("zoo", "scenes", "evaluate", *arguments)
        assert (code, printed, error.count("\n")) == (2, "", 1) and said in error
