"""One battery for every model: what an adapter owes the loop and the user, whatever system it speaks for.

Its models stand in `oracles/every_model.py`. What only one system has, parity with its own pipeline first of all, is
tested in the file of that system.
"""

import re
import sys
from typing import Any

import pytest
import torch

from divlens.errors import DivlensError
from divlens.interventions import Argmax, DisableTop, Guidance, Subset, TopK
from divlens.models import amused, known, load
from divlens.models import wrap as wrapping
from divlens.models.fingerprint import fingerprint_of
from divlens.models.loading import DTYPES
from divlens.models.protocol import Identified, Limited, Model, NoisyDecoding, Predictor, check_model
from divlens.models.registry import facts_of
from divlens.models.wrap import wrap
from divlens.paths import ConfidenceUnmasking, Raster
from divlens.planning import Reading
from divlens.run import wording_notes
from divlens.sampler import sample
from oracles.every_model import MODELS, NETWORKS, PUBLISHED, WRAPPED, loaded, made, small, with_head

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["red heart", "a cat on a bench", "blue"]
LIKE = ["red heart", "red apple"]  # as many words, and as many letters
LONG = "a very long wording " * 30
NEAR: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-4}  # float32 logits near 1, summed in another order

every_model = pytest.mark.parametrize("name", MODELS)
published = pytest.mark.parametrize("name", PUBLISHED)
with_a_network = pytest.mark.parametrize("name", NETWORKS)


def tokens(model: Any, prompts: list[str] = PROMPTS[:1], n: int = 4, seed: int = 0, *interventions: Any) -> Any:
    return sample(model, prompts, n, seed, interventions).tokens


