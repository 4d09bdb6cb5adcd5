"""The loop's promises: a sample depends on nothing but what it should, and bad input is refused in one line."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import settings

from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance, Paraphrase, Subset, Temperature
from divlens.loop import guide
from divlens.models.toy import PIXELS, ToyModel
from divlens.noise import TorchNoise
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from divlens.planning import plan
from divlens.run import fill, noise_of
from divlens.sampler import sample
from divlens.types import Prompt
from oracles.toy_grids import toy

FAMILIES = ("ar", "mim", "diffusion")
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine
POOL = ["red heart", "a cat", "three green apples", "blue sky", "snow"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_generator_would_make_samples_depend_on_their_batch(family):
    """The control of what `test_every_rule.py` tests with the loop's own noise."""

    def tokens(n: int, batch_size: int) -> torch.Tensor:
        return drawn_with(shared_generator, toy(family), POOL[:1], n, batch_size=batch_size)

    whole = tokens(64, 64)
    assert torch.equal(whole, tokens(64, 64))
    assert not torch.equal(whole, tokens(64, 7))
    assert not torch.equal(whole[:32], tokens(32, 64))


def drawn_with(noise, model, prompts: list[str], n: int, interventions=(), batch_size: int = 96) -> torch.Tensor:
    """The tokens of a run, (prompts * n, h, w), drawn from `noise(rows, seed)`."""
    run = plan(model, [Prompt(text) for text in prompts], n, 0, interventions, batch_size=batch_size)
    return torch.cat([batch.tokens for batch in fill(run, noise=noise)])


def shared_generator(rows, seed):
    return TorchNoise(torch.Generator().manual_seed(seed), len(rows))


def test_a_noise_that_ignores_the_sample_would_be_seen():
    def deaf(rows, seed):
        return noise_of([replace(row, path=0, execution=0) for row in rows], seed)

    assert len(drawn_with(deaf, toy("mim"), POOL[:1], 30).view(-1, 3).unique(dim=0)) == 1


# --- common random numbers ------------------------------------------------------------------------------------------


def recorded_path_noise(source_of, *interventions) -> list[torch.Tensor]:
    """The Gumbels of each step of a run, from a noise that `source_of(rows, seed)` makes."""
    heard: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class Listening:
        inner: object

        def draw(self, probabilities, step, first):
            return self.inner.draw(probabilities, step, first)  # type: ignore[attr-defined]

        def path_uniform(self, step, positions, device):
            return self.inner.path_uniform(step, positions, device)  # type: ignore[attr-defined]

        def path_gumbel(self, step, positions, device):
            heard.append(self.inner.path_gumbel(step, positions, device))  # type: ignore[attr-defined]
            return heard[-1]

    drawn_with(lambda rows, seed: Listening(source_of(rows, seed)), toy("mim"), POOL[:2], 5, interventions)
    return heard


@pytest.mark.parametrize("intervention", [Argmax(), Temperature(0.5)])
def test_the_same_seed_uses_the_same_path_noise_under_two_interventions(intervention):
    plain = recorded_path_noise(noise_of)
    changed = recorded_path_noise(noise_of, intervention)
    assert len(plain) == 2 and all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))


