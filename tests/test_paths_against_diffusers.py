"""The path rules against the reference schedulers of diffusers: posteriors and whole trajectories."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_amused import AmusedScheduler
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler

from divlens.loop import filled
from divlens.noise import TorchNoise
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion
from divlens.paths.schedule import masked_share, still_masked
from divlens.settings import Settings
from divlens.types import View

# --- VQ-Diffusion ---------------------------------------------------------------------------------------------------


def two_stage(rule: MaskReplaceDiffusion, time: int, p: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """P(x_{t-1} = y | x_t) with x_0 ~ p and then the path event: (positions, codes + 1), exact."""
    codes, positions = p.shape[-1], len(now)
    origin = torch.arange(codes).expand(positions, codes)
    current = now[:, None].expand(positions, codes)
    stay, reveal, replaced, others = rule.events(time, current == codes, current == origin)
    y = torch.arange(codes + 1)
    is_now, is_origin = y == current[..., None], y == origin[..., None]
    is_other = ~is_now & ~is_origin & (y < codes)
    chance = (
        stay[..., None] * is_now
        + reveal[..., None] * (is_origin & ~is_now)
        + (replaced / others)[..., None] * (is_other)
    )
    return torch.einsum("nx,nxy->ny", p, chance)


@cache
def reference_scheduler(codes: int) -> Any:  # its methods ask for tensor types that torch no longer has
    return VQDiffusionScheduler(num_vec_classes=codes + 1)


def reference_posterior(codes: int, t: int, p: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    scheduler = reference_scheduler(codes)
    log_p = p.log().float().T[None]
    return scheduler.q_posterior(log_p, now[None], t)[0].T.exp().double()


def random_case(codes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random p(x_0) per position, some of it sharp; x_t is masked at a third of the positions."""
    random = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(9, codes, generator=random, dtype=torch.float64) * torch.tensor([0.5, 2.0, 6.0]).repeat(3)[:, None]
    )
    now = torch.randint(codes, (9,), generator=random)
    now[::3] = codes
    now[1] = int(logits[1].argmax())
    return logits.softmax(-1), now


