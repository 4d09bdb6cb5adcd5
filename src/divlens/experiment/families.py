"""Measures whose names have a part of their own: NAME, NAME:ARGUMENT, and @NETWORK for another look at the pictures.

`vendi`, `vendi:2`, `rke@clip:FOLDER`, `repeat:0.01`, `prdc_recall:FOLDER@dinov2:FOLDER`, `clip:FOLDER`,
`clipscore:FOLDER`. A family is a function of what was asked for, and gives a `Measure`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import NETWORKS, PictureNetwork
from divlens.errors import DivlensError
from divlens.experiment.measures import EQUAL_N, Distances, Gauge, Look, Measure
from divlens.metrics.clip import clip_of
from divlens.metrics.kernels import cosines, effective_number_of_order_2, products, squared_distances, vendi_score
from divlens.metrics.manifolds import Reference
from divlens.metrics.networks import CLIP, DINO, DREAMSIM, in_8_bits, network_by
from divlens.metrics.references import References
from divlens.metrics.repeats import samples_until_repeat, sizes_of_clusters
from divlens.models.fingerprint import weights_digits
from divlens.types import Prompt

Features = Sequence[Float[Tensor, "_ features"]]
OTHER_NETWORK = re.compile(rf"@(?=(?:{'|'.join(NETWORKS)}|{DREAMSIM})$|(?:{CLIP}|{DINO}|{DREAMSIM}):)")
KEPT_BY, CLIPSCORE = "kept", "clipscore"
AGAINST, RATIOS = "prdc_", ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Asked:
    """The parts of a name; those that it does not have are empty. skip_broken: whether reference pictures that cannot
    be read are left out."""

    family: str
    argument: str
    network: str
    skip_broken: bool = False

    @property
    def name(self) -> str:
        name = f"{self.family}:{self.argument}" if self.argument else self.family
        return f"{name}@{self.network}" if self.network else name

    def number(self, expected: str) -> float:
        """The argument. Raises DivlensError for what is no number above 0."""
        try:
            found = float(self.argument)
        except ValueError:
            found = math.nan
        if not found > 0:
            raise DivlensError(f"{self.family} expects {expected} after a colon, got {self.argument!r:.40}")
        return found

    def refuse_network(self) -> None:
        """Raises DivlensError for a network behind an @, of a family that is one itself."""
        if self.network:
            raise DivlensError(
                f"{self.family} is a network of its own and expects none after @, got {self.name!r:.120}"
            )

    def place(self) -> str:
        """The argument of a network, which has nothing behind an @."""
        self.refuse_network()
        if not self.argument:
            raise DivlensError(
                f"{self.family} expects a folder or a repository on the model hub after a colon, got none"
            )
        return self.argument


@dataclass
class OfAllFeatures:
    """A number of the features of all pictures of a prompt, which are kept until they are all there."""

    of: Callable[[Features], float]
    network: PictureNetwork | None
    parts: list[Tensor] = field(default_factory=list)

    def add(self, look: Look) -> None:
        self.parts.append(look.features_by(self.network).cpu())

    def value(self) -> float:
        return self.of(self.parts)


@dataclass(frozen=True)
class Eyes:
    """Who looks at the pictures: a network of its own, or, None, that of the run or of the call."""

    name: str
    network: PictureNetwork | None
    version: str

    @classmethod
    def named(cls, name: str) -> Eyes:
        """By the part of a measure's name behind the @. Raises DivlensError for a network that cannot be loaded."""
        network = network_by(name) if name else None
        return cls(name, network, getattr(network, "version", ""))

    @property
    def features(self) -> str:
        return f"features of {shortened(self.name)}" if self.name else "LPIPS features"

    def measure(self, name: str, of: Callable[[Features], float], note: str, least: float) -> Measure:
        """A number, from `least` on, of the features of all pictures of a prompt."""

        def gauge(prompt: Prompt) -> Gauge:
            return OfAllFeatures(of, self.network)

        return Measure(name, gauge, "set", "", (least, math.inf), shortened(name), note, self.version)


