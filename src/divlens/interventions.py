"""Interventions: frozen dataclasses, each a pure change of a sampler's settings or of a prompt's wordings.

An intervention touches exactly one place: the prompt (Paraphrase, Detailed), the predicted distribution (Subset,
DisableTop, Temperature, TopK, TopP, Guidance), the execution draw (Argmax, Freeze) or the path draw
(Argmax(scope="all"), Freeze). Those that are there to raise diversity are in `methods`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from divlens.codebook import WAYS, By, fraction_of_codes
from divlens.errors import DivlensError, check_whole, is_number, shown
from divlens.lab.captions import NAMING, detailed_wordings
from divlens.lab.reading import first_read
from divlens.paraphrase import longest, mixed_in_length, shortest, similar_in_length
from divlens.paraphrase.details import filled_in
from divlens.settings import COLDEST, HOTTEST, Settings
from divlens.types import Prompt, written

MOST_GUIDANCE = 1e6  # published scales are below 20; far beyond this, guided logits leave float32


Frequencies = Callable[[], Float[Tensor, " codes"]]
Wordings = Callable[[Prompt], tuple[str, ...]]


@runtime_checkable
class OnSettings(Protocol):
    """An intervention on the sampler. `apply(settings, frequencies)`: the changed settings. `frequencies` gives, when
    called, how often each code comes out of a calibration run (it sums to 1)."""

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings: ...


@runtime_checkable
class OnPrompt(Protocol):
    """An intervention on the prompt. `wordings(prompt, known)`: what is asked in its place, at least one text; sample i
    gets the (i mod n)-th of n. `known` gives, when called, the wordings that a prompt has and the model can read."""

    def wordings(self, prompt: Prompt, known: Wordings) -> tuple[str, ...]: ...


Intervention = OnSettings | OnPrompt


def described(interventions: Sequence[Intervention]) -> str:
    """What is done, in one line: `Paraphrase(...) + DisableTop(...)`, or `none`."""
    return " + ".join(map(repr, interventions)) or "none"


def fraction_in_range(name: str, fraction: float) -> None:
    if not (is_number(fraction) and 0 < fraction <= 1):
        raise DivlensError(f"{name} expects a fraction in (0, 1], got {shown(fraction)}")


def restrict(settings: Settings, allowed: Bool[Tensor, " codes"], name: str) -> Settings:
    """Only codes that were allowed before and are allowed now; at least one must remain."""
    both = allowed if settings.allowed is None else allowed & settings.allowed
    if not both.any():
        raise DivlensError(f"{name} leaves no code to draw: all {len(allowed)} codes are disabled")
    return replace(settings, allowed=both)


def with_log_factors(settings: Settings, log_factors: Float[Tensor, " codes"]) -> Settings:
    """The probability of each code multiplied by a factor more, given by its natural logarithm."""
    before = 0.0 if settings.log_factors is None else settings.log_factors
    return replace(settings, log_factors=before + log_factors.double())


def check_way(name: str, by: object) -> None:
    if by not in WAYS:
        raise DivlensError(f'{name}(by=...) expects "frequency", "mass", "random" or "cluster", got {shown(by)}')


def codes_for(
    name: str, fraction: float, by: By, settings: Settings, frequencies: Frequencies
) -> Bool[Tensor, " codes"]:
    """The codes that make up a fraction of the codebook. Raises DivlensError, before any calibration run, for clusters
    of a model that does not show the vectors of its codes."""
    if by != "cluster":
        return fraction_of_codes(frequencies(), fraction, by)
    if settings.clustered is None:
        raise DivlensError(f"{name}(by='cluster') expects a model that shows its `code_vectors`, got one that does not")
    order = settings.clustered()
    return fraction_of_codes(torch.full((len(order),), 1 / len(order), dtype=torch.float64), fraction, by, order)


@dataclass(frozen=True)
class Subset:
    """Only a `fraction` of the codebook may be drawn (arXiv 2512.01831). Reads reliance on H(Z).

    `by="frequency"`: the round(fraction * K) codes that a calibration run uses most, ties by lower id, at least one.
    "mass": the fewest most used codes that make up this fraction of the run's tokens. "random": round(fraction * K)
    codes of a fixed random order, whatever their use: a control for "frequent". "cluster": as many, whole clusters of
    codes whose vectors are near each other, in a fixed random order, the last of them cut: a control for codes that
    have look-alikes. A smaller fraction is always a part of a larger one; 1 changes nothing, and asks for no
    calibration run.
    """

    fraction: float = 0.5
    by: By = "frequency"

    def __post_init__(self) -> None:
        fraction_in_range("Subset", self.fraction)
        check_way("Subset", self.by)

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        if self.fraction == 1:
            return settings
        allowed = codes_for("Subset", self.fraction, self.by, settings, frequencies)
        return restrict(settings, allowed, f"Subset({self.fraction})")


@dataclass(frozen=True, repr=False)
class DisableTop:
    """A `fraction` of the codebook, at least one code, may not be drawn: the most used codes (the paper's enhancer).

    `by`: what a fraction is, as of `Subset`; "random" and "cluster" disable random codes, and codes that are alike, in
    place of the most used ones: controls. `strength`: in [0, 1]; the probability of these codes is multiplied by 1 -
    strength, and all are scaled to sum to 1 again, before any temperature. 1 is a ban. A fraction or a strength of 0
    changes nothing, and asks for no calibration run.
    """

    fraction: float = 0.05
    by: By = "frequency"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not (is_number(self.fraction) and 0 <= self.fraction <= 1):
            raise DivlensError(f"DisableTop expects a fraction in [0, 1], got {shown(self.fraction)}")
        if not (is_number(self.strength) and 0 <= self.strength <= 1):
            raise DivlensError(f"DisableTop(strength=...) expects a number in [0, 1], got {shown(self.strength)}")
        check_way("DisableTop", self.by)

    def __repr__(self) -> str:
        return written(self, "by", "strength")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        if self.fraction == 0 or self.strength == 0:
            return settings
        disabled = codes_for("DisableTop", self.fraction, self.by, settings, frequencies)
        if self.strength == 1:
            return restrict(settings, ~disabled, f"DisableTop({self.fraction})")
        return with_log_factors(settings, disabled * math.log1p(-self.strength))


@dataclass(frozen=True, repr=False)
class Argmax:
    """The token draw becomes deterministic. `scope="tokens"` leaves the path its noise; "all" silences it too.

    `share`: of the steps, from the first on, in which that holds; the tokens of the others are drawn, as ever. In
    [0, 1]; above 0 it is one step at least, and 0 changes nothing but the path of `scope="all"`.
    """

    scope: Literal["tokens", "all"] = "tokens"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.scope not in ("tokens", "all"):
            raise DivlensError(f'Argmax(scope=...) expects "tokens" or "all", got {self.scope!r}')
        if not (is_number(self.share) and 0 <= self.share <= 1):
            raise DivlensError(f"Argmax(share=...) expects a share of the steps in [0, 1], got {shown(self.share)}")

    def __repr__(self) -> str:
        return written(self, "share")

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        rule = settings.rule.silenced() if self.scope == "all" else settings.rule
        return replace(settings, greedy=max(settings.greedy, float(self.share)), rule=rule)


@dataclass(frozen=True)
class Paraphrase:
    """One meaning, several wordings: sample i of a prompt gets wording i mod n.

    `lengths`: "similar" takes the wordings whose number of words is nearest to the prompt's, "mixed" spreads them
    evenly from the shortest to the longest, these two first; "short" and "long" take the shortest and the longest.
    `n`: how many, at most; None is all of them for "mixed" and half of them for the others. A prompt without
    paraphrases of its own gets templates around it ("a picture of ..."): the model's own, or neutral ones.
    """

    n: int | None = None
    lengths: Literal["similar", "mixed", "short", "long"] = "similar"

    def __post_init__(self) -> None:
        if self.n is not None:
            check_whole("Paraphrase(n=...)", self.n, 1)
        if self.lengths not in ("similar", "mixed", "short", "long"):
            raise DivlensError(
                f'Paraphrase(lengths=...) expects "similar", "mixed", "short" or "long", got {self.lengths!r}'
            )

    def wordings(self, prompt: Prompt, known: Wordings) -> tuple[str, ...]:
        wordings = known(prompt)
        if self.lengths == "mixed":
            return mixed_in_length(wordings, min(self.n or len(wordings), len(wordings)))
        count = self.n or (len(wordings) + 1) // 2
        if self.lengths == "similar":
            return similar_in_length(wordings, prompt.text, count)
        return shortest(wordings, count) if self.lengths == "short" else longest(wordings, count)


@dataclass(frozen=True, repr=False)
class Detailed:
    """More is said than was asked for: sample i of a prompt gets wording i mod n, each of which names `details` things
    that the prompt leaves open, filled in at random.

    `words`: "laboratory" knows what is open and the law of it, draws values evenly (`lab.captions.detailed_wordings`),
    and is for prompts of the laboratory only. "everyday" takes any English prompt and says where, in what light, from
    where it is seen and as what kind of picture, of the prompt and its paraphrases in turn (`paraphrase.details`).
    `details`: at most; None is all that there are words for. A prompt that names everything stays as it is.
    """

    details: int | None = None
    n: int = 32
    seed: int = 0
    words: Literal["laboratory", "everyday"] = "laboratory"

    def __post_init__(self) -> None:
        if self.details is not None:
            check_whole("Detailed(details=...)", self.details, 1)
        check_whole("Detailed(n=...)", self.n, 1)
        check_whole("Detailed(seed=...)", self.seed, 0)
        if self.words not in ("laboratory", "everyday"):
            raise DivlensError(f'Detailed(words=...) expects "laboratory" or "everyday", got {shown(self.words)}')

    def __repr__(self) -> str:
        return written(self, "words")

    def wordings(self, prompt: Prompt, known: Wordings) -> tuple[str, ...]:
        """Raises DivlensError for a prompt that the laboratory cannot read where it is asked to."""
        if self.words == "everyday":
            texts = (prompt.text, *prompt.paraphrases)
            by_text = cycle([filled_in(text, self.n, self.seed, self.details) for text in texts])
            return tuple(of[i % len(of)] for i, of in zip(range(self.n), by_text, strict=False))
        meaning = first_read((prompt.text, *prompt.paraphrases))
        if meaning is None:
            raise DivlensError(
                f"Detailed expects prompts that the laboratory can read, got {prompt.text!r:.60}; words='everyday' "
                "takes any"
            )
        open_ = len(set(NAMING) - set(meaning.named))
        if not open_:
            return (prompt.text,)
        return detailed_wordings(meaning, self.n, self.seed, min(self.details or open_, open_))


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by `t` after guidance; t > 0, and a number that float32 holds (1.2e-38 to 3.4e38)."""

    t: float

    def __post_init__(self) -> None:
        if not (is_number(self.t) and COLDEST <= self.t <= HOTTEST):
            raise DivlensError(
                f"Temperature expects a number above 0, from {COLDEST:.2g} to {HOTTEST:.2g} (use Argmax for 0), "
                f"got {shown(self.t)}"
            )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, temperature=float(self.t))


