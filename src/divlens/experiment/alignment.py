"""Diversity at kept fidelity where no judge reads the pictures: among those that fit to the prompt as baseline's do.

`kept:clipscore:PLACE` takes the scores of baseline's pictures first, so it is measured of a run, in a second pass. A
picture is held against baseline's other pictures of its *own prompt*, for what CLIP gives depends more on the prompt
than on the picture: with one bar for all, prompts that it reads badly would lose all their pictures. How far below
these a picture may be is the 5th percentile over the pictures of *all prompts*, for the handful of one prompt has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from divlens.diversity import FeatureSums
from divlens.errors import DivlensError
from divlens.experiment.families import CLIPSCORE, KEPT_BY, Asked, lost_beside, parts_of, shortened
from divlens.experiment.measure import Instruments, looks, prompt_by_prompt, samples_each
from divlens.experiment.measures import Gauge, Look, Measure
from divlens.metrics.clip import Clip, clip_of, text_direction
from divlens.metrics.networks import CLIP, Directions, network_by
from divlens.models.fingerprint import weights_digits
from divlens.output import Record
from divlens.run import Run
from divlens.store.cells import number_of
from divlens.store.draw import all_stored, windows
from divlens.store.folder import RunFolder
from divlens.store.place import Place
from divlens.types import Prompt

LOST = 5.0  # percent of baseline's own pictures that count as lost, at most
ROUNDING = 1e-5  # of cosines: pictures that are equal but for it are not told apart

Scores = Float[np.ndarray, "prompts n"]
Bars = Callable[[Prompt], Float[np.ndarray, " n"]]


def bars_of(baseline: Scores) -> Scores:
    """The least score with which each picture is kept, from the scores of baseline's pictures.

    Sample i of a prompt, under any condition, is held against the mean of baseline's other samples of that prompt, all
    but the i-th, which has the same noise. So where a condition changes nothing its pictures are held against what
    baseline's own are, and as many are lost: at most 5% of all. NaN for a single sample.
    """
    n = baseline.shape[1]
    if n < 2:
        return np.full_like(baseline, np.nan)
    others = (baseline.sum(1, keepdims=True) - baseline) / (n - 1)
    return others + np.percentile(baseline - others, LOST, method="lower") - ROUNDING


@dataclass(frozen=True)
class Alignment:
    """What was asked for as `kept:clipscore:PLACE`: a CLIP that says which pictures fit to their prompts."""

    place: str

    @classmethod
    def named(cls, name: str) -> Alignment:
        """Raises DivlensError for another score, for a network behind an @, and for a CLIP that cannot be loaded."""
        asked = parts_of(name)
        family, _, place = asked.argument.partition(":")
        score = Asked(family, place, asked.network)
        if score.family != CLIPSCORE:
            raise DivlensError(f"{KEPT_BY} expects {KEPT_BY}:{CLIPSCORE}:PLACE, got {name!r:.120}")
        found = cls(score.place())
        assert found.clip and found.network  # loaded here, so that they are refused before anything is measured
        return found

    @property
    def name(self) -> str:
        return f"{KEPT_BY}:{CLIPSCORE}:{self.place}"

    @property
    def lost(self) -> str:
        """The name of the share that is left out."""
        return lost_beside(self.name)

    @property
    def clip(self) -> Clip:
        return clip_of(self.place)

    @property
    def network(self) -> Directions:
        found = network_by(f"{CLIP}:{self.place}")
        assert isinstance(found, Directions)
        return found

    @cached_property
    def digits(self) -> str:
        """Of the network's weights."""
        return weights_digits(self.clip.model)

    def scores(self, look: Look) -> Float[np.ndarray, " some"]:
        """The cosine of each picture with the prompt, also where another wording was drawn. CLIPScore is 100 times
        that, and 0 where it is negative, which would make equal what is not."""
        features = look.features_by(self.network)
        with torch.inference_mode():
            direction = text_direction(self.clip, look.prompt.text, features.device)
            cosines = torch.nn.functional.normalize(features, dim=1) @ direction
        return cosines.double().cpu().numpy()

    def kept(self, look: Look, bars: Bars) -> Bool[np.ndarray, " some"]:
        here = bars(look.prompt)[look.first :][: len(look.pictures)]
        return self.scores(look) >= here

    def against(
        self, baseline: Run, condition: str, instruments: Instruments, folder: RunFolder
    ) -> tuple[Measure, Measure]:
        """The measures of a model in the folder of a run, whose `baseline` stands there under `condition`."""
        samples = number_of(folder.cells(baseline, baseline.rows).tolist())
        return self.measures(bars_when_asked(self, baseline, condition, instruments, folder), str(samples))

    def measures(self, bars: Bars, baseline: str = "") -> tuple[Measure, Measure]:
        """The diversity among the pictures that are kept, and the share that is not. `baseline`: what names the
        pictures that the bars come from."""
        version = f"{self.digits} {baseline}"

        def gauge(prompt: Prompt) -> Gauge:
            return DistancesOfKept(self, bars)

        def lost(look: Look) -> Float[Tensor, " some"]:
            kept = torch.from_numpy(~self.kept(look, bars)).double()
            return kept if len(bars(look.prompt)) > 1 else torch.full_like(kept, math.nan)

        by = shortened(f"{CLIPSCORE}:{self.place}")
        note = (
            f"LPIPS diversity among the samples whose {by} with the prompt is not far below that of baseline's, as it "
            f"is of {LOST:.0f}% of these"
        )
        return (
            Measure(self.name, gauge, "set", "", (0.0, math.inf), shortened(self.name), note, version),
            Measure(
                self.lost,
                lost,
                "sample",
                "%",
                (0.0, 1.0),
                shortened(self.lost),
                "share of samples that are left out for that",
                version,
            ),
        )


