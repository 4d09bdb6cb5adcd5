"""The judge's two networks: what a picture shows, and how it is drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from divlens.models.zoo.networks import ResidualBlock

HISTOGRAMS = (6, 10)  # bins per colour channel
EDGES = (0.004, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)  # of the steps between neighbouring pixels, in [0, 1]
GRADIENTS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30, 45, 70, 110, 160)  # the same in grey levels, along each axis
ENOUGH = 40  # flat pixels of a colour that count as all there can be


class ConceptReader(nn.Module):
    """What a picture shows: a convolutional network to a unit vector, compared with one vector per concept."""

    def __init__(self, concepts: int, width: int = 160) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            ResidualBlock(64),
            nn.Conv2d(64, 128, 4, stride=2, padding=1),
            ResidualBlock(128),
            nn.Conv2d(128, width, 4, stride=2, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(width * 16, width),
        )
        self.concepts = nn.Linear(width, concepts, bias=False)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch concepts"]:
        """Logits; images in [0, 1]."""
        features = self.trunk((images * 2 - 1).to(memory_format=torch.channels_last)).float()
        return 16 * F.normalize(features, dim=1) @ F.normalize(self.concepts.weight.float(), dim=1).T


def drawing_statistics(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch features"]:
    """How a picture is drawn, wherever things are: histograms of colours, edges and gradients, as square roots.

    A style has its palette, and flat, outlined or shaded areas.
    """
    parts = []
    pixels = images[0, 0].numel()
    for bins in HISTOGRAMS:
        red, green, blue = (images * (bins - 1)).round().long().unbind(1)
        index = ((red * bins + green) * bins + blue).flatten(1)
        counts = images.new_zeros(len(images), bins**3)
        parts.append(counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype)) / pixels)
    corner = images[:, :, :-1, :-1]
    steps = (images[:, :, 1:, :-1] - corner).abs().amax(1) + (images[:, :, :-1, 1:] - corner).abs().amax(1)
    parts.append(shares(steps, EDGES, right=True))
    levels = grey_levels(images)
    for axis in (2, 3):
        parts.append(shares(levels.diff(dim=axis).abs().amax(1), GRADIENTS, right=False))
    return torch.cat(parts, dim=1).sqrt()


def shares(values: Tensor, bounds: tuple[float, ...], right: bool) -> Float[Tensor, "batch bins"]:
    """Histogram of a picture's values between the bounds, summing to 1."""
    place = torch.bucketize(values.flatten(1), torch.tensor(bounds, device=values.device), right=right)
    return F.one_hot(place, len(bounds) + 1).float().mean(1)


def grey_levels(images: Float[Tensor, "batch 3 h w"]) -> Int[Tensor, "batch 3 h w"]:
    return (images * 255).round().int()


def flat_colours(images: Float[Tensor, "batch 3 h w"]) -> tuple[Int[Tensor, "batch m"], Bool[Tensor, "batch m"]]:
    """The exact colour, as one 24-bit number, of every pixel inside the border, and whether its four neighbours have
    it too: vector art fills areas with the few colours of its style's palette."""
    red, green, blue = grey_levels(images).unbind(1)
    colour = (red * 256 + green) * 256 + blue
    inside = colour[:, 1:-1, 1:-1]
    around = (colour[:, :-2, 1:-1], colour[:, 2:, 1:-1], colour[:, 1:-1, :-2], colour[:, 1:-1, 2:])
    flat = torch.stack([neighbour == inside for neighbour in around]).all(0)
    return inside.flatten(1), flat.flatten(1)


class StyleReader(nn.Module):
    """How a picture is drawn, from statistics only and the colours of a palette that its areas are filled with.

    Nothing in it knows where things are, so that a style is not recognised by remembering a drawing. `palette`: 24-bit
    colours, rising, int32.
    """

    def __init__(self, styles: int, palette: Int[Tensor, " colours"]) -> None:
        super().__init__()
        self.palette = nn.Buffer(palette)
        statistics = sum(bins**3 for bins in HISTOGRAMS) + len(EDGES) + 1 + 2 * (len(GRADIENTS) + 1)
        self.styles = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(statistics + len(palette), 96), nn.ReLU(), nn.Dropout(0.5), nn.Linear(96, styles)
        )

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch features"]:
        """Statistics and how much of each palette colour there is; images in [0, 1]."""
        colour, flat = flat_colours(images)
        place = torch.searchsorted(self.palette, colour).clamp(max=len(self.palette) - 1)
        known = flat & (self.palette[place] == colour)
        count = images.new_zeros(len(images), len(self.palette)).scatter_add_(1, place, known.to(images.dtype))
        return torch.cat([10 * drawing_statistics(images), 3 * (count / ENOUGH).clamp(max=1).sqrt()], dim=1)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch styles"]:
        """Logits; images in [0, 1]."""
        return self.styles(self.features(images.float()))


class JudgeNetwork(nn.Module):
    """Concept and style of a picture, by two networks that share nothing."""

    def __init__(self, concept: ConceptReader, style: StyleReader) -> None:
        super().__init__()
        self.concept = concept
        self.style = style