def shortened(name: str) -> str:
    """A name as a table shows it: of a place only the last part."""
    return re.sub(r"(?<=:)[^@:]*/(?=[^/@])", "", name)


def vendi(asked: Asked) -> Measure:
    order = asked.number("an order above 0, or inf,") if asked.argument else 1.0
    eyes = Eyes.named(asked.network)
    note = f"effective number of pictures, of order {order:g}, by the cosine of {eyes.features}; {EQUAL_N}"

    def value(parts: Features) -> float:
        return vendi_score(cosines(products(parts)), order)

    return eyes.measure(asked.name, value, note, 1.0)


def rke(asked: Asked) -> Measure:
    if asked.argument:
        raise DivlensError(f"rke expects nothing after a colon, got {asked.argument!r:.80}")
    eyes = Eyes.named(asked.network)
    note = (
        f"effective number of pictures, of order 2, by the cosine of {eyes.features}: one over the mean squared cosine "
        "of two pictures, which has no bias at any n"
    )

    def value(parts: Features) -> float:
        return effective_number_of_order_2(cosines(products(parts)))

    return eyes.measure(asked.name, value, note, 1.0)


def repeat(asked: Asked) -> Measure:
    """By token grids, of which no picture is made, or with a threshold by near duplicates."""
    until = "samples until a repeat, where none after the next is waited for"
    if not asked.argument:
        if asked.network:
            raise DivlensError(f"repeat expects a distance, as in repeat:0.01@{asked.network}, got {asked.name!r:.80}")
        note = f"{until}; a repeat has the token grid of an earlier sample; {EQUAL_N}"
        return Measure("repeat", repeat_of_tokens, "tokens", "", (2.0, math.inf), note=note)
    threshold, eyes = asked.number("a distance above 0"), Eyes.named(asked.network)
    if math.isinf(threshold):
        raise DivlensError(f"repeat expects a distance above 0 after a colon, got {asked.argument!r}")

    def value(parts: Features) -> float:
        gram = products(parts)
        lengths = gram.diagonal()
        return samples_until_repeat(sizes_of_clusters(squared_distances(lengths, lengths, gram), threshold).tolist())

    kind = "an LPIPS" if asked.network in ("", *NETWORKS) else "a 1 - cosine"
    note = f"{until}; a repeat has {kind} of at most {threshold:g} to an earlier sample, by {eyes.features}; {EQUAL_N}"
    return eyes.measure(asked.name, value, note, 2.0)


def repeat_of_tokens(tokens: Int[Tensor, "n positions"]) -> float:
    return samples_until_repeat(torch.unique(tokens, dim=0, return_counts=True)[1].tolist())


def manifold_ratio(asked: Asked) -> Measure:
    if not asked.argument:
        raise DivlensError(f"{asked.family} expects a folder of reference pictures, {asked.family}:FOLDER, got none")
    eyes, references = Eyes.named(asked.network), References.read(Path(asked.argument), asked.skip_broken)
    ratio = asked.family.removeprefix(AGAINST)

    def gauge(prompt: Prompt) -> Gauge:
        return AgainstReference(ratio, references, prompt.text, eyes.network)

    note = f"against the {references.described}, by {eyes.features}, k = {references.neighbours}; {EQUAL_N}"
    limits = (0.0, math.inf if ratio == "density" else 1.0)
    version = f"{eyes.version} {references.version}".strip()
    return Measure(asked.name, gauge, "set", "", limits, shortened(asked.name), note, version)


@dataclass
class AgainstReference:
    """One of the four ratios, of the pictures of a prompt against its reference."""

    ratio: str
    references: References
    prompt: str
    network: PictureNetwork | None
    parts: list[Tensor] = field(default_factory=list)
    reference: Reference | None = None

    def add(self, look: Look) -> None:
        if not self.parts:
            height, width = look.pictures.shape[-2:]
            network = self.network or look.network
            self.reference = self.references.seen_by(network, self.prompt, (height, width))
        self.parts.append(look.features_by(self.network).cpu())

    def value(self) -> float:
        return math.nan if self.reference is None else getattr(self.reference.against(self.parts), self.ratio)


