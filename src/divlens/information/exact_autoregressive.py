"""H(Z|X), I(X;Z) and H(Z) of AR, where p(z) is known under every wording: from the posterior over what is asked about.

    I(X;Z) = H(X) - E H(X | Z = z),

and likewise I(W;Z|X) for the wordings W of a prompt. A sample tells between 0 and H(X), where log p(z|x) - log p(z)
has the noise of which prompt the grid happened to be drawn for. (Of wordings that are not alike often it may tell less
than nothing: a likely one was expected, and now none is likely.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import QUANTITIES, Tally, beyond_rare_draws
from divlens.information.conditional_entropy import controlled, wording_entropy
from divlens.information.estimates import Estimate, capped
from divlens.information.kept import Kept, cautious, per_prompt, shares
from divlens.information.mutual_information import by_wording, mixed, told, told_of_prompts
from divlens.run import Run


@dataclass(frozen=True)
class Exact:
    """Bits per image, exact but for the samples that they are means of."""

    conditional: Estimate
    mutual: Estimate
    sequence: Estimate


def exact_for_ar(run: Run, tally: Tally, kept: Kept, most: float) -> Exact:
    """`most`: the bits that no image exceeds.

    H(Z|X) is H(Z|X,W) + I(W;Z|X) and H(Z) is H(Z|X) + I(X;Z), of which H(Z|X,W) is known from all samples of the tally.
    """
    log_p = by_wording(run, kept)
    ceiling = math.log2(len(run.wordings))
    prompt = told_of_prompts(mixed(run, log_p))
    wording = torch.zeros_like(prompt)
    for i, used in enumerate(run.wordings):
        own, share = kept.prompt == i, shares(used)
        wording[own] = told(torch.stack([log_p[text][own] for text in share], 1), list(share.values()))
    note = f"exact, from {len(kept.rows)} samples"
    of_wording = torch.tensor([wording_entropy(used) for used in run.wordings], dtype=torch.float64)
    # No posterior is more uncertain than that of wordings all alike.
    alike = torch.tensor([math.log2(len(set(used))) for used in run.wordings], dtype=torch.float64)
    joint = tally.moments(QUANTITIES.index("joint"))

    def beyond(bits: Float[Tensor, " kept"], most_told: Float[Tensor, " prompts"]) -> Estimate:
        found = controlled(tally, kept, kept.joint + bits, kept.joint, 1.0, note)
        found = beyond_rare_draws(found, tally, joint.mean, most)
        return capped(cautious(found, run, kept, bits, of_wording - alike, most_told), most)

    mutual = cautious(per_prompt(prompt, kept, ceiling, note, skewed=True), run, kept, prompt, 0.0, ceiling)
    return Exact(beyond(wording, of_wording), mutual, beyond(wording + prompt, of_wording + ceiling))
