"""Steps of confidence unmasking of any size, as the sampler brings them about."""

import torch

from divlens.information.laws.scores import scores_of


def one_event(n: int, codes: int, count: int, tau: float, samples: int = 3, seed: int = 0):
    """An event as the sampler would bring it about, float32 as in the loop."""
    random = torch.Generator().manual_seed(seed)
    log_p = (torch.randn(samples, n, codes, generator=random) * 2.5).log_softmax(-1)
    tokens = torch.multinomial(log_p.exp().flatten(0, 1), 1, generator=random).view(samples, n)
    gumbel = -torch.log(-torch.log(torch.rand(samples, n, generator=random)))
    score = log_p.gather(-1, tokens[..., None])[..., 0] + tau * gumbel
    committed = score.argsort(1).argsort(1) >= n - count
    opened = torch.ones_like(committed)
    return scores_of(log_p, opened, committed, tokens), samples
