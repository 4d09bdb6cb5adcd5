"""LPIPS on the colours of pixels alone: quick, and plain enough to know what it gives."""

import torch
from torch import Tensor

from divlens.diversity import FeatureNetwork


class Colours(torch.nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images,)


def colour_network(smallest: int = 1) -> FeatureNetwork:
    """`smallest`: the side of the least pictures that it takes, in pixels."""
    return FeatureNetwork(Colours(), torch.zeros(3), torch.ones(3), [torch.ones(3)], smallest=smallest)