@pytest.mark.parametrize("codes", [2, 3, 12])
def test_the_two_draws_sum_to_the_posterior_of_the_reference_at_every_timestep(codes):
    """To 1e-5: the reference adds about five float32 logarithms of size up to 30, each rounded to 2e-6 at worst.

    The sum is 1 to 1e-10: a difference of float64 numbers near 1 is divided by the spread, 1e-6 over all codes.
    """
    rule = MaskReplaceDiffusion.vq_diffusion(codes)
    for t in range(100):
        p, now = random_case(codes, seed=t)
        ours, theirs = two_stage(rule, t + 1, p, now), reference_posterior(codes, t, p, now)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.sum(-1), torch.ones(9, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_schedule_that_is_off_by_one_would_be_seen(shift):
    rule = MaskReplaceDiffusion.vq_diffusion(16)
    for t in range(1, 99, 7):
        p, now = random_case(16, seed=t)
        difference = (two_stage(rule, t + 1 + shift, p, now) - reference_posterior(16, t, p, now)).abs().max()
        assert difference > 1e-5


def test_the_published_schedule_is_that_of_the_reference():
    scheduler = VQDiffusionScheduler(num_vec_classes=11)
    rule = MaskReplaceDiffusion.vq_diffusion(10)
    torch.testing.assert_close(torch.tensor(rule.kept[1:]).log(), scheduler.log_cumprod_at[:-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.tensor(rule.masked[1:]).log(), scheduler.log_cumprod_ct[:-1], atol=1e-6, rtol=1e-6)


# --- aMUSEd ---------------------------------------------------------------------------------------------------------

CODES, SIDE, BATCH = 48, 8, 3


class Chaotic:
    """Random logits that depend on the whole state, so that two trajectories that part never meet again by chance."""

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.base = torch.randn(SIDE * SIDE, CODES, generator=random) * 2
        self.pull = torch.randn(SIDE * SIDE, CODES + 1, CODES, generator=random) / 4
        self.visited: list[torch.Tensor] = []

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.base + self.pull[torch.arange(SIDE * SIDE), tokens].sum(1, keepdim=True)

    def __call__(self, view: View) -> tuple[torch.Tensor, None]:
        self.visited.append(view.tokens)
        return self.logits(view.tokens), None


def ours(model: Chaotic, rule: ConfidenceUnmasking, seed: int) -> list[torch.Tensor]:
    source = TorchNoise(torch.Generator().manual_seed(seed), BATCH)
    start = torch.full((BATCH, SIDE * SIDE), CODES)
    last = filled(model, Settings(rule, 1.0), source, start, CODES)
    return [*model.visited[1:], last]


def theirs(model: Chaotic, steps: int, schedule: str, temperature: Any, seed: int) -> list[torch.Tensor]:
    scheduler: Any = AmusedScheduler(mask_token_id=CODES, masking_schedule=schedule)  # type: ignore[arg-type]
    scheduler.set_timesteps(steps, temperature)
    generator = torch.Generator().manual_seed(seed)
    state, states = torch.full((BATCH, SIDE, SIDE), CODES), []
    for timestep in scheduler.timesteps:
        logits = model.logits(state.flatten(1)).permute(0, 2, 1).reshape(BATCH, CODES, SIDE, SIDE)
        state = scheduler.step(logits, timestep, state, generator=generator).prev_sample
        states.append(state.flatten(1))
    return states


def agree(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# The reference reads a single number t as (t, 0.01).
TEMPERATURES = {"2 to 0": ((2, 0), (2.0, 0.0)), "4.5 to 0": ((4.5, 0), (4.5, 0.0)), "0": (0, (0.0, 0.01))}


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("reference", "own"), TEMPERATURES.values(), ids=TEMPERATURES.keys())
def test_confidence_unmasking_is_amused_token_for_token(schedule, reference, own):
    """Whole trajectories, every state. Sums differ in the last place, so scores closer than 1e-6 could be ranked
    otherwise: about 1 trajectory in 1,000 over random seeds; none here."""
    for seed in range(2):
        for steps in (1, 5, 12):
            rule = ConfidenceUnmasking(steps, own, schedule)
            assert agree(
                ours(Chaotic(seed), rule, 100 + seed), theirs(Chaotic(seed), steps, schedule, reference, 100 + seed)
            )


CHANGES = {
    "schedule": (ConfidenceUnmasking(12, (2.0, 0.0), "linear"), 100),
    "temperature": (ConfidenceUnmasking(12, (2.2, 0.0), "cosine"), 100),
    "steps": (ConfidenceUnmasking(11, (2.0, 0.0), "cosine"), 100),
    "noise": (ConfidenceUnmasking(12, (2.0, 0.0), "cosine"), 101),
}


@pytest.mark.parametrize(("rule", "seed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_rule_other_than_the_reference_would_be_seen(rule, seed):
    reference = theirs(Chaotic(0), 12, "cosine", (2, 0), 100)
    assert agree(ours(Chaotic(0), ConfidenceUnmasking(12, (2.0, 0.0)), 100), reference)
    assert not torch.equal(ours(Chaotic(0), rule, seed)[-1], reference[-1])


@pytest.mark.parametrize("positions", [3, 64, 256, 1024])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_count_of_masked_positions_is_that_of_the_reference(positions, schedule):
    for steps in range(2, 65):
        unknown = torch.tensor([[positions], [max(positions // 2, 1)]])
        for step in range(steps - 1):
            ratio = (torch.tensor([[step]]) + 1) / steps  # the reference's own lines, its own shapes
            share = torch.cos(ratio * math.pi / 2) if schedule == "cosine" else 1 - ratio
            ours = torch.tensor((step + 1) / steps)
            wanted = torch.max(torch.tensor([1]), torch.min(unknown - 1, (positions * share).floor()))
            assert torch.equal(still_masked(masked_share(schedule, ours), unknown, positions), wanted.long())