def refused(call: Any) -> str:
    with pytest.raises(DivlensError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_model_that_is_known_or_can_be_wrapped_has_a_line():
    assert MODELS.keys() == {*known(), "outside"}
    parts = [MODELS[name].parts for name in WRAPPED]
    same_parts = set(amused.OTHERS)  # as AmusedPipeline has
    assert {type(make(0)[0]).__name__ for make in parts if make} | same_parts == {
        *wrapping.PIPELINES,
        *wrapping.NETWORKS,
    }
    assert set(NETWORKS) == {name for name in MODELS if not name.startswith(("toy/", "outside"))}


@every_model
def test_it_is_a_model(name):
    model = made(name)
    check_model(model)
    assert isinstance(model, Model) and isinstance(model.predictor(model.encode(["blue"]), guided=True), Predictor)
    assert isinstance(model, Identified) == (name != "outside")
    assert isinstance(model, Limited) == (name in PUBLISHED)
    assert isinstance(model, NoisyDecoding) == (name == "glm-image")
    prompts = model.calibration_prompts()
    assert prompts and len(set(prompts)) == len(prompts)
    frequencies = model.frequencies()
    assert (frequencies is not None) == (name.startswith("zoo/") or name == "outside")
    assert frequencies is None or (len(frequencies) == model.codes and float(frequencies.sum()) == pytest.approx(1))


# --- samples --------------------------------------------------------------------------------------------------------


@every_model
def test_samples_follow_their_prompt_whatever_their_batch(name):
    """Sampled together, alone or one by one, a prompt's pictures are the same; other prompts' are not."""
    model = small(name)
    together = sample(model, PROMPTS, n=2, seed=5)
    assert torch.equal(together.tokens, sample(model, PROMPTS, n=2, seed=5, batch_size=1).tokens)
    for i, prompt in enumerate(PROMPTS):
        alone = sample(model, [prompt], n=2, seed=5)
        assert torch.equal(together.tokens[i], alone.tokens[0])
        torch.testing.assert_close(together.images[i], alone.images[0])
        assert not torch.equal(together.tokens[i - 1], alone.tokens[0])


@every_model
def test_samples_and_seeds_differ(name):
    model = small(name)
    first = tokens(model, n=8)
    assert first.min() >= 0 and first.max() < model.codes and first.shape == (1, 8, *model.grid)
    assert len(first[0].flatten(1).unique(dim=0)) > 1
    assert torch.equal(first, tokens(model, n=8)) and not torch.equal(first, tokens(model, n=8, seed=1))


@every_model
def test_pictures_are_of_their_tokens_alone(name):
    model = small(name)
    made = sample(model, PROMPTS[:1], n=2)
    pictures = model.decode(made.tokens[0])
    assert pictures.shape[:2] == (2, 3) and pictures.dtype == torch.float32 and pictures.device.type == "cpu"
    assert pictures.min() >= 0 and pictures.max() <= 1
    torch.testing.assert_close(made.images[0], pictures)
    torch.testing.assert_close(model.decode(made.tokens[0, 1:])[0], pictures[1])
    assert not torch.allclose(model.decode((made.tokens[0] + 1) % model.codes), pictures, atol=1e-3)


# --- logits ---------------------------------------------------------------------------------------------------------


def first_logits(model: Any, wordings: list[str], guided: bool) -> Any:
    with torch.inference_mode():
        start = torch.full((len(wordings), model.grid[0] * model.grid[1]), model.mask)
        view = model.rule.view(start, 0)
        found = model.predictor(model.encode(wordings), guided=guided)(view)
    assert all(part is None or part.shape == (len(wordings), view.count, model.codes) for part in found)
    return found


@every_model
def test_guidance_adds_a_branch_that_knows_no_prompt(name):
    model = small(name)
    conditional, unconditional = first_logits(model, LIKE, guided=True)
    torch.testing.assert_close(unconditional[0], unconditional[1], **NEAR)
    assert not torch.allclose(conditional[0], conditional[1], atol=1e-3)
    plain, absent = first_logits(model, LIKE, guided=False)
    assert absent is None
    torch.testing.assert_close(plain, conditional, **NEAR)


@every_model
def test_tokens_follow_the_guidance(name):
    model = small(name)
    own = tokens(model, PROMPTS)
    assert torch.equal(tokens(model, PROMPTS, 4, 0, Guidance(model.guidance)), own)
    assert not torch.equal(tokens(model, PROMPTS, 4, 0, Guidance(model.guidance + 2)), own)


@with_a_network
def test_logits_that_are_no_numbers_name_the_model(name):
    def filled(value: float) -> Any:
        return with_head(name, lambda head: [weight.fill_(value) for weight in head.parameters()])

    assert f"{small(name).name} gave NaN logits at step 0" in refused(lambda: tokens(filled(torch.nan)))
    assert tokens(filled(0.0)).max() < small(name).codes  # the control


# --- identity -------------------------------------------------------------------------------------------------------


@every_model
def test_other_weights_are_another_model(name):
    one, same, other = small(name), MODELS[name].small(MODELS[name].make(0)), small(name, 1)
    assert torch.equal(tokens(one, PROMPTS), tokens(same, PROMPTS))
    assert not torch.equal(tokens(one, PROMPTS), tokens(other, PROMPTS))
    found = [fingerprint_of(model) for model in (one, same, other)]
    if name == "outside":  # what its weights are is its own affair
        assert found == [None] * 3
    else:
        assert found[0] == found[1] != found[2]


@with_a_network
def test_one_weight_changes_the_fingerprint_and_a_run_does_not(name):
    model = with_head(name, lambda head: None)
    before = fingerprint_of(small(name))
    tokens(model, PROMPTS[:2], n=1)
    assert fingerprint_of(model) == before is not None
    other = with_head(name, lambda head: list(head.parameters())[-1].view(-1)[-1].add_(1e-3))
    assert fingerprint_of(other) not in (None, before)


def test_no_two_models_have_one_fingerprint():
    found = [fingerprint_of(made(name)) for name in MODELS if name != "outside"]
    assert None not in found and len(set(found)) == len(found)


@published
def test_the_folder_and_how_a_network_is_run_do_not_count(name, tmp_path):
    one, other = loaded(name, tmp_path / "a"), loaded(name, tmp_path / "b", compile=True, truncate=True)
    assert fingerprint_of(one) == fingerprint_of(other) == fingerprint_of(small(name)) is not None
    assert one.name == f"{name}:{tmp_path / 'a'}" != other.name


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapping_is_loading(name, tmp_path):
    """And what is wrapped is named after its weights: calibrations are kept under the name."""
    expected = tokens(loaded(name, tmp_path / "files"), PROMPTS)
    assert torch.equal(tokens(small(name), PROMPTS), expected)
    assert not torch.equal(tokens(small(name, 1), PROMPTS), expected)
    parts = MODELS[name].parts
    assert parts is not None
    assert made(name).name == wrap(*parts(0)).name != made(name, 1).name


# --- interventions --------------------------------------------------------------------------------------------------


def alike(grids: torch.Tensor) -> bool:
    return bool((grids == grids[:, :1]).all())


@every_model
def test_the_limits_of_the_draw(name):
    """One code to choose from is the best one, all of them is what there was; without noise one picture is left."""
    model = small(name)
    free = tokens(model)
    assert alike(tokens(model, PROMPTS[:1], 4, 0, Argmax("all"))) and not alike(free)
    best = tokens(model, PROMPTS[:1], 4, 0, Argmax())
    assert not torch.equal(free, best)
    if isinstance(model.rule, Raster):  # of the others the path may go on
        assert alike(best)
    if not isinstance(model.rule, ConfidenceUnmasking):  # its path looks at the chances: those of one code are all 1
        assert torch.equal(tokens(model, PROMPTS[:1], 4, 0, TopK(1)), best)
    assert torch.equal(tokens(model, PROMPTS[:1], 4, 0, TopK(model.codes)), free)


@every_model
def test_banned_codes_never_come_out(name):
    """Where the codes that are banned do come out without it; which ones they are is measured once, or shipped."""
    model = small(name)
    free = tokens(model, PROMPTS, 8)
    for ban in (Subset(0.5), DisableTop(0.05)):
        allowed = Reading(model).settings([ban]).allowed
        assert allowed is not None and 0 < int(allowed.sum()) < model.codes
        assert allowed[tokens(model, PROMPTS, 8, 0, ban)].all() and not allowed[free].all()


# --- options and bad input ------------------------------------------------------------------------------------------


@published
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_draws_in_float32(name, dtype, tmp_path):
    model = loaded(name, tmp_path / "files", dtype=dtype)
    assert model.encode(["red"]).dtype in (DTYPES[dtype], torch.int64)  # or the ids of words
    assert first_logits(model, ["red"], guided=True)[0].dtype == DTYPES[dtype]
    out = sample(model, PROMPTS, n=2, trace=True)
    assert out.trace is not None and {step.log_probability.dtype for step in out.trace.steps} == {torch.float32}
    assert {step.entropy.dtype for step in out.trace.steps} == {torch.float32}
    assert out.images.dtype == torch.float32 and out.images.isfinite().all()
    assert int(out.tokens.max()) < model.codes and len(out.tokens.unique()) > 3


@published
def test_too_long_a_wording_is_refused_or_cut_and_noted(name, tmp_path):
    model, cutting = (loaded(name, tmp_path / "files", truncate=truncate) for truncate in (False, True))
    long = LONG * (1 + model.limit // len(LONG))
    (length,) = model.lengths([long])
    message = refused(lambda: model.encode(["red", long]))
    assert f"reads at most {model.limit} tokens, got {length}: 'a very long" in message and "--truncate" in message
    assert wording_notes(cutting, [long, "red"]) == {long: f"cut from {length} to {model.limit} tokens"}
    found, alone = cutting.encode([long, "red"]), model.encode(["red"])
    torch.testing.assert_close(found[1:], alone, **NEAR)
    assert not torch.allclose(found[:1].float(), alone.float(), atol=1e-2)


@published
def test_without_its_packages_the_extra_is_named(name, monkeypatch, tmp_path):
    extra = facts_of(name).extra
    monkeypatch.setitem(sys.modules, extra, None)
    message = refused(lambda: loaded(name, tmp_path))
    assert re.search(rf"{name} needs the packages? .*{extra}.*'divlens\[{extra}\]'", message)


@published
def test_missing_files_are_named(name, tmp_path):
    tmp_path.joinpath("files").mkdir()
    message = refused(lambda: loaded(name, tmp_path / "files"))
    assert f"{tmp_path / 'files'} lacks " in message and "expected the files of" in message
    assert "'nobody/nothing'" in refused(lambda: load(f"{name}:nobody/nothing"))
    assert loaded(name, tmp_path / "whole").name == f"{name}:{tmp_path / 'whole'}"  # the control
