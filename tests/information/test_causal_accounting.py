"""Path, execution and joint against an enumeration of every transcript, for all rules and interventions."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from enumeration import Case, truth
from small import Small

from divlens import models
from divlens.information import Effort, information
from divlens.information.accounting import QUANTITIES, BatchAccount, Tally
from divlens.information.api import collect
from divlens.information.mutual import Asked
from divlens.information.records import Moments, estimate
from divlens.interventions import Argmax, DisableTop, Freeze, Guidance, Subset, Temperature, TopK, TopP
from divlens.models.toy import ToyModel
from divlens.noise import CounterNoise, draw_by_inversion
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from divlens.sampler import Encoded, Row, fill, rows_of, settings_for
from divlens.types import Prompt

PROMPT = "red heart"
FAMILIES = ("ar", "mim", "diffusion")
QUICK = Effort(paths=0, mixture_samples=0)
# |estimate - truth| beyond 5 standard errors: false-alarm rate 6e-7 each.
SIGMAS = 5


def toy(family: str, seed: int = 0) -> ToyModel:
    model = models.load(f"toy/{family}:{seed}")
    assert isinstance(model, ToyModel)
    return model


def drawn_sums(model: Any, n: int, seed: int = 0, interventions=(), prompt: str = PROMPT) -> torch.Tensor:
    """Bits of each sample, (n, 6), without pictures or tallies."""
    settings, encoded = settings_for(model, interventions), Encoded(model)
    rows = rows_of(Prompt(prompt), range(n), interventions, settings, encoded)
    accounts = []

    def observers(batch):
        columns = [row.prompt.text for row in batch], [row.path for row in batch], [row.execution for row in batch]
        accounts.append(BatchAccount(CounterNoise.of(seed, *columns)))
        return [accounts[-1]]

    for _ in fill(model, rows, seed, settings, encoded, batch_size=4000, observers=observers):
        pass
    return torch.cat([account.sums for account in accounts])


def check(sums: torch.Tensor, exact, names=QUANTITIES) -> None:
    for name in names:
        values = sums[:, QUANTITIES.index(name)]
        error = float(values.std()) / math.sqrt(len(values))
        # float32 log-probabilities leave errors of 1e-6 where the spread is zero.
        assert abs(float(values.mean()) - getattr(exact, name)) < SIGMAS * error + 2e-5, name


@cache
def exact_toy(family: str, seed: int):
    return truth(Case(toy(family, seed), PROMPT))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_against_every_transcript(family, seed):
    names = QUANTITIES if family == "diffusion" else QUANTITIES[:3]
    sums = drawn_sums(toy(family, seed), 3000, seed)
    check(sums, exact_toy(family, seed), names)
    with pytest.raises(AssertionError):
        check(sums, exact_toy(family, seed + 1), names)  # it can fail: other weights


def keep_top(k: int):
    def transform(logits):
        least = np.sort(logits, -1)[:, -k][:, None]
        return np.where(logits >= least, logits, -np.inf)

    return transform


def keep_mass(p: float):
    def transform(logits):
        chance = np.exp(logits - logits.max(-1, keepdims=True))
        chance /= chance.sum(-1, keepdims=True)
        result = np.full_like(logits, -np.inf)
        for i, row in enumerate(chance):
            total = 0.0
            for code in np.argsort(-row, kind="stable"):
                if total >= p:
                    break
                result[i, code] = logits[i, code]
                total += row[code]
        return result

    return transform


def ban(codes: tuple[int, ...]):
    def transform(logits):
        result = logits.copy()
        result[:, list(codes)] = -np.inf
        return result

    return transform


# Of Small with 4 codes the frequencies fall from code 0 to code 3.
INTERVENTIONS = {
    "guidance": (Guidance(3.0), {"guidance": 3.0}),
    "no guidance": (Guidance(1.0), {"guidance": 1.0}),
    "temperature": (Temperature(0.5), {"transform": lambda logits: logits / 0.5}),
    "top-k": (TopK(2), {"transform": keep_top(2)}),
    "top-p": (TopP(0.7), {"transform": keep_mass(0.7)}),
    "subset": (Subset(0.5), {"transform": ban((2, 3))}),
    "disable-top": (DisableTop(0.25), {"transform": ban((0,))}),
    "argmax": (Argmax(), {"greedy": True}),
}


def diffusion_of(codes: int, steps: int = 3) -> MaskReplaceDiffusion:
    times = [step / steps for step in range(steps + 1)]
    return MaskReplaceDiffusion(tuple((1 - t) * (1 - t / 3) for t in times), tuple(times), codes)


def rule_of(family: str, codes: int, temperature=(2.0, 0.0)):
    rules = {"ar": Raster(3), "mim": ConfidenceUnmasking(3, temperature), "diffusion": diffusion_of(codes)}
    return rules[family]


@pytest.mark.parametrize("name", INTERVENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_interventions(family, name):
    intervention, changes = INTERVENTIONS[name]
    model: Any = Small(rule_of(family, 4), codes=4)
    sums = drawn_sums(model, 1200, interventions=[intervention])
    names = QUANTITIES if family == "diffusion" else QUANTITIES[:3]
    check(sums, truth(Case(model, PROMPT, **changes)), names)
    if name == "argmax":
        assert (sums[:, QUANTITIES.index("execution")] == 0).all()
        assert (sums[:, QUANTITIES.index("trajectory_execution")] == 0).all()
    else:
        with pytest.raises(AssertionError):
            check(sums, truth(Case(model, PROMPT)), names)


@pytest.mark.parametrize("temperature", [(2.0, 2.0), (0.3, 0.0), (0.0, 0.0), (20.0, 0.0)])
@pytest.mark.parametrize("codes", [2, 4])
def test_temperatures_of_confidence_unmasking(codes, temperature):
    model: Any = Small(ConfidenceUnmasking(3, temperature), codes=codes)
    count = 400 if temperature == (0.0, 0.0) else 1500  # sums over atoms are slow
    check(drawn_sums(model, count), truth(Case(model, PROMPT)), QUANTITIES[:3])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_several_positions_a_step(schedule):
    model: Any = Small(ConfidenceUnmasking(2, (1.5, 0.5), schedule), codes=3, positions=4)
    check(drawn_sums(model, 1500), truth(Case(model, PROMPT)), QUANTITIES[:3])


def test_diffusion_without_replacement_and_the_published_schedule():
    steps = [step / 4 for step in range(5)]
    for rule in (
        MaskReplaceDiffusion(tuple(1 - t for t in steps), tuple(steps), 3),
        MaskReplaceDiffusion.vq_diffusion(3, steps=4, ends=(0.9, 0.05)),
    ):
        model: Any = Small(rule, codes=3)
        check(drawn_sums(model, 1500), truth(Case(model, PROMPT)))


# --- frozen streams and silenced rules ------------------------------------------------------------------------------


def frozen_noise(seed: int = 0) -> CounterNoise:
    return CounterNoise.of(seed, [PROMPT], [0], [0])


@pytest.mark.parametrize("temperature", [(2.0, 0.0), (0.0, 0.0)])
def test_a_frozen_path_of_confidence_unmasking(temperature):
    model: Any = Small(ConfidenceUnmasking(3, temperature), codes=3)

    def gumbel(step):
        return frozen_noise().path_gumbel(step, 3, torch.device("cpu"))[0].numpy()

    exact = truth(Case(model, PROMPT, gumbel=gumbel))
    sums = drawn_sums(model, 400, interventions=[Freeze("path")])
    check(sums, exact, QUANTITIES[:3])
    assert exact.path < truth(Case(model, PROMPT)).path or temperature == (0.0, 0.0)


@pytest.mark.parametrize("family", ["mim", "ar"])
def test_frozen_draws(family):
    model: Any = Small(rule_of(family, 3), codes=3)

    def draw(step, state, p):
        first, count = (step, 1) if family == "ar" else (0, 3)
        uniform = frozen_noise().uniform("execution", step, first, count)[..., 0]
        tokens = draw_by_inversion(torch.from_numpy(p)[None, first : first + count], torch.from_numpy(uniform))
        return dict(zip(range(first, first + count), tokens[0].tolist(), strict=True)) | dict.fromkeys(range(first), 0)

    def full(step, state, p):
        drawn = draw(step, state, p)
        return [drawn.get(i, 0) for i in range(3)]

    exact = truth(Case(model, PROMPT, draw=full))
    sums = drawn_sums(model, 1500, interventions=[Freeze("execution")])
    check(sums, exact, QUANTITIES[:3])
    assert (sums[:, 1] == 0).all()


def test_a_frozen_path_of_diffusion_is_a_function_of_the_draws():
    """Given the path noise the next state is a function of x0, so its entropy is at most that of the draws."""
    model: Any = Small(diffusion_of(3), codes=3)
    sums = drawn_sums(model, 1500, interventions=[Freeze("path")])
    plain = drawn_sums(model, 1500)
    trajectory = QUANTITIES.index("trajectory_joint")
    assert float(sums[:, trajectory].mean()) < float(plain[:, trajectory].mean()) - 1
    # Conditional on frozen numbers, the distribution of first steps is known by trying every draw.
    settings = settings_for(model, [Freeze("path")])
    rows = [Row(Prompt(PROMPT), PROMPT, 0, i) for i in range(4000)]
    seen = []

    def observers(batch):
        return [lambda moment: seen.append(moment.result.tokens) if moment.view.step == 0 else None]

    for _ in fill(model, rows, 0, settings, Encoded(model), batch_size=4000, observers=observers):
        pass
    frequencies = torch.cat(seen).unique(dim=0, return_counts=True)[1].double() / 4000
    empirical = float(-(frequencies * frequencies.log2()).sum())
    account = BatchAccount(CounterNoise.of(0, [PROMPT], [0], [0]))
    states = []

    def first_step(moment):
        account(moment)
        states.append(account.sums[:, trajectory].clone())

    for _ in fill(model, rows[:1], 0, settings, Encoded(model), observers=lambda batch: [first_step]):
        pass
    # 4000 draws of at most 27 outcomes: the empirical entropy has a standard error below 0.03 bits.
    assert abs(float(states[0][0]) - empirical) < 0.15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "interventions", [[Argmax(scope="all")], [Freeze("path"), Argmax()], [Freeze("path"), Freeze("execution")]]
)
def test_without_noise_nothing_is_left(family, interventions):
    sums = drawn_sums(toy(family), 20, interventions=interventions)
    assert torch.equal(sums, torch.zeros_like(sums))


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_uniform_model_has_log2_codes_bits_per_token_and_independent_positions_add(family):
    steps = [step / 3 for step in range(4)]
    rule = MaskReplaceDiffusion(tuple(1 - t for t in steps), tuple(steps), 4) if family == "diffusion" else None
    model: Any = Small(rule or rule_of(family, 4), codes=4, sharpness=0.0)
    sums = drawn_sums(model, 64)
    if family != "diffusion":
        torch.testing.assert_close(sums[:, 1], torch.full_like(sums[:, 1], 6.0), atol=1e-5, rtol=0)
    if family == "mim":  # every order of three positions is as likely
        torch.testing.assert_close(sums[:, 0], torch.full_like(sums[:, 0], math.log2(6)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_deterministic_model_has_no_execution_bits(family):
    model: Any = Small(rule_of(family, 3), codes=3, sharpness=1e5)
    sums = drawn_sums(model, 64)
    assert float(sums[:, 1].abs().max()) < 1e-9


def test_the_path_of_raster_is_exactly_zero():
    assert (drawn_sums(toy("ar"), 50)[:, 0] == 0).all()


def test_causal_and_marginal_are_not_the_same():
    """The pair that the accounting reports is causal; the marginal pair has the same sum and differs."""
    exact = exact_toy("mim", 0)
    alone, given = exact.marginal()
    assert abs(alone + given - exact.joint) < 1e-9
    assert exact.path < alone - 1e-3 and given < exact.execution - 1e-3
    assert given <= exact.execution <= exact.conditional <= exact.joint
    one = exact_toy("ar", 0)
    assert one.path < 1e-12 and abs(one.execution - one.conditional) < 1e-9


# --- intervals ------------------------------------------------------------------------------------------------------


def moments_of(values: np.ndarray) -> Moments:
    """Of one prompt's samples, by the textbook."""
    n, centred = len(values), values - values.mean()
    third = (centred**3).sum() * n / ((n - 1) * (n - 2))
    return Moments(*(np.array([part]) for part in (values.mean(), values.var(ddof=1), n, third)))


