"""The package of docs/own_model.md: installed as a user installs it, it is found, drawn and measured."""

import os
import shutil
import subprocess
import sys

import pytest
from markdown_it import MarkdownIt

import divlens
from divlens import models
from divlens.models import registry
from divlens.models.protocol import Identified
from oracles.documentation import ROOT

EXAMPLE = ROOT / "examples" / "own_model"
PROMPTS = EXAMPLE / "prompts.txt"


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory):
    """A folder into which the package is installed, without the network."""
    folder = tmp_path_factory.mktemp("own_model")
    shutil.copytree(EXAMPLE, folder / "package", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder / "installed")]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*command, str(folder / "package")], check=True, capture_output=True, text=True)
    return folder / "installed"


@pytest.fixture
def installed(site_packages, monkeypatch):
    monkeypatch.syspath_prepend(site_packages)


def test_the_page_shows_the_files_of_the_package():
    page = (ROOT / "docs" / "own_model.md").read_text()
    fences = {token.info: token.content for token in reversed(MarkdownIt().parse(page)) if token.type == "fence"}
    assert fences["python"] == (EXAMPLE / "studio_mosaics.py").read_text()
    assert fences["toml"] == (EXAMPLE / "pyproject.toml").read_text()


def test_the_model_is_found_where_its_package_is_installed(installed):
    model = models.load("studio/mosaics:2")
    assert model.name == "studio/mosaics:2" and isinstance(model, Identified)
    assert registry.facts_of("studio/mosaics").about == "from the package studio-mosaics"
    with pytest.raises(divlens.DivlensError, match="expects a number after the colon, got 'high'"):
        models.load("studio/mosaics:high")


def test_the_model_is_not_known_without_its_package():
    with pytest.raises(divlens.DivlensError, match="no model is called 'studio/mosaics'"):
        models.load("studio/mosaics")


def test_a_mosaic_has_the_colours_that_its_prompt_names(installed):
    out = divlens.sample("studio/mosaics", ["red and blue", "green"], n=8)
    assert out.images.shape == (2, 8, 3, 64, 64)
    red, green, blue = 0, 3, 4  # places in COLOURS
    share = [[(tokens == code).double().mean().item() for code in range(6)] for tokens in out.tokens]
    assert share[0][red] + share[0][blue] > 0.9 and share[1][green] > 0.9
    assert share[1][red] + share[1][blue] < 0.1  # the control
    assert all(different(tokens) > 1 for tokens in out.tokens)


def different(tokens) -> int:
    """How many different grids there are."""
    return len({tuple(grid.flatten().tolist()) for grid in tokens})


def test_neighbours_carry_the_diversity_that_argmax_leaves(installed):
    """What the page says. Where neighbours do not count the path cannot matter, and nothing is left."""
    draws = {"prompts": ["red and blue"], "n": 8, "interventions": [divlens.Argmax()]}
    assert different(divlens.sample("studio/mosaics:0", **draws).tokens[0]) == 1
    assert different(divlens.sample("studio/mosaics:1", **draws).tokens[0]) > 1


def test_the_command_line_probes_it(site_packages, tmp_path):
    places = filter(None, (str(site_packages), os.environ.get("PYTHONPATH")))
    command = [sys.executable, "-m", "divlens", "probe", "studio/mosaics", "--prompts", str(PROMPTS), "-n", "4"]
    said = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert "studio/mosaics:1" in said.stdout and "Argmax" in said.stdout
    table = divlens.open_run(tmp_path / "run").table.set_index("condition")
    assert 0 < table.diversity["argmax"] < table.diversity["baseline"]
    assert table.diversity.notna().all()
