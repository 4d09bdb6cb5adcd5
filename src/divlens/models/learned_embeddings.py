"""What VQ-Diffusion learned in place of an empty text, as its checkpoints hold it.

The class is diffusers' own in all but its place: there it stands beside the pipeline, and goes when that goes. Files
know it by its name. To be imported where diffusers is there.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class LearnedClassifierFreeSamplingEmbeddings(ModelMixin, ConfigMixin):
    """`embeddings`: (length, hidden_size), or none at all, as files have it, where the model learned none."""

    @register_to_config
    def __init__(self, learnable: bool, hidden_size: int | None = None, length: int | None = None) -> None:
        super().__init__()
        self.learnable = learnable
        self.embeddings = nn.Parameter(torch.zeros(length or 0, hidden_size or 0) if learnable else torch.empty(0))