REPETITIONS, SEEDS, N = 400, (0, 1, 2), 64


@pytest.mark.parametrize("family", FAMILIES)
def test_the_monte_carlo_interval_holds_the_truth_as_often_as_it_says(family):
    """95% of 1200 repetitions, standard error 0.63%: 93 to 97% is 3.2 of them, a false-alarm rate of 1.5e-3."""
    exact = exact_toy(family, 0)
    sums = torch.cat([drawn_sums(toy(family), REPETITIONS * N, seed) for seed in SEEDS]).view(-1, N, len(QUANTITIES))
    for name in QUANTITIES[: 6 if family == "diffusion" else 3]:
        values = sums[:, :, QUANTITIES.index(name)].numpy()
        if np.ptp(values) < 1e-6:
            continue
        found = [estimate(moments_of(v)) for v in values]
        hits = np.mean([e.mc_low <= getattr(exact, name) <= e.mc_high for e in found])
        assert 0.93 <= hits <= 0.97, (name, hits)
        wrong = np.mean([e.mc_low <= getattr(exact, name) + 3 * e.mc_error <= e.mc_high for e in found])
        assert wrong < 0.5  # it can fail


def test_the_interval_over_prompts_holds_the_population_mean():
    """Prompts drawn at random from 60; the mean over all of them is the truth. 400 repetitions, as above."""
    model = toy("ar")
    texts = [f"thing number {i}" for i in range(60)]
    exact = np.array([truth(Case(model, text)).execution for text in texts])
    sums = torch.stack([drawn_sums(model, 16, prompt=text)[:, 1] for text in texts]).numpy()
    means, variances = sums.mean(1), sums.var(1, ddof=1)
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        chosen = random.integers(60, size=16)
        found = estimate(Moments(means[chosen], variances[chosen], np.full(16, 16)))
        hits += found.low <= exact.mean() <= found.high
    assert 0.93 <= hits / 400 <= 0.98