def distance(asked: Asked) -> Measure:
    if asked.family == DREAMSIM:
        asked.refuse_network()
    else:
        asked.place()
    eyes = Eyes.named(asked.name)
    note = "mean 1 - cosine of the features of two pictures"

    def gauge(prompt: Prompt) -> Gauge:
        return Distances(eyes.network)

    return Measure(asked.name, gauge, "set", "", (0.0, 2.0), shortened(asked.name), note, eyes.version)


def clipscore(asked: Asked) -> Measure:
    clip = clip_of(asked.place())

    def scores(look: Look) -> Float[Tensor, " some"]:
        clip.model.to(look.network.device)
        return clip.scores(in_8_bits(look.pictures), look.prompt.text).cpu()

    note = "max(100 cos, 0) of picture and prompt, also where another wording of the prompt was drawn"
    title, version = shortened(asked.name), weights_digits(clip.model)
    return Measure(asked.name, scores, "sample", "", (0.0, 100.0), title, note, version)


def clipiqa(asked: Asked) -> Measure:
    clip = clip_of(asked.place())

    def qualities(look: Look) -> Float[Tensor, " some"]:
        clip.model.to(look.network.device)
        return clip.qualities(in_8_bits(look.pictures)).cpu()

    noise, grey = clip.quality_of_nothing
    note = f"CLIP-IQA may take noise for quality: uniform noise has {noise:.3f}, even grey {grey:.3f}"
    title, version = shortened(asked.name), weights_digits(clip.model)
    return Measure(asked.name, qualities, "sample", "", (0.0, 1.0), title, note, version)


def lost_beside(kept: str) -> str:
    """The name of the share that is left out by a measure `kept:...`."""
    return f"lost{kept.removeprefix(KEPT_BY)}"


def kept_by(asked: Asked) -> Measure:
    """Raises DivlensError: what is kept follows from baseline's pictures, so `alignment` makes that of a run."""
    raise DivlensError(
        f"{asked.name:.80} holds pictures against those of baseline, so it is measured of a run, by divlens score RUN "
        f"--measures {asked.name:.80}"
    )


FAMILIES: Mapping[str, Callable[[Asked], Measure]] = {
    "vendi": vendi,
    "rke": rke,
    "repeat": repeat,
    **dict.fromkeys((f"{AGAINST}{ratio}" for ratio in RATIOS), manifold_ratio),
    **dict.fromkeys((DINO, CLIP, DREAMSIM), distance),
    CLIPSCORE: clipscore,
    "clipiqa": clipiqa,
    KEPT_BY: kept_by,
}
# As a user may write them, for messages and for the command line.
WRITTEN = (
    "vendi[:ORDER][@NETWORK]",
    "rke[@NETWORK]",
    "repeat[:DISTANCE[@NETWORK]]",
    "prdc_precision:FOLDER[@NETWORK]",
    "prdc_recall:...",
    "prdc_density:...",
    "prdc_coverage:...",
    "dinov2:PLACE",
    "clip:PLACE",
    "dreamsim[:FOLDER]",
    "clipscore:PLACE",
    "clipiqa:PLACE",
    f"{KEPT_BY}:{CLIPSCORE}:PLACE",
)


def parts_of(name: str) -> Asked:
    """The parts of a name, of a family or not."""
    whole, *network = OTHER_NETWORK.split(name, maxsplit=1)
    family, _, argument = whole.partition(":")
    return Asked(family, argument, "".join(network))


def is_of_family(name: str) -> bool:
    return parts_of(name).family in FAMILIES


def family_measure(name: str, skip_broken: bool = False) -> Measure | None:
    """The measure of a name with a family; None for another name. Raises DivlensError for a bad argument, a network
    that cannot be loaded, and a reference that cannot be read."""
    asked = replace(parts_of(name), skip_broken=skip_broken)
    return FAMILIES[asked.family](asked) if asked.family in FAMILIES else None
