"""LPIPS diversity as a variance: the mean pairwise LPIPS of n images from n network passes.

With feature vectors g (see `networks`), LPIPS(i, j) = |g_i - g_j|^2. The sum over pairs i < j of |g_i - g_j|^2 is
n times the scatter, sum_i |g_i - mean|^2, so the mean over the n (n - 1) / 2 pairs is 2 scatter / (n - 1), which is
2 n / (n - 1) * (mean |g|^2 - |mean g|^2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import no_type_check

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from divlens.diversity.networks import NETWORKS, DiversityInputError, FeatureNetwork, load_network
from divlens.errors import is_whole
from divlens.pictures import checked_pictures


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """What is kept of a set of images: enough for its mean pairwise LPIPS, and to merge it with another set.

    `count`: number of images, at least 0. `mean`: float64 (features,), their mean feature vector; size 0 when count
    is 0. `scatter`: the sum of squared distances to that mean, at least 0, in units of LPIPS.
    Merge only sums of the same network and the same image size.
    """

    count: int
    mean: Float64[Tensor, " features"]
    scatter: float

    @staticmethod
    def empty() -> FeatureSums:
        """The sums of no images: merging with it changes nothing."""
        return FeatureSums(0, torch.zeros(0, dtype=torch.float64), 0.0)

    @staticmethod
    def of(features: Float32[Tensor, "images features"]) -> FeatureSums:
        """Feature vectors to their sums. Nearly equal vectors lose no precision beyond that of float32 features."""
        count = features.shape[0]
        if count == 0:
            return FeatureSums.empty()
        features = features.detach()
        # mean |g|^2 - |mean g|^2 cancels when vectors are nearly equal, so everything is measured from one of them.
        # As |origin - mean|^2 <= scatter, the subtraction below then loses at most a factor `count` of float64.
        # Row by row: one row fits a cache, and converting all rows at once costs ten times as much.
        origin = features[0]
        total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
        squares = torch.zeros((), dtype=torch.float64, device=features.device)
        for row in features[1:]:
            difference = (row - origin).double()
            total += difference
            squares += torch.dot(difference, difference)
        scatter = float(squares - torch.dot(total, total) / count)
        # Only rounding can take it below 0; max() would also turn NaN into 0.
        return FeatureSums(count, origin.double() + total / count, 0.0 if scatter < 0 else scatter)

    def merge(self, other: FeatureSums) -> FeatureSums:
        """The sums of both sets together (Chan, Golub & LeVeque, 1979); associative and symmetric up to rounding.

        Raises DiversityInputError (a ValueError) when the feature vectors have different sizes.
        """
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        if self.mean.shape != other.mean.shape:
            raise DiversityInputError(
                f"expected sums of the same network and image size, got {self.mean.numel()} and "
                f"{other.mean.numel()} features"
            )
        count = self.count + other.count
        apart = other.mean.to(self.mean.device) - self.mean
        between = float(torch.dot(apart, apart)) * self.count * other.count / count
        return FeatureSums(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    def mean_pairwise_distance(self) -> float:
        """The mean LPIPS over pairs i < j, at least 0; NaN for fewer than two images."""
        return 2 * self.scatter / (self.count - 1) if self.count > 1 else math.nan


@no_type_check  # it checks its input itself; the shapes are for readers
def images_to_feature_sums(
    images: Float32[Tensor, "prompts n 3 height width"],
    network: FeatureNetwork | str | None = None,
    *,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Iterator[FeatureSums]:
    """The sums of each prompt in turn; arguments and errors as for `lpips_diversity`, raised at the call.

    Use it to merge runs over parts of the images: `FeatureSums.merge` prompt by prompt.
    """
    images = checked_pictures(images, "images", "prompts", "n")
    if not is_whole(batch_size) or batch_size < 1:
        raise DiversityInputError(f"expected a batch_size of at least 1, got {batch_size!r}")
    known = network_of(network, device)
    known.check_size(images)
    return _stream(images, known, batch_size)


def network_of(network: FeatureNetwork | str | None, device: torch.device | str | None = None) -> FeatureNetwork:
    """The network of a name, or the network itself; None is the default. Moved to `device` unless that is None.

    Raises DiversityInputError for an unknown name, for what is no network, and for a device that torch cannot use.
    """
    if isinstance(network, FeatureNetwork):
        return network if device is None else on_device(network, device)
    if not (network is None or isinstance(network, str)):
        raise DiversityInputError(
            f"expected a network, or one of the names {', '.join(NETWORKS)}, got {type(network).__name__}"
        )
    return _named_network(network or NETWORKS[0], str(device or "cpu"))


def on_device(network: FeatureNetwork, device: torch.device | str) -> FeatureNetwork:
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DiversityInputError(f"expected a device that torch can use here, got {device!r}: {reason}") from error


def _stream(images: Tensor, network: FeatureNetwork, batch_size: int) -> Iterator[FeatureSums]:
    # Batches run across prompts, so that small n still fills them.
    prompts, n = images.shape[:2]
    flat = images.flatten(0, 1)
    sums = FeatureSums.empty()
    for start in range(0, prompts * n, batch_size):
        # Entered per batch: a generator that yields inside it would leave it on in the caller's code.
        with torch.inference_mode():
            features = network(flat[start : start + batch_size].to(network.device))
        position = start
        while position < start + len(features):
            stop = min(start + len(features), (position // n + 1) * n)
            sums = sums.merge(FeatureSums.of(features[position - start : stop - start]))
            position = stop
            if position % n == 0:
                yield sums
                sums = FeatureSums.empty()
    if n == 0:
        yield from (FeatureSums.empty() for _ in range(prompts))


@no_type_check  # it checks its input itself; the shapes are for readers
def lpips_diversity(
    images: Float32[Tensor, "prompts n 3 height width"],
    network: FeatureNetwork | str | None = None,
    *,
    batch_size: int = 32,
    device: torch.device | str | None = None,
) -> Float64[Tensor, " prompts"]:
    """Mean LPIPS over the pairs i < j of each prompt's n images: 0 when they are equal, NaN for n < 2.

    `images` are float32 in [0, 1]. LPIPS depends on the image size: compare values of one size only. Noise raises it.
    `network`: a name ("stlpips", "alex" or "vgg"), or what `load_network` or `adapt_lpips` gives; None is the
    shift-tolerant LPIPS, "stlpips". `device`: where the network runs, and is moved to; None leaves it where it is.
    `batch_size`: images a pass; it bounds memory and changes the result by rounding only. Each image goes through the
    network once and no features are kept.

    On a GPU torch may run convolutions in TF32 (`torch.backends.cudnn.allow_tf32`): turn it off for float32 precision.

    Returns float64 (prompts,), on the CPU. Source: Zhang et al., 2018; Ghildyal & Liu, 2022 (stlpips).
    Raises PictureError for another shape or dtype, values outside [0, 1] by more than rounding, and NaN; and
    DiversityInputError for images too small for the network, and an unknown network. Both are ValueErrors.
    """
    sums = images_to_feature_sums(images, network, batch_size=batch_size, device=device)
    return torch.tensor([one.mean_pairwise_distance() for one in sums], dtype=torch.float64)


@cache
def _named_network(name: str, device: str) -> FeatureNetwork:
    return on_device(load_network(name), device)