@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_falls_as_the_root_of_n(family):
    sums = drawn_sums(toy(family), 32_000)[:, 2].numpy()
    exact = exact_toy(family, 0).joint
    few, many = sums.reshape(-1, 20).mean(1) - exact, sums.reshape(-1, 320).mean(1) - exact
    # The ratio of two root mean squares, of 1600 and 100 means, has a standard error of about 7%: 4 +- 5 of them.
    assert 4 * 0.65 < math.sqrt((few**2).mean() / (many**2).mean()) < 4 * 1.35


# --- running sums ---------------------------------------------------------------------------------------------------


def test_tallies_merge_in_any_order():
    model = toy("mim")
    settings, encoded = settings_for(model, ()), Encoded(model)
    prompts = [Prompt("red heart"), Prompt("a cat")]
    rows = [rows_of(prompt, range(20), (), settings, encoded) for prompt in prompts]
    # To 1e-6 bits: the nodes of the quadrature are shared within a batch, so its rounding depends on the batch.
    whole, parts = (
        [
            collect(Asked(model, settings, encoded, 0, size, []), rows, 0, None, lambda count: None, size).tally
            for size in sizes
        ]
        for sizes in ((40,), (7, 40))
    )
    for name in ("count", "mean", "squares", "cubes", "path_map", "execution_map"):
        torch.testing.assert_close(getattr(whole[0], name), getattr(parts[0], name), atol=1e-6, rtol=0)
    empty = Tally.empty(2, model.rule.steps, 3)
    for merged in (empty.merged(whole[0]), whole[0].merged(empty)):
        torch.testing.assert_close(merged.mean, whole[0].mean)
        torch.testing.assert_close(merged.squares, whole[0].squares)
    twice = whole[0].merged(whole[0])
    torch.testing.assert_close(twice.squares, 2 * whole[0].squares)


