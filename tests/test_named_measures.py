"""Measures by name: of the samples of a run, stored under what they depend on, and refused in a line."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import divlens
from divlens.errors import DivlensError
from divlens.experiment.built_in import token_entropy
from divlens.experiment.families import FAMILIES, WRITTEN, family_measure, shortened
from divlens.experiment.result import ProbeResult
from divlens.metrics import kernels
from divlens.metrics.manifolds import Reference
from divlens.resume import resume
from oracles import tiny_features
from oracles.colour_network import colour_network

PROMPTS, N = ("red heart", "a cat", "snow"), 6
pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_features.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name: colour_network())
        divlens.probe("toy/ar", PROMPTS, N, conditions=[divlens.Argmax()], out=folder)
    return folder


@pytest.fixture
def run_of_toy(run_once, tmp_path):
    return Path(shutil.copytree(run_once, tmp_path / "run"))


@pytest.fixture
def drawn():
    return divlens.sample("toy/ar", PROMPTS, N)


def saved(pictures, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def baseline(scores: Any) -> Any:
    return scores.per_prompt[scores.per_prompt["condition"] == "baseline"].reset_index(drop=True)


def test_every_name_is_measured_of_the_samples_that_are_there(run_of_toy, drawn, clip, tmp_path, monkeypatch):
    reference = saved(drawn.images.flatten(0, 1), tmp_path / "reference")
    names = ["vendi", "vendi:2", "rke", "repeat", "repeat:0.01", f"vendi@clip:{clip}", f"clip:{clip}"]
    names += [f"clipscore:{clip}", f"clipiqa:{clip}"]
    names += [f"prdc_recall:{reference}", f"prdc_density:{reference}@clip:{clip}"]
    monkeypatch.setattr("divlens.run.steps", lambda *arguments: pytest.fail("it drew"))
    scores = divlens.score(run_of_toy, names)
    found, network = baseline(scores), colour_network()
    assert list(scores.parts[0].values) == names
    features = [network(pictures) for pictures in drawn.images]
    cosines = [kernels.cosines(kernels.products([part])) for part in features]
    expected = {
        "vendi": [kernels.vendi_score(each) for each in cosines],
        "vendi:2": [kernels.vendi_score(each, 2.0) for each in cosines],
        "rke": [kernels.effective_number_of_order_2(each) for each in cosines],
    }
    real = Reference.of([network((drawn.images.flatten(0, 1) * 255).round() / 255)])
    expected[f"prdc_recall:{reference}"] = [real.against([part]).recall for part in features]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)  # features in batches of other sizes
    assert (found["repeat"] > 2).all() and (found["repeat"] <= N + 1).all()
    argmax: Any = scores.per_prompt[scores.per_prompt["condition"] == "argmax"]
    assert (argmax["repeat"] == 2).all() and (argmax["repeat:0.01"] == 2).all()  # raster's path has no noise
    np.testing.assert_allclose(argmax["vendi"], 1, rtol=1e-6)
    text = str(scores)
    assert "compare at equal n only" in text and "uniform noise has" in " ".join(text.split())
    assert f"vendi@clip:{Path(clip).name}" in text


def test_figures_are_found_again_only_of_the_same_network_and_reference(run_of_toy, drawn, tmp_path, monkeypatch):
    place = tmp_path / "clip"
    tiny_features.clip(place, seed=0)
    reference = saved(drawn.images[0], tmp_path / "reference")
    names = [f"clip:{place}", f"prdc_coverage:{reference}", "vendi"]
    first = baseline(divlens.score(run_of_toy, names))

    def again(*wanted):
        from divlens.metrics import clip, networks

        networks.loaded.cache_clear()
        clip.clip_of.cache_clear()
        return baseline(divlens.score(run_of_toy, wanted))

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["divlens.score"], "looks", lambda *arguments: pytest.fail("it looked"))
        for wanted in (names, names[::-1], names[:1], names[1:]):
            assert again(*wanted)[wanted[0]].tolist() == first[wanted[0]].tolist()
    tiny_features.clip(place, seed=1)
    assert again(names[0])[names[0]].tolist() != first[names[0]].tolist()
    shutil.rmtree(reference)
    saved(1 - drawn.images[0], reference)
    assert again(names[1])[names[1]].tolist() != first[names[1]].tolist()
    assert again("vendi")["vendi"].tolist() == first["vendi"].tolist()


def test_a_probe_takes_names_and_a_run_goes_on_with_them_but_not_with_functions(tmp_path):
    ask: Any = {"models": "toy/ar", "prompts": PROMPTS[:2], "n": 2, "conditions": {"baseline": ()}}
    names = ["token_entropy", "vendi"]
    found: Any = divlens.probe(**ask, measures=names, out=tmp_path / "run")
    tokens = divlens.sample("toy/ar", PROMPTS[:2], 2).tokens.flatten(2)
    assert found.per_prompt["token_entropy"].tolist() == [token_entropy(each) for each in tokens]
    (again,) = resume(tmp_path / "run", repair=True)
    assert isinstance(again, ProbeResult)
    pd.testing.assert_frame_equal(again.table, found.table)
    own = divlens.Measure("greyness", lambda look: look.pictures.mean((1, 2, 3)))
    divlens.probe(**ask, measures=[own], out=tmp_path / "own")
    with pytest.raises(DivlensError, match="the measures greyness are functions, of which a folder has the name only"):
        resume(tmp_path / "own", repair=True)


def test_the_prompt_that_was_asked_for_is_what_pictures_are_held_against(clip):
    wordings = divlens.Prompt("red heart", ("a crimson heart", "heart, red"))
    measure = family_measure(f"clipscore:{clip}")
    assert measure is not None
    found: Any = divlens.probe(
        "toy/ar", [wordings], 4, conditions={"baseline": (), "words": divlens.Paraphrase()}, measures=[measure]
    )
    images = divlens.sample("toy/ar", [wordings], 4, interventions=[divlens.Paraphrase()]).images[0]
    from divlens.metrics.clip import clip_of
    from divlens.metrics.networks import in_8_bits

    scores = [float(clip_of(clip).scores(in_8_bits(images), text).mean()) for text in ("red heart", "heart, red")]
    assert found.per_prompt[measure.name][1] == pytest.approx(scores[0], rel=1e-5) and scores[0] != scores[1]


def test_a_reference_of_each_prompt(drawn, tmp_path):
    """One prompt has a sub-folder of its own pictures, another has one of negatives, the third has none."""
    saved(drawn.images[0], tmp_path / "real" / PROMPTS[0])
    saved(1 - drawn.images[1], tmp_path / "real" / PROMPTS[1])
    measure = family_measure(f"prdc_coverage:{tmp_path / 'real'}")
    assert measure is not None and "the sub-folder that is called as the prompt, 12 pictures in all" in measure.note
    found: Any = divlens.probe("toy/ar", PROMPTS, N, conditions={"baseline": ()}, measures=[measure])
    own, other, none = found.per_prompt[measure.name]
    assert own == 1 > other and np.isnan(none)
    assert f"{measure.title}: over 2 of 3 prompts." in found.notes


def test_enhance_says_what_is_measured(clip):
    measures = [measure for name in (f"clipiqa:{clip}", "rke") if (measure := family_measure(name))]
    text = " ".join(str(divlens.enhance("toy/ar", PROMPTS, 2, measures=measures)).split())
    assert "uniform noise has" in text and "no bias at any n" in text


def test_a_comparison_warns_of_noise_too(run_of_toy, clip):
    assert "CLIP-IQA" not in str(divlens.compare(run_of_toy, run_of_toy))
    divlens.score(run_of_toy, [f"clipiqa:{clip}"])
    assert "CLIP-IQA may take noise for quality" in str(divlens.compare(run_of_toy, run_of_toy))


REFUSED = {
    "vendi:0": "vendi expects an order above 0, or inf, after a colon, got '0'",
    "vendi:much": "got 'much'",
    "vendi@clip": "no measure is called 'vendi@clip'",
    "vendi@clip:nowhere/none": "cannot load 'nowhere/none': expected a folder, or a repository on the model hub",
    "rke:2": "rke expects nothing after a colon, got '2'",
    "repeat:-1": "repeat expects a distance above 0 after a colon, got '-1'",
    "repeat:inf": "repeat expects a distance above 0 after a colon, got 'inf'",
    "repeat@stlpips": "repeat expects a distance, as in repeat:0.01@stlpips",
    "clip": "clip expects a folder or a repository on the model hub after a colon, got none",
    "clipscore": "clipscore expects a folder or a repository on the model hub after a colon, got none",
    "clipiqa:a@stlpips": "clipiqa is a network of its own and expects none after @",
    "dreamsim@stlpips": "dreamsim is a network of its own and expects none after @",
    "prdc_recall": "prdc_recall expects a folder of reference pictures, prdc_recall:FOLDER, got none",
    "prdc_recall:nowhere": "expected a folder of pictures, got nowhere, which is not there",
    "vendy": "no measure is called 'vendy'; did you mean vendi? known: diversity,",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_measure_is_refused_in_a_line(name, run, tmp_path):
    code, out, err = run("score", tmp_path / "nothing", "--measures", name)
    assert (code, out, err.count("\n")) == (2, "", 1) and REFUSED[name] in err


def test_a_reference_with_broken_pictures(run, drawn, run_of_toy, tmp_path):
    folder = saved([*drawn.images[0], drawn.images[1, 0]], tmp_path / "real")
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("is no picture, and does not count")
    ask = ("score", run_of_toy, "--measures", f"prdc_precision:{folder}")
    code, out, err = run(*ask)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "1 of 7 pictures cannot be read, --skip-broken leaves them out" in err and "003.png" in err
    code, out, _ = run(*ask, "--skip-broken")
    assert code == 0 and "all 6 pictures" in " ".join(out.split())
    (folder / "000.png").unlink()
    code, out, err = run(*ask, "--skip-broken")
    assert code == 2 and "expected more than 5 reference pictures, as many as neighbours count, got 5" in err


def test_a_reference_of_another_size(run, drawn, run_of_toy, tmp_path, clip):
    larger = torch.nn.functional.interpolate(drawn.images[0], scale_factor=2)
    folder = saved(larger, tmp_path / "real")
    code, _, err = run("score", run_of_toy, "--measures", f"prdc_precision:{folder}")
    assert code == 2 and "expected reference pictures of 32 x 96 pixels as those that are measured, got 64 x 192" in err
    code, *_ = run("score", run_of_toy, "--measures", f"prdc_precision:{folder}@clip:{clip}")
    assert code == 0  # the control: CLIP scales all


def test_help_and_messages_name_every_family():
    written = " ".join(WRITTEN)
    assert all(family in written for family in FAMILIES)
    assert shortened("prdc_recall:/a/b/real@clip:openai/clip") == "prdc_recall:real@clip:clip"
    assert shortened("vendi:2@dreamsim") == "vendi:2@dreamsim" and shortened("clip:/a/b/") == "clip:b/"
