"""Where models are found: by name, lazily, from outside packages, and with errors that help."""

import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens import models
from divlens.errors import DivlensError
from divlens.models import registry
from divlens.models.protocol import Model
from divlens.models.toy import ToyModel, load_ar


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "TABLE", dict(registry.TABLE))


def test_built_in_names_are_known():
    built_in = {f"{place}/{family}" for place in ("toy", "zoo") for family in ("ar", "mim", "diffusion")}
    assert built_in <= set(models.known())
    assert models.known() == sorted(models.known())


@pytest.mark.parametrize("family", ["ar", "mim", "diffusion"])
def test_a_toy_is_a_model(family):
    model = models.load(f"toy/{family}")
    assert isinstance(model, Model) and model.name == f"toy/{family}:0"


def test_what_follows_the_first_colon_goes_to_the_factory():
    assert models.load("toy/ar:12").name == "toy/ar:12"
    seen = []

    def factory(checkpoint, options, **arguments):
        seen.append((checkpoint, options.device, arguments))
        return load_ar()

    models.register("studio/painter", factory, size=512)
    models.load("studio/painter", device="cpu:0")
    models.load("studio/painter:C:/weights:2")
    assert seen == [(None, "cpu:0", {"size": 512}), ("C:/weights:2", "cpu", {"size": 512})]


def test_a_dotted_path_is_imported_when_the_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "lazy_painter.py").write_text("from divlens.models.toy import load_mim as make\n")
    monkeypatch.syspath_prepend(tmp_path)
    models.register("lazy/painter", "lazy_painter:make")
    assert "lazy/painter" in models.known() and "lazy_painter" not in sys.modules
    assert models.load("lazy/painter:3").name == "toy/mim:3"
    assert "lazy_painter" in sys.modules


