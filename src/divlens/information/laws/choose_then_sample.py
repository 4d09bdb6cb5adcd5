"""The law of choosing positions by the model's certainty: the choice is one of known scores with Gumbel noise, and the
tokens are drawn apart from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.laws.chosen_first import DIVIDED
from divlens.information.laws.law import StepEntropies, committed_entropies, committed_log_probability
from divlens.information.laws.scores import Scores
from divlens.information.laws.unmasking_events import event_log_probabilities
from divlens.loop import Moment
from divlens.paths import ChooseThenSample


@dataclass(frozen=True)
class ChoiceLaw:
    rule: ChooseThenSample
    known: bool = True
    draws_once: bool = True
    map_note: str = DIVIDED

    @property
    def path_is_certain(self) -> bool:
        return self.rule.steps == 1

    def choice(self, moment: Moment, frozen: bool) -> Float[Tensor, " batch"]:
        """The log-probability of the positions that were committed. `frozen`: whether the noise is known."""
        view, step = moment.view, moment.view.step
        if step == self.rule.steps - 1:
            return torch.zeros(len(view.tokens), dtype=torch.float64, device=view.tokens.device)
        tau, score, committed = self.rule.tau(step), self.rule.score(moment.log_p, step), moment.result.committed
        if tau == 0 or frozen:  # the scores are known, and so is what they choose
            if tau > 0:
                score = score + tau * moment.noise.path_gumbel(step, view.tokens.shape[1], score.device)
            expected = (self.rule.chosen(score, moment.drawn, step) == committed).all(1)
            return torch.where(expected, 0.0, -torch.inf).double()
        sample, position = moment.drawn.nonzero(as_tuple=True)
        location = score[moment.drawn][:, None]
        sure, token = torch.ones_like(location), torch.zeros_like(sample)
        scores = Scores(sample, position, committed[moment.drawn], token, sure, location)
        return event_log_probabilities(scores, len(view.tokens), tau)[0]

    def entropies(self, moment: Moment) -> StepEntropies:
        committed, execution = moment.result.committed, committed_entropies(moment)
        chosen = -self.choice(moment, "path" in moment.settings.frozen)[:, None]
        path = chosen * committed / committed.sum(1, keepdim=True).clamp(min=1)
        return StepEntropies(path, execution, path + execution)

    def log_probability(self, moment: Moment, certain: Int[Tensor, "batch m"] | None) -> Float[Tensor, " batch"]:
        return committed_log_probability(moment, certain) + self.choice(moment, frozen=False)

    def proposal_log_probability(self, moment: Moment) -> Float[Tensor, " batch"]:
        return self.choice(moment, frozen=False)