@dataclass(frozen=True)
class TopK:
    """Only the `k` most probable codes of each draw, and those tied with the last of them."""

    k: int

    def __post_init__(self) -> None:
        check_whole("TopK", self.k, 1)

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, top_k=self.k)


@dataclass(frozen=True)
class TopP:
    """The fewest most probable codes whose probabilities reach `p`; p in (0, 1] (Holtzman et al., 2020)."""

    p: float

    def __post_init__(self) -> None:
        fraction_in_range("TopP", self.p)

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, top_p=float(self.p))


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: logits = unconditional + scale * (conditional - unconditional); 1 is off.

    The scale is at least 0 and at most a million.
    """

    scale: float

    def __post_init__(self) -> None:
        if not (is_number(self.scale) and 0 <= self.scale <= MOST_GUIDANCE):
            raise DivlensError(
                f"Guidance expects a scale of at least 0 and at most {MOST_GUIDANCE:g}, got {shown(self.scale)}"
            )

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, guidance=float(self.scale))


@dataclass(frozen=True)
class Freeze:
    """One stream of noise, "path" or "execution", is the same for all samples of a prompt; the other varies."""

    stream: Literal["path", "execution"]

    def __post_init__(self) -> None:
        if self.stream not in ("path", "execution"):
            raise DivlensError(f'Freeze expects "path" or "execution", got {self.stream!r}')

    def apply(self, settings: Settings, frequencies: Frequencies) -> Settings:
        return replace(settings, frozen=settings.frozen | {self.stream})


def check_interventions(interventions: Sequence[Intervention]) -> None:
    """Raises DivlensError for what is no list of interventions."""
    listed = isinstance(interventions, Sequence) and not isinstance(interventions, str)
    if not listed or any(isinstance(part, type) or not isinstance(part, Intervention) for part in interventions):
        raise DivlensError(f"interventions expects a list such as [Argmax(), Guidance(2.0)], got {interventions!r}")


def apply_all(interventions: Sequence[Intervention], settings: Settings, frequencies: Frequencies) -> Settings:
    check_interventions(interventions)
    for intervention in interventions:
        if isinstance(intervention, OnSettings):
            settings = intervention.apply(settings, frequencies)
    return settings


def wordings_under(interventions: Sequence[Intervention], prompt: Prompt, known: Wordings) -> tuple[str, ...]:
    """What is asked in place of a prompt: itself, or what the last intervention on prompts says."""
    on_prompt = [intervention for intervention in interventions if isinstance(intervention, OnPrompt)]
    return on_prompt[-1].wordings(prompt, known) if on_prompt else (prompt.text,)


def templated(prompts: Sequence[Prompt], interventions: Sequence[Intervention]) -> tuple[str, ...]:
    """The texts of the prompts that get other wordings, and get them from templates, for they have no paraphrases."""
    reworded = any(isinstance(intervention, OnPrompt) for intervention in interventions)
    return tuple(prompt.text for prompt in prompts if not prompt.paraphrases) if reworded else ()
