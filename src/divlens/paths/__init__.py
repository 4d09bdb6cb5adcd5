"""The path rules: which drawn tokens are committed, and what the next state is.

A rule is a frozen record, and its randomness is an argument. `Raster` is the path of autoregressive models,
`ConfidenceUnmasking` that of masked ones, `MaskReplaceDiffusion` that of mask-and-replace diffusion. `RandomOrder`,
`FixedOrder` and `ChooseThenSample` choose positions without a look at the tokens. Rules are final: to vary one, write
another.
"""

from divlens.paths.choose_then_sample import ChooseThenSample
from divlens.paths.confidence_unmasking import ConfidenceUnmasking
from divlens.paths.fixed_order import FixedOrder, halton_order
from divlens.paths.mask_replace_diffusion import MaskReplaceDiffusion
from divlens.paths.random_order import RandomOrder
from divlens.paths.raster import Raster
from divlens.paths.rule import Advance, Draws, PathRule

__all__ = [
    "Advance",
    "ChooseThenSample",
    "ConfidenceUnmasking",
    "Draws",
    "FixedOrder",
    "MaskReplaceDiffusion",
    "PathRule",
    "RandomOrder",
    "Raster",
    "halton_order",
]
