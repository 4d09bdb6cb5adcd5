"""The report of `compare`: pictures of two runs in pairs, and the figures of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.cli import main
from divlens.compare import compare
from divlens.errors import DivlensError
from divlens.pages import stored
from divlens.pages.page import Page
from divlens.pages.paired import contents_of_two, report_of_two
from oracles.colour_network import colour_network
from oracles.embedded import picture

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


@pytest.fixture(autouse=True)
def colours_for_the_page(monkeypatch):
    monkeypatch.setattr(stored, "load_network", lambda name: colour_network())


PROMPTS = ["a cat", "snow", "sea"]
CONDITIONS = {"baseline": [], "hot": divlens.Temperature(1.5)}


def probed(folder: Path, model: str, n: int = 4, seed: int = 0, prompts: Any = PROMPTS) -> str:
    divlens.probe(model, prompts, n, seed, conditions=CONDITIONS, out=folder)
    return str(folder)


def contents(one: str, other: str, pictures: int = 1000) -> Page:
    runs = divlens.open_run(one), divlens.open_run(other)
    return contents_of_two(compare(*runs), *runs, pictures)


def test_rows_stand_in_pairs_with_the_pictures_of_each_run(tmp_path):
    one, other = probed(tmp_path / "one", "toy/ar"), probed(tmp_path / "other", "toy/mim")
    page = contents(one, other)
    rows, images = page.data["rows"], page.data["images"]
    assert [(row["prompt"], row["condition"]) for row in rows] == [
        (prompt, f"{condition}, {side}") for prompt in PROMPTS for condition in CONDITIONS for side in "ab"
    ]
    assert {row["model"] for row in rows} == {"toy/ar:0 and toy/mim:0"}
    for row in rows:
        run = divlens.open_run(one if row["side"] == "a" else other)
        wanted = run.images(row["prompt"], row["condition"].partition(",")[0])
        shown = np.stack([picture(images[each["image"]]) for each in row["pictures"]])
        assert np.abs(shown.transpose(0, 3, 1, 2) / 255 - wanted.numpy()).max() < 0.02
        swapped = divlens.open_run(other if row["side"] == "a" else one)
        others = swapped.images(row["prompt"], row["condition"].partition(",")[0])
        assert not torch.equal(wanted, others)  # the control
        assert str(tmp_path / ("one" if row["side"] == "a" else "other")) in row["command"]


def test_the_figures_of_each_prompt_are_those_of_compare(tmp_path):
    one, other = probed(tmp_path / "one", "toy/ar"), probed(tmp_path / "other", "toy/mim")
    page = contents(one, other)
    (figure,) = page.figures
    per_prompt = compare(one, other).per_prompt
    wanted = per_prompt[per_prompt["figure"] == "diversity"].set_index(["condition", "prompt"])
    assert len(figure.rows) == len(wanted) == 6
    for row in figure.rows:
        record: Any = wanted.loc[(row["condition"], row["prompt"])]
        assert (row["baseline"], row["diversity"]) == pytest.approx((record["a"], record["b"]), abs=1e-5)
        assert row["change"] == pytest.approx(record["b"] - record["a"], abs=1e-5)
        shown = [page.data["rows"][row[name]] for name in ("before", "row")]
        assert [each["condition"] for each in shown] == [f"{row['condition']}, a", f"{row['condition']}, b"]
        assert {each["prompt"] for each in shown} == {row["prompt"]}
        assert row["baseline_low"] <= row["baseline"] <= row["baseline_high"]


def test_what_is_not_alike_is_said(tmp_path):
    one = probed(tmp_path / "one", "toy/ar")
    other = probed(tmp_path / "other", "toy/ar", n=3, seed=5, prompts=["sea", "sand"])
    page = contents(one, other)
    assert page.prompts == ("sea",) and page.models == ("toy/ar:0",)
    assert "The seeds differ (0 and 5): columns do not have the same noise." in page.missing
    assert "a has 4 samples of each prompt here, b 3." in page.missing
    alike = contents(one, probed(tmp_path / "alike", "toy/mim"))
    assert alike.missing == ()  # the control


def test_runs_without_pictures_have_their_figures_alone(tmp_path):
    folders = []
    for model in ("toy/ar", "toy/mim"):
        folders.append(str(tmp_path / model[4:]))
        divlens.information(model, PROMPTS, n=8, out=folders[-1])
    page = contents(*folders)
    assert not page.data["rows"] and not page.figures and page.tables
    assert any(line.startswith("No pictures: both runs hold") for line in page.missing)


def test_the_command_writes_a_page_and_keeps_what_is_there(tmp_path, capsys):
    one, other = probed(tmp_path / "one", "toy/ar"), probed(tmp_path / "other", "toy/mim")
    out = tmp_path / "both.html"
    main(["compare", one, other, "--out", str(out)])
    said = capsys.readouterr().out
    text = out.read_text()
    assert "written:" in said and "b - a" in said
    assert (
        "Each prompt, in a and in b" in text and "Hollow: a; full: b" in text and "prompt, before and after" not in text
    )
    for again in (["compare", one, other, "--out", str(out)], ["compare", one, other, "--out", str(tmp_path)]):
        with pytest.raises(SystemExit) as stopped:
            main(again)
        assert stopped.value.code == 2 and "Traceback" not in capsys.readouterr().err
    assert out.read_text() == text
    with pytest.raises(DivlensError, match="have no prompt in common"):
        report_of_two(one, probed(tmp_path / "else", "toy/ar", prompts=["sand"]), tmp_path / "new.html")
    assert not (tmp_path / "new.html").exists()
