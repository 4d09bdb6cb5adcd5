"""`divlens calibrate`: by a run, by pictures, and back; kept for the same model and for no other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.calibrate import scaled
from divlens.calibration import cache_folder, own_name, read, share_of
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.interventions import DisableTop
from divlens.models import amused, vq_diffusion
from divlens.models.fingerprint import fingerprint_of
from divlens.models.loading import Options
from divlens.models.protocol import Tokenizing
from divlens.planning import Reading
from divlens.sheets import to_picture
from oracles import tiny_diffusers
from oracles.colour_network import colour_network

PROMPTS = ["a cat", "snow"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """16 samples of a toy and of its twin with other weights, under two conditions."""
    monkeypatch.setattr("divlens.experiment.comparison.load_network", lambda name: colour_network(smallest=21))
    divlens.probe(["toy/ar", "toy/ar:7"], PROMPTS, n=8, conditions=[DisableTop(0.3)], out=str(tmp_path / "run"))
    return tmp_path / "run"


def counted_by_hand(run: Path, model: str, condition: str) -> list[float]:
    samples = divlens.open_run(run).samples
    own = samples[(samples["model"] == model) & (samples["condition"] == condition)]
    tokens = np.concatenate(list(own["tokens"]))
    return [float((tokens == code).mean()) for code in range(3)]


def test_a_run_gives_the_shares_of_its_samples(run):
    """Those of this model under this condition, and DisableTop goes by them from then on."""
    usual = Reading(divlens.load("toy/ar")).frequencies()
    for condition in ("baseline", repr(DisableTop(0.3))):
        found = divlens.calibrate("toy/ar", run=run, condition=condition)
        assert found.share.tolist() == pytest.approx(counted_by_hand(run, "toy/ar:0", condition))
        assert torch.equal(Reading(divlens.load("toy/ar")).frequencies(), found.share)
    assert found.share.tolist() != pytest.approx(counted_by_hand(run, "toy/ar:7", condition))
    assert found.tokens == 16 * 3
    assert not torch.equal(found.share, usual)
    assert not torch.equal(Reading(divlens.load("toy/ar:7")).frequencies(), found.share)  # another model's are its own
    assert torch.equal(divlens.calibrate("toy/ar").share, usual)  # and back


def test_what_ships_gives_way_and_comes_back(tmp_path):
    """The zoo brings frequencies of its own. What the tokenizer makes of its own pictures is counted."""
    model: Any = divlens.load("zoo/mim")
    made = divlens.sample(model, ["a red heart"], n=4)
    for number, picture in enumerate(made.images[0]):
        to_picture(picture).save(tmp_path / f"{number}.png")
    found = divlens.calibrate(model, pictures=tmp_path)
    as_bytes = (made.images[0] * 255).round() / 255
    assert torch.equal(found.share, share_of(model.encode_pictures(as_bytes), model.codes))
    assert torch.equal(Reading(divlens.load("zoo/mim")).frequencies(), found.share)
    assert not torch.equal(found.share, model.frequencies())
    assert any("tokens are few for 1024 codes" in note for note in found.notes)
    assert torch.equal(divlens.calibrate("zoo/mim").share, Reading(divlens.load("zoo/mim")).frequencies())
    assert torch.allclose(Reading(divlens.load("zoo/mim")).frequencies(), model.frequencies().double(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*is deprecated.*:FutureWarning:diffusers")
@pytest.mark.parametrize("adapter", [amused, vq_diffusion], ids=["amused", "vq-diffusion"])
def test_the_encoder_of_diffusers_is_asked_as_its_pipeline_does(adapter):
    """Its nearest codebook vector, by brute force, in the range of pixels that the decoder has."""
    pipeline = tiny_diffusers.amused() if adapter is amused else tiny_diffusers.vq_diffusion()
    model = adapter.from_pipeline(pipeline, Options())
    assert isinstance(model, Tokenizing)
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = model.encode_pictures(pictures)
        pixels = pictures if adapter is amused else pictures * 2 - 1
        latents = pipeline.vqvae.encode(pixels).latents.permute(0, 2, 3, 1)
        distances = (latents[..., None, :] - pipeline.vqvae.quantize.embedding.weight).square().sum(-1)
    assert torch.equal(found, distances.argmin(-1)) and found.unique().numel() > 1


def test_pictures_are_cut_in_the_middle_and_scaled():
    picture = torch.zeros(1, 3, 4, 8)
    picture[..., 2:6] = 1
    assert torch.equal(scaled(picture, 2, 2), torch.ones(1, 3, 2, 2))
    assert scaled(picture, 3, 9).shape == (1, 3, 3, 9) and torch.equal(scaled(picture, 4, 8), picture)


def test_two_at_once_leave_one_whole_file(run):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda folder: divlens.calibrate("toy/ar", run=folder).share, [run, run])
    fingerprint = fingerprint_of(divlens.load("toy/ar"))
    assert fingerprint is not None
    kept = read(own_name(fingerprint), 3)
    assert kept is not None and torch.equal(first, second) and torch.equal(first, kept)
    left = [path.name for path in cache_folder().iterdir() if path.name.startswith(("own", "."))]
    assert left == [own_name(fingerprint)]  # nothing half-written


def test_the_command_says_what_it_found(run, capsys):
    main(["calibrate", "toy/ar", "--run", str(run)])
    said = capsys.readouterr()
    assert said.err == "" and "toy/ar:0 is calibrated by the run" in said.out
    assert "48 tokens were counted: 3 of 3 codes came out, and the 1 most used" in said.out
    main(["calibrate", "toy/ar"])
    assert "by its own calibration" in capsys.readouterr().out


def test_bad_input_is_one_line_and_keeps_what_was_kept(run, tmp_path):
    kept = divlens.calibrate("toy/ar", run=run).share
    (tmp_path / "empty").mkdir()
    for given, message in (
        ({"run": run, "pictures": tmp_path}, "expects a run or pictures, got both"),
        ({"run": tmp_path / "nowhere"}, "nowhere"),
        ({"run": run, "condition": "hot"}, "hot"),
        ({"pictures": tmp_path / "empty"}, "whose tokenizer reads pictures .*, got toy/ar:0: use a run"),
    ):
        with pytest.raises(DivlensError, match=message) as error:
            divlens.calibrate("toy/ar", **given)
        assert "\n" not in str(error.value)
    with pytest.raises(DivlensError, match="expected pictures"):
        divlens.calibrate("zoo/mim", pictures=tmp_path / "empty")
    with pytest.raises(DivlensError, match="toy/mim"):
        divlens.calibrate("toy/mim", run=run)
    assert torch.equal(Reading(divlens.load("toy/ar")).frequencies(), kept)
