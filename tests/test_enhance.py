"""The enhancer: before is the model as it is, after is the paper's recipe, from the same noise."""

import importlib
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

import divlens
from divlens.diversity import lpips_diversity
from divlens.errors import DivlensError
from divlens.sheets import GAP, contact_sheet, to_picture

PROMPTS = ("red heart", "a cat", "blue sky")


@pytest.fixture(scope="module")
def enhanced():
    return divlens.enhance("toy/mim", PROMPTS, n=10, seed=3, disable_top=0.4)


def printed(renderable, capsys):
    Console(width=80).print(renderable)
    return capsys.readouterr().out


def test_before_is_the_model_as_it_is(enhanced):
    plain = divlens.sample(divlens.load("toy/mim"), PROMPTS, n=10, seed=3)
    assert enhanced.before.tokens.equal(plain.tokens)
    assert {wording for row in enhanced.before.wordings for wording in row} == set(PROMPTS)


def test_after_is_the_papers_recipe(enhanced):
    recipe = [divlens.Paraphrase(lengths="mixed"), divlens.DisableTop(0.4)]
    by_hand = divlens.sample(divlens.load("toy/mim"), PROMPTS, n=10, seed=3, interventions=recipe)
    assert enhanced.tokens.equal(by_hand.tokens)
    assert enhanced.images.equal(by_hand.images)
    assert not enhanced.tokens.equal(enhanced.before.tokens)  # the control
    assert len(set(enhanced.after.wordings[0])) > 4


def test_the_most_used_code_is_not_drawn_after(enhanced):
    missing = set(range(3)) - set(enhanced.tokens.unique().tolist())
    assert len(missing) == 1
    assert missing <= set(enhanced.before.tokens.unique().tolist())


def test_diversity_before_after_and_change(enhanced):
    before, after = (lpips_diversity(side.images) for side in (enhanced.before, enhanced.after))
    assert enhanced.before.mean("diversity").value == pytest.approx(float(before.mean()))
    assert enhanced.change().value == pytest.approx(float((after - before).mean()))
    assert enhanced.change().low < enhanced.change().value < enhanced.change().high
    assert not any("No intervals" in note for note in enhanced.notes)
    row = enhanced.table.set_index("figure").loc["diversity"]
    assert row["after"] == pytest.approx(float(after.mean()))
    assert enhanced.table.set_index("figure").loc[["openness", "fidelity"], "after"].isna().all()


def test_one_prompt_has_no_interval_and_says_why(capsys):
    found = divlens.enhance("toy/ar", PROMPTS[:1], n=3)
    assert math.isnan(found.change().low) and not math.isnan(found.change().value)
    assert "No intervals: they need at least 2 prompts." in found.notes
    assert "No intervals" in printed(found, capsys)


def test_one_sample_is_nan_and_says_so(capsys):
    found = divlens.enhance("toy/ar", PROMPTS, n=1)
    assert math.isnan(found.change().value)
    assert "undefined (NaN)" in printed(found, capsys)


def test_the_table_fits_80_columns(enhanced, capsys):
    text = printed(enhanced, capsys)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "LPIPS diversity" in text and "…" not in text


@pytest.mark.parametrize(
    ("prompts", "changes", "said"),
    [
        ([], {}, "at least one prompt"),
        (["a cat", "a cat"], {}, "different prompts"),
        ([""], {}, "a prompt is empty"),
        (["word " * 40], {}, "at most 32 words"),
        (["a cat"], {"disable_top": 1.0}, "leaves no code"),
        (["a cat"], {"disable_top": 1.5}, r"fraction in \[0, 1\]"),
        (["a cat"], {"n": 0}, "at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(prompts, changes, said):
    drawn = []
    with pytest.raises(DivlensError, match=said):
        divlens.enhance("toy/ar", prompts, on_batch=drawn.append, **changes)
    assert not drawn


def test_the_function_stays_in_reach_after_its_module_is_imported():
    module = importlib.import_module("divlens.enhance")
    assert divlens.enhance is module.enhance


# Pictures


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_pictures_sheets_and_tokens_are_written(enhanced, tmp_path):
    out = tmp_path / "out"
    enhanced.save(out)
    for name, side in (("before", enhanced.before), ("after", enhanced.after)):
        assert pixels(out / f"{name}.png").shape == (GAP + 3 * 2 * (32 + GAP), GAP + 8 * (96 + GAP), 3)
        assert len(list((out / name).iterdir())) == 3 * 10
        stored = pixels(out / name / "001-009.png")
        assert (stored == np.asarray(to_picture(side.images[1, 9]))).all()
    samples = pq.read_table(out / "samples.parquet").to_pandas()
    assert len(samples) == 2 * 3 * 10
    last = samples.query("condition == 'after' and prompt == 'blue sky' and sample == 9").iloc[0]
    assert list(last["tokens"]) == enhanced.tokens[2, 9].flatten().tolist()


def test_a_sheet_puts_every_picture_in_its_place():
    images = torch.rand(2, 3, 3, 5, 7)
    sheet = np.asarray(contact_sheet(images, columns=2))
    assert sheet.shape == (GAP + 4 * (5 + GAP), GAP + 2 * (7 + GAP), 3)
    for prompt in range(2):
        for i in range(3):
            top, left = GAP + (2 * prompt + i // 2) * (5 + GAP), GAP + (i % 2) * (7 + GAP)
            expected = np.asarray(to_picture(images[prompt, i]))
            assert (sheet[top : top + 5, left : left + 7] == expected).all()
    assert (sheet[:GAP] == 255).all()
    assert (sheet[-5 - GAP :, -7 - GAP :] == 255).all()  # no third picture in the second column
