"""The zoo's commands: what is wrong is told in one line, before anything is fetched, drawn or trained."""

import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from divlens.cli import main
from divlens.sampler import Generation
from divlens.types import DrawnWith
from divlens.zoo import art, commands, sprites


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Run a command that must exit with code 2 and one line on stderr before the work begins; the line."""
    monkeypatch.chdir(tmp_path)

    def begun(*arguments, **options):
        raise AssertionError("work was begun")

    def call(*arguments):
        for place in ((sprites, "fetch"), (commands, "sample"), (commands.train_tokenizer, "train")):
            monkeypatch.setattr(*place, begun)
        with pytest.raises(SystemExit) as leaving:
            main(arguments)
        captured = capsys.readouterr()
        assert (leaving.value.code, captured.out) == (2, "")
        assert captured.err.startswith("divlens: error: ") and captured.err.count("\n") == 1
        return captured.err

    return call


def installed(monkeypatch, *, renderer=True, npm=True):
    monkeypatch.setattr(art, "find_spec", lambda name: object() if renderer else None)
    monkeypatch.setattr(art.shutil, "which", lambda name: "/usr/bin/npm" if npm else None)


def test_nothing_is_fetched_for_a_renderer_or_a_client_that_is_missing(refused, monkeypatch, tmp_path):
    installed(monkeypatch, renderer=False)
    assert "pip install 'divlens[zoo]'" in refused("zoo", "atlas", "sprites.xz")
    installed(monkeypatch, npm=False)
    assert "npm, which is not installed" in refused("zoo", "atlas", "sprites.xz")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    installed(monkeypatch)
    with pytest.raises(AssertionError, match="work was begun"):  # the control
        refused("zoo", "atlas", "sprites.xz")


def test_weights_of_what_others_are_trained_on_must_be_there(refused, tmp_path):
    assert "weights are missing: expected tokenizer.safetensors" in refused("zoo", "train", "--only", "ar")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--device", "abacus"), "device expects one that torch can use here, got 'abacus'"),
        (("train", "--device", "meta"), "device expects one that holds numbers"),
        (("train", "--folder", "file"), "is a file"),
        (("train", "--folder", "x" * 300), "expected a folder that can be made, .*too long"),
        (("atlas", "--folder", "loop", "sprites.xz"), "expected a folder that can be made, .*"),
        (("atlas", "nowhere/sprites.xz"), "expected a file that can be written, .*No such file or directory"),
        (("evaluate", "--weights", "nowhere"), "weights are missing: expected judge.safetensors in nowhere"),
        (("evaluate", "--cards"), "expects the checkpoints of `divlens zoo train`, but .zoo/runs/ar.pt is missing"),
        (("sheet", "sheet.jpg"), "expected a PNG file, such as sheet.png"),
        (("sheet", "nowhere/sheet.png"), "expected a file that can be written, .*No such file or directory"),
        (("sheet", "x" * 300 + ".png"), "expected a file that can be written, .*too long"),
        (("sheet", "sheet.png", "--seeds", "0"), "not in the range"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(arguments, said, refused, monkeypatch, tmp_path):
    import re

    installed(monkeypatch)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    assert re.search(said, refused("zoo", *arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_a_client_that_fails_is_one_line(monkeypatch, tmp_path, capsys):
    installed(monkeypatch)
    failed = subprocess.CompletedProcess([], 1, "", "npm error code ENOTFOUND\nnpm error network\n")
    monkeypatch.setattr(art.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(SystemExit) as leaving:
        main(["zoo", "atlas", str(tmp_path / "sprites.xz"), "--folder", str(tmp_path)])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and said.count("\n") == 1
    assert "npm cannot fetch emojibase-data@17.0.0: npm error code ENOTFOUND npm error network" in said


def test_a_sheet_is_a_whole_picture(monkeypatch, tmp_path):
    def drawn(model, prompts, n, **options):
        tokens, images = torch.zeros(8, n, 1, 1, dtype=torch.long), torch.rand(len(prompts), n, 3, 4, 4)
        how = DrawnWith("cpu", "float32", 96)
        return Generation(
            request={},
            model=model,
            condition="baseline",
            prompts=(),
            wordings=(),
            seed=0,
            drawn_with=how,
            samples=(),
            tokens=tokens,
            images=images,
        )

    monkeypatch.setattr(commands, "sample", drawn)
    main(["zoo", "sheet", str(tmp_path / "sheet.png"), "--seeds", "2"])
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as picture:
        assert np.asarray(picture).shape == (4 + 8 * 8 + 18, 3 * (4 + 2 * 8) + 2 * 16, 3)