@dataclass
class DistancesOfKept:
    """The mean pairwise LPIPS distance among the pictures that are kept; NaN for fewer than two."""

    alignment: Alignment
    bars: Bars
    sums: FeatureSums = field(default_factory=FeatureSums.empty)

    def add(self, look: Look) -> None:
        kept = torch.from_numpy(self.alignment.kept(look, self.bars))
        self.sums = self.sums.merge(FeatureSums.of(look.features[kept.to(look.features.device)]))

    def value(self) -> float:
        return self.sums.mean_pairwise_distance()


def check_baselines(requests: Sequence[Record], wanted: Sequence[object], place: Place) -> None:
    """Raises DivlensError where something is to be held against baseline's pictures, and there are none."""
    against = [each.name for each in wanted if isinstance(each, Alignment)]
    for request in requests:
        if against and untouched_in(request) is None:
            raise DivlensError(
                f"{against[0]} expects a condition without interventions to hold pictures against, "
                f"{request['command']} in {place} has {', '.join(request['conditions'])}"
            )


def untouched_in(request: Record) -> str | None:
    """The condition in which nothing is done."""
    return next((name for name, done in request["conditions"].items() if done == "none"), None)


def bars_when_asked(
    alignment: Alignment, run: Run, condition: str, instruments: Instruments, folder: RunFolder
) -> Bars:
    """The least scores with which pictures are kept, from those of baseline's `run`. They are found when the first is
    asked for: where all figures are stored nothing is looked at."""

    @cache
    def bars() -> dict[str, Float[np.ndarray, " n"]]:
        instruments.network.to(run.device)
        scores: dict[str, Float[np.ndarray, " n"]] = {}
        for place in windows(run, whole=samples_each(run)):
            tokens = all_stored(run, place, folder, condition)
            for _, rows, here in prompt_by_prompt(run, place, tokens):
                prompt = rows[0].prompt
                seen = [alignment.scores(look) for look in looks(run, prompt, here, instruments)]
                scores[prompt.text] = np.concatenate(seen)
        return dict(zip(scores, bars_of(np.stack(list(scores.values()))), strict=True))

    return lambda prompt: bars()[prompt.text]