def test_listing_models_does_not_import_torch():
    code = "import sys, divlens.models as m; m.known(); assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
    # Positive control: loading does.
    code = "import sys, divlens.models as m; m.load('toy/ar'); assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def refused(call, *arguments, **named) -> str:
    with pytest.raises(DivlensError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_name_lists_the_known_and_suggests_the_closest():
    message = refused(models.load, "zoo/mmi:weights")
    assert "'zoo/mmi'" in message and "did you mean 'zoo/mim'" in message
    assert all(name in message for name in models.known())
    assert "did you mean" not in refused(models.load, "entirely different")


def test_names_are_registered_once():
    models.register("studio/painter", load_ar)
    assert "registered already" in refused(models.register, "studio/painter", load_ar)
    assert "registered already" in refused(models.register, "zoo/mim", load_ar)


@pytest.mark.parametrize("name", ["", "with:colon", "with space", "line\nbreak"])
def test_names_that_load_could_not_read_are_refused(name):
    assert "name without colons or spaces" in refused(models.register, name, load_ar)


@pytest.mark.parametrize("place", ["module.without.colon", "module:", ":attribute"])
def test_places_are_modules_and_attributes(place):
    assert '"module:attribute"' in refused(models.register, "studio/painter", place)


def test_what_cannot_be_loaded_says_why():
    models.register("gone/module", "no_such_module_at_all:load")
    models.register("gone/attribute", "divlens.models.toy:no_such_factory")
    models.register("not/a-model", lambda checkpoint, options: "a string")  # type: ignore[arg-type]
    assert "no_such_module_at_all" in refused(models.load, "gone/module")
    assert "no_such_factory" in refused(models.load, "gone/attribute")
    assert "returned a str, which lacks" in refused(models.load, "not/a-model")
    assert "checkpoint after the colon" in refused(models.load, "toy/ar:")
    assert "expects a seed" in refused(models.load, "toy/ar:seven")


# --- any error is one line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no\nsuch   thing"), RuntimeError(), KeyError("x"), AssertionError()])
def test_a_factory_that_fails_is_one_line_with_its_cause(error):
    def fail(checkpoint, options):
        raise error

    models.register("failing/painter", fail)
    with pytest.raises(DivlensError) as caught:
        models.load("failing/painter:here")
    message = str(caught.value)
    assert "'failing/painter:here'" in message and type(error).__name__ in message and "\n" not in message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DivlensError("as it is"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_one_line_already_or_no_failure_passes(error):
    def fail(checkpoint, options):
        raise error

    models.register("failing/painter", fail)
    with pytest.raises(type(error)) as caught:
        models.load("failing/painter")
    assert caught.value is error


def test_a_panic_of_a_package_in_rust_is_a_failure():
    class PanicException(BaseException):
        """By this name, and outside Exception, as pyo3 raises it."""

    def fail(checkpoint, options):
        raise PanicException("index out of bounds")

    models.register("panicking/painter", fail)
    assert "PanicException: index out of bounds" in refused(models.load, "panicking/painter")


def test_a_factory_with_other_arguments_and_a_module_that_fails_are_one_line(tmp_path, monkeypatch):
    models.register("other/arguments", lambda: load_ar())
    assert "TypeError" in refused(models.load, "other/arguments")
    (tmp_path / "broken_painter.py").write_text("raise ValueError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    models.register("broken/module", "broken_painter:make")
    assert "expects a factory that can be imported, got ValueError: broken" in refused(models.load, "broken/module")


@pytest.mark.parametrize("spec", [123, None, b"toy/ar", ["toy/ar"]])
def test_a_spec_is_a_text(spec):
    assert f"got {spec!r}" in refused(models.load, spec)


def test_a_device_is_a_name_or_torchs_own():
    by_name, own = models.load("toy/ar", device="cpu"), models.load("toy/ar", device=torch.device("cpu"))
    assert by_name == own
    assert "a torch.device, got 0" in refused(models.load, "toy/ar", device=0)
    assert "one that torch can use here, got 'cuda:99'" in refused(
        models.load, "toy/ar", device=torch.device("cuda", 99)
    )


def test_a_model_whose_parts_do_not_fit_is_refused_when_it_is_loaded():
    models.register("odd/painter", lambda checkpoint, options: replace(load_ar(), grid=(2, 3)))
    assert "expects a rule for its 6 positions" in refused(models.load, "odd/painter")


# --- what is known before loading ------------------------------------------------------------------------------------


def test_facts_are_known_without_importing_anything(tmp_path, monkeypatch):
    for name in models.known():
        facts = registry.facts_of(name)
        assert facts.family in ("autoregressive", "masked", "diffusion")
        assert facts.extra in ("", "diffusers", "transformers") and facts.checkpoint
    assert registry.facts_of("vq-diffusion").extra == "diffusers"
    for place, family in (("toy/ar", "autoregressive"), ("zoo/mim", "masked"), ("zoo/diffusion", "diffusion")):
        assert registry.facts_of(place).family == family and registry.facts_of(place).extra == ""
    install(tmp_path, "outside-painter", "outside/painter", "outside_painter")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.facts_of("outside/painter") == registry.Facts(about="from the package outside-painter")
    models.register("studio/painter", load_ar)
    assert registry.facts_of("studio/painter") == registry.Facts()
    assert "outside_painter" not in sys.modules


# --- an installed package -------------------------------------------------------------------------------------------


def install(folder, distribution: str, name: str, module: str) -> None:
    """A minimal distribution, as an installer would leave it: a module, and metadata that offers a model."""
    (folder / f"{module}.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import replace

            from divlens.models.toy import ToyModel, load_diffusion


            def make(checkpoint, options):
                return replace(load_diffusion(None, options), seed=int(checkpoint or 5))
            """
        )
    )
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[divlens.models]\n{name} = {module}:make\n")
    (info / "RECORD").write_text("")


def test_a_model_of_an_installed_package_is_found(tmp_path, monkeypatch):
    assert "outside/painter" not in models.known()
    install(tmp_path, "outside-painter", "outside/painter", "outside_painter")
    monkeypatch.syspath_prepend(tmp_path)
    assert "outside/painter" in models.known()
    assert "outside_painter" not in sys.modules  # knowing the name imports nothing
    model = models.load("outside/painter:8")
    assert isinstance(model, ToyModel) and (model.family, model.seed) == ("diffusion", 8)
    assert models.load("outside/painter").name == "toy/diffusion:5"
    assert "registered already" in refused(models.register, "outside/painter", load_ar)
    assert "did you mean 'outside/painter'" in refused(models.load, "outside/paintr")


def test_two_packages_with_one_name_are_refused(tmp_path, monkeypatch):
    install(tmp_path, "first-painter", "twice/painter", "first_painter")
    install(tmp_path, "second-painter", "twice/painter", "second_painter")
    install(tmp_path, "third-painter", "toy/ar", "third_painter")
    monkeypatch.syspath_prepend(tmp_path)
    assert "more than one installed package" in refused(models.load, "twice/painter")
    assert "registered already" in refused(models.load, "toy/ar")
    assert models.load("toy/mim").name == "toy/mim:0"  # the rest goes on working


def test_the_example_of_a_model_in_the_architecture_runs_as_it_stands(capsys):
    """Its positions are alike and independent: a picture has 16 times the entropy of one."""
    text = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class " in block)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "conditional_lower" in capsys.readouterr().out
    greys = names["Greys"]()
    assert isinstance(greys, Model)
    weights = np.exp([1.0, 0.0, 0.0]) / np.exp([1.0, 0.0, 0.0]).sum()
    exact = -16 * float((weights * np.log2(weights)).sum())
    found = divlens.information(greys, ["a cat", "red heart"], n=64)
    assert found.conditional_lower.value == found.conditional_upper.value == pytest.approx(exact, abs=1e-5)
    subset = divlens.sample(greys, ["a cat"], n=8, interventions=[divlens.Subset(0.34)])
    assert len(subset.tokens.unique()) == 1
