"""The law of mask-and-replace diffusion, from the closed forms of its reverse step (`diffusion_steps`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.diffusion_steps import (
    known_events,
    known_noise_entropies,
    state_log_probability,
    step_entropies,
)
from divlens.information.laws.law import StepEntropies, law_of_draw
from divlens.loop import Moment
from divlens.noise import CounterNoise
from divlens.paths import MaskReplaceDiffusion


@dataclass(frozen=True)
class DiffusionLaw:
    rule: MaskReplaceDiffusion
    known: bool = True
    draws_once: bool = False
    map_note: str = ""

    @property
    def path_is_certain(self) -> bool:
        return self.rule.steps == 1

    def entropies(self, moment: Moment) -> StepEntropies:
        rule, view, time, certain = self.rule, moment.view, moment.view.time + 1, moment.certain
        p = law_of_draw(moment, certain).exp()
        if rule.silent or "path" in moment.settings.frozen:
            step = known_noise_entropies(rule, time, view.tokens, p, moment.mask, rule.uniforms(view, moment.noise))
        else:
            step = step_entropies(rule, time, view.tokens, moment.mask, p)
        if certain is None:
            return step
        none = torch.zeros_like(step.execution)  # exactly 0, while the formulas would leave rounding
        return replace(step, execution=none, state=none if time == 1 else step.state)

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        view, law = moment.view, law_of_draw(moment, certain)
        if self.rule.silent and view.time > 0:
            leads_there = self.silent_results(moment) == moment.result.tokens.unsqueeze(-1)
            return law.double().masked_fill(~leads_there, -torch.inf).logsumexp(-1).sum(1)
        return state_log_probability(self.rule, view.time + 1, view.tokens, moment.result.tokens, moment.mask, law)

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        view, grid, after = moment.view, moment.draws.tokens, moment.result.tokens
        if self.rule.silent and view.time > 0:
            expected = self.silent_results(moment).gather(-1, grid.unsqueeze(-1)).squeeze(-1)
            return torch.where((expected == after).all(1), 0.0, -torch.inf).double()
        return self.rule.log_probability(view.time + 1, view.tokens, after, grid, moment.mask).sum(1)

    def silent_results(self, moment: Moment) -> Int[Tensor, "batch n codes"]:
        """The next state under a silenced rule for every possible x_0. In the last step the result is x_0 itself."""
        view, unread = moment.view, CounterNoise.of(0, [], [], [])
        uniform, codes = self.rule.uniforms(view, unread), moment.log_p.shape[-1]
        return known_events(self.rule, view.time + 1, view.tokens, codes, moment.mask, uniform).tokens
