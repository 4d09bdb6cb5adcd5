"""H(Z|X), I(X;Z) and H(Z) of AR. The probability of a grid is known under every wording, so the posterior over prompts
is known as well:

    I(X;Z) = H(X) - E H(X | Z = z),

and likewise I(W;Z|X) for the wordings W of a prompt. Every sample contributes between 0 and H(X) bits. The mean of
log p(z|x) - log p(z) has the same expectation but more noise, because it depends on the prompt for which each grid
happened to be drawn. (If some wordings are used more often than others, a sample may contribute less than 0 bits,
because the posterior given its grid may be more uniform than the prior.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import Tally
from divlens.information.conditional_entropy import estimate_with_control, wording_entropy
from divlens.information.estimates import Estimate
from divlens.information.mutual_information import (
    bits_about_choice,
    bits_about_prompt,
    log_p_by_wording,
    log_p_of_prompts,
)
from divlens.information.stored import StoredSamples, estimate_of_stored, shares
from divlens.information.unseen import wider_for_rare_draws, wider_for_unseen_grids
from divlens.run import Run


@dataclass(frozen=True)
class Exact:
    """H(Z|X), I(X;Z) and H(Z) in bits per image. They are means over samples; sampling is their only error."""

    conditional: Estimate
    mutual: Estimate
    sequence: Estimate


def exact_for_ar(run: Run, tally: Tally, stored: StoredSamples, most: float) -> Exact:
    """The three quantities for AR. `most`: the largest possible entropy of an image in bits.

    H(Z|X) is H(Z|X,W) + I(W;Z|X), and H(Z) is H(Z|X) + I(X;Z). H(Z|X,W) is estimated from all samples of the tally, and
    the other terms are estimated from the stored samples.
    """
    log_p = log_p_by_wording(run, stored)
    ceiling = math.log2(len(run.wordings))
    prompt = bits_about_prompt(log_p_of_prompts(run, log_p))
    wording = torch.zeros_like(prompt)
    for i, used in enumerate(run.wordings):
        own, share = stored.prompt == i, shares(used)
        wording[own] = bits_about_choice(torch.stack([log_p[text][own] for text in share], 1), list(share.values()))
    note = f"exact, from {len(stored.rows)} samples"
    of_wording = torch.tensor([wording_entropy(used) for used in run.wordings], dtype=torch.float64)
    # The entropy of a posterior is largest if all wordings are equally likely.
    uncertain = torch.tensor([math.log2(len(set(used))) for used in run.wordings], dtype=torch.float64)
    joint = tally.means("joint").mean

    def joint_and(bits: Float[Tensor, " stored"], most_bits: Float[Tensor, " prompts"]) -> Estimate:
        """The joint entropy plus these bits. `most_bits`: the largest contribution of one sample."""
        found = estimate_with_control(tally, stored, stored.joint + bits, stored.joint, 1.0, note)
        found = wider_for_rare_draws(found, tally, joint, most)
        return wider_for_unseen_grids(found, run, stored, bits, of_wording - uncertain, most_bits).at_most(most)

    mutual = estimate_of_stored(prompt, stored, ceiling, note)
    mutual = wider_for_unseen_grids(mutual, run, stored, prompt, 0.0, ceiling)
    return Exact(joint_and(wording, of_wording), mutual, joint_and(wording + prompt, of_wording + ceiling))