def test_running_sums_do_not_grow_with_the_number_of_samples():
    def size(n: int) -> int:
        model = toy("mim")
        settings, encoded = settings_for(model, ()), Encoded(model)
        rows = [rows_of(Prompt(PROMPT), range(n), (), settings, encoded)]
        found = collect(Asked(model, settings, encoded, 0, 50, []), rows, 4, None, lambda count: None, 50)
        parts = [*vars(found.tally).values()]
        arrays = vars(found.tokens).values()
        return sum(p.numel() for p in parts) + sum(a.size for a in arrays) + len(found.kept)

    assert size(20) == size(200)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_add_up_to_the_totals_and_follow_the_steps(family):
    result = information(toy(family), [PROMPT], n=800, effort=QUICK)
    exact = exact_toy(family, 0)
    assert result.path_map.shape == (toy(family).rule.steps, 1, 3)
    assert abs(result.path_map.sum() - result.path.value) < 1e-9
    assert abs(result.execution_map.sum() - result.execution.value) < 1e-9
    found = result.steps_table[["path", "execution"]].to_numpy()
    for (path, execution), expected in zip(found, exact.steps, strict=True):
        # Errors of single steps are below that of the whole, 0.1 bits at 800 samples.
        assert abs(path - expected[0]) < 0.3 and abs(execution - expected[1]) < 0.3


def test_seeds_and_prompts_differ_and_the_same_call_agrees():

    def call(model, seed=0):
        return information(model, [PROMPT], n=30, seed=seed, effort=QUICK)

    one, again = call(toy("mim")), call(toy("mim"))
    assert one.joint == again.joint
    assert call(toy("mim"), seed=1).joint != one.joint
    assert call(replace(toy("mim"), seed=1)).joint != one.joint