def test_a_shared_generator_would_change_the_path_noise():
    """Positive control: without execution draws a shared generator gives the path other numbers."""
    plain = recorded_path_noise(shared_generator)
    changed = recorded_path_noise(shared_generator, Argmax())
    assert not any(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_change_of_the_distribution_changes_few_samples(family):
    """Common random numbers at work: a temperature of 1.001 moves few draws; another seed moves most."""
    plain = sample(toy(family), POOL, n=80).tokens
    warmer = sample(toy(family), POOL, n=80, interventions=[Temperature(1.001)]).tokens
    other = sample(toy(family), POOL, n=80, seed=1).tokens

    def changed(a, b):
        return float((a != b).flatten(2).any(-1).float().mean())

    assert changed(plain, warmer) < 0.03 < 0.4 < changed(plain, other)


def test_wordings_share_the_noise_of_their_prompt():
    """Noise follows the prompt, not the wording: two wordings of one condition give the same samples."""
    prompt = Prompt("red heart", paraphrases=("heart red",))  # to the toy, the same bag of words
    out = sample(toy("diffusion"), [prompt], n=6, interventions=[Paraphrase()])
    mixed = sample(toy("diffusion"), [prompt], n=6, interventions=[Paraphrase(n=2)])
    assert mixed.wordings == (("red heart", "heart red") * 3,)
    assert torch.equal(out.tokens, mixed.tokens)


# --- results and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_ranges_and_order(family):
    done = []
    out = sample(toy(family), POOL[:2], n=5, batch_size=3, on_batch=done.append)
    assert out.tokens.shape == (2, 5, 1, 3) and out.tokens.dtype == torch.int64
    assert out.images.shape == (2, 5, 3, PIXELS, 3 * PIXELS) and out.images.dtype == torch.float32
    assert float(out.images.min()) >= 0 and float(out.images.max()) <= 1
    assert done == [3, 3, 3, 1] and out.samples == (0, 1, 2, 3, 4)
    assert out.wordings == (("red heart",) * 5, ("a cat",) * 5)
    assert [prompt.text for prompt in out.prompts] == POOL[:2]
    colours = out.images[:, :, :, PIXELS // 2, PIXELS // 2 :: PIXELS].argmax(2)
    assert torch.equal(colours, out.tokens[:, :, 0])
    assert sample(toy(family), POOL[:1], n=1).trace is None


REFUSED = {
    "no prompts": (dict(prompts=[]), "at least one prompt"),
    "an empty prompt": (dict(prompts=[" "]), "prompt is empty"),
    "n": (dict(n=0), "n expects a whole number of at least 1"),
    "batch size": (dict(batch_size=0), "batch_size expects at least 1"),
    "truth as a batch size": (dict(batch_size=True), "batch_size expects at least 1"),
    "half a sample": (dict(n=2.5), "n expects a whole number of at least 1, got 2.5"),
    "a word as batch size": (dict(batch_size="all"), "batch_size expects at least 1"),
    "one text": (dict(prompts="a cat"), "expected a list of prompts, got 'a cat'"),
    "negative seed": (dict(seed=-1), "seed expects"),
    "half a seed": (dict(seed=0.5), "seed expects"),
    "truth as a seed": (dict(seed=True), "seed expects"),
    "large seed": (dict(seed=2**64), "seed expects"),
    "a long prompt": (dict(prompts=["word " * 33]), "at most 32 words, got 33"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(DivlensError, match=message) as caught:
        sample(toy("ar"), **{"prompts": ["a cat"], **arguments})
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Broken(ToyModel):
    value: float = field(default=float("nan"), kw_only=True)

    def predictor(self, conditions, guided):
        inner = super().predictor(conditions, guided)
        return lambda view: (inner(view)[0] * self.value, None)


def test_logits_that_are_not_numbers_are_refused():
    model = Broken("ar", toy("ar").rule, guidance=1.0)
    with pytest.raises(DivlensError, match="NaN logits at step 0"):
        sample(model, ["a cat"])
    assert sample(replace(model, value=1.0), ["a cat"]).tokens.shape == (1, 8, 1, 3)


@dataclass(frozen=True)
class Wide(ToyModel):
    extra: int = field(default=0, kw_only=True)

    def predictor(self, conditions, guided):
        inner = super().predictor(conditions, guided)
        return lambda view: (torch.nn.functional.pad(inner(view)[0], (0, self.extra)), None)


@dataclass(frozen=True)
class Alone(ToyModel):
    def predictor(self, conditions, guided):
        inner = super().predictor(conditions, guided)
        return lambda view: inner(view)[0]


def test_logits_of_another_width_and_a_mask_that_is_a_code_are_refused():
    rule = toy("ar").rule
    with pytest.raises(DivlensError, match=r"logits \(8, 1, 3\), got \(8, 1, 4\)"):
        sample(Wide("ar", rule, guidance=1.0, extra=1), ["a cat"])
    assert sample(Wide("ar", rule, guidance=1.0), ["a cat"]).tokens.shape == (1, 8, 1, 3)
    with pytest.raises(DivlensError, match=r"\(conditional, unconditional or None\), got Tensor"):
        sample(Alone("ar", rule), ["a cat"])  # type: ignore[arg-type]
    with pytest.raises(DivlensError, match="a whole number and no code, got 0 of 3"):
        sample(replace(toy("ar"), mask=0), ["a cat"])
    with pytest.raises(DivlensError, match=r"a whole number and no code, got 3\.0 of 3"):
        sample(replace(toy("ar"), mask=3.0), ["a cat"])  # type: ignore[arg-type]


KNOWN: Any = ConfidenceUnmasking  # rules are final, which a type checker would say of a subclass


@dataclass(frozen=True)
class Lazy(KNOWN):
    """Leaves what was drawn at the first position masked."""

    def advance(self, view, draws, mask, noise):
        found = super().advance(view, draws, mask, noise)
        tokens = found.tokens.clone()
        tokens[:, 0] = mask
        return replace(found, tokens=tokens)


def test_a_rule_that_does_not_fit_the_model_is_refused():
    for family, rule, message in (
        ("ar", Raster(2), "a rule for its 3 positions, got one for 2"),
        ("ar", Raster(0), "a rule for its 3 positions, got one for 0"),
        ("diffusion", MaskReplaceDiffusion((1.0, 0.5, 0.0), (0.0, 0.5, 1.0), 2), "for its 3 codes, got one for 2"),
        ("mim", Lazy(3), "left positions masked"),
        ("mim", "raster", "a path rule, got 'raster', which lacks advance, drawn, silenced, steps, view"),
    ):
        with pytest.raises(DivlensError, match=message):
            sample(replace(toy(family), rule=rule), ["a cat"])
        assert (sample(toy(family), ["a cat"]).tokens < 3).all()  # the control


def test_a_model_is_refused_by_what_it_lacks():
    for part, message in (
        (dict(guidance=None), "a number as guidance, got None"),
        (dict(grid=(3,)), r"two whole numbers, \(h, w\), got \(3,\)"),
        (dict(grid=(1, 0)), "two whole numbers"),
    ):
        with pytest.raises(DivlensError, match=message):
            sample(replace(toy("ar"), **part), ["a cat"])
    with pytest.raises(DivlensError, match="expected a model, got 3, which lacks calibration_prompts, codes"):
        sample(3, ["a cat"])  # type: ignore[arg-type]


def test_guidance_of_a_model_without_unconditional_logits_is_refused():
    model = Wide("ar", toy("ar").rule, guidance=1.0)
    with pytest.raises(DivlensError, match="no unconditional logits, which guidance expects"):
        sample(model, ["a cat"], interventions=[Guidance(5.0)])
    assert sample(model, ["a cat"], interventions=[Guidance(1.0)]).tokens.shape == (1, 8, 1, 3)


@pytest.mark.parametrize("interventions", [Argmax(), ["argmax"], [Argmax], "argmax", None])
def test_what_is_no_list_of_interventions_is_refused(interventions):
    with pytest.raises(DivlensError, match=r"interventions expects a list such as \[Argmax"):
        sample(toy("mim"), ["a cat"], interventions=interventions)
    assert sample(toy("mim"), ["a cat"], interventions=(Argmax(),)).tokens.shape == (1, 8, 1, 3)


def test_guidance_is_the_published_formula():
    conditional, unconditional = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    for scale in (0.0, 0.3, 1.0, 7.5):
        expected = unconditional + scale * (conditional - unconditional)
        torch.testing.assert_close(guide(conditional, unconditional, scale), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(guide(conditional, None, 3.0), conditional)
    assert guide(conditional.half(), unconditional.half(), 2.0).dtype == torch.float32


def test_a_calibration_run_leaves_the_samples_alone():
    first = sample(toy("mim"), POOL[:1], n=8, interventions=[Subset(0.9)]).tokens  # measures, then samples
    assert torch.equal(first, sample(toy("mim"), POOL[:1], n=8, interventions=[Subset(0.9)]).tokens)
