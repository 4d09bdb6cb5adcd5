"""How diverse the images of a prompt are: LPIPS as a variance."""

from divlens.diversity.lpips import FeatureSums, images_to_feature_sums, lpips_diversity, network_of
from divlens.diversity.networks import (
    NETWORKS,
    DiversityInputError,
    FeatureNetwork,
    MissingPackageError,
    PictureNetwork,
    adapt_lpips,
    load_network,
)

__all__ = [
    "NETWORKS",
    "DiversityInputError",
    "FeatureNetwork",
    "FeatureSums",
    "MissingPackageError",
    "PictureNetwork",
    "adapt_lpips",
    "images_to_feature_sums",
    "load_network",
    "lpips_diversity",
    "network_of",
]
