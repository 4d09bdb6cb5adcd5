"""Interventions, and what each changes in the enumeration of a `Small` model with 4 codes, whose frequencies fall from
code 0 to code 3. Written apart from the library, like the enumeration."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from divlens.interventions import Argmax, DisableTop, Guidance, Intervention, Subset, Temperature, TopK, TopP
from divlens.methods import EntropyTemperature, GuidanceInterval, MinP
from divlens.noise import CounterNoise, draw_by_inversion
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, PathRule, Raster

Transform = Callable[[np.ndarray], np.ndarray]


def keep_top(k: int) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        least = np.sort(logits, -1)[:, -k][:, None]
        return np.where(logits >= least, logits, -np.inf)

    return transform


def keep_mass(p: float) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        chance = np.exp(logits - logits.max(-1, keepdims=True))
        chance /= chance.sum(-1, keepdims=True)
        result = np.full_like(logits, -np.inf)
        for i, row in enumerate(chance):
            total = 0.0
            for code in np.argsort(-row, kind="stable"):
                if total >= p:
                    break
                result[i, code] = logits[i, code]
                total += row[code]
        return result

    return transform


def keep_near_the_best(p: float) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        ratio = np.exp(logits - logits.max(-1, keepdims=True))
        return np.where(ratio >= p, logits, -np.inf)

    return transform


def heat_by_entropy(t0: float, alpha: float, theta: float) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        result = np.empty_like(logits)
        for i, row in enumerate(logits):
            chance = np.exp(row - row.max())
            chance /= chance.sum()
            entropy = -sum(p * math.log(p) for p in chance if p > 0)
            result[i] = row / (t0 * math.exp(-entropy / alpha) + theta)
        return result

    return transform


def make_rarer(codes: tuple[int, ...], strength: float) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        chance = np.exp(logits - logits.max(-1, keepdims=True))
        chance[:, list(codes)] *= 1 - strength
        return np.log(chance)

    return transform


def ban(codes: tuple[int, ...]) -> Transform:
    def transform(logits: np.ndarray) -> np.ndarray:
        result = logits.copy()
        result[:, list(codes)] = -np.inf
        return result

    return transform


INTERVENTIONS: Mapping[str, tuple[Intervention, Mapping[str, Any]]] = {
    "guidance": (Guidance(3.0), {"guidance": 3.0}),
    "no guidance": (Guidance(1.0), {"guidance": 1.0}),
    "temperature": (Temperature(0.5), {"transform": lambda logits: logits / 0.5}),
    "top-k": (TopK(2), {"transform": keep_top(2)}),
    "top-p": (TopP(0.7), {"transform": keep_mass(0.7)}),
    "subset": (Subset(0.5), {"transform": ban((2, 3))}),
    "disable-top": (DisableTop(0.25), {"transform": ban((0,))}),
    "disable-top, softly": (DisableTop(0.5, strength=0.9), {"transform": make_rarer((0, 1), 0.9)}),
    "min-p": (MinP(0.4), {"transform": keep_near_the_best(0.4)}),
    "temperature by entropy": (EntropyTemperature(), {"transform": heat_by_entropy(2.5, 3.0, 0.6)}),
    "guidance at one of three steps": (GuidanceInterval(0.3, 0.7), {"guided": (1, 2)}),
    "argmax": (Argmax(), {"greedy": True}),
    "argmax at two of three steps": (Argmax(share=0.6), {"greedy": True, "greedy_until": 2}),
}


def diffusion_of(codes: int, steps: int = 3) -> MaskReplaceDiffusion:
    times = [step / steps for step in range(steps + 1)]
    return MaskReplaceDiffusion(tuple((1 - t) * (1 - t / 3) for t in times), tuple(times), codes)


def rule_of(family: str, codes: int, temperature: tuple[float, float] = (2.0, 0.0)) -> PathRule:
    rules = {"ar": Raster(3), "mim": ConfidenceUnmasking(3, temperature), "diffusion": diffusion_of(codes)}
    return rules[family]


def frozen_changes(model: Any, prompt: str, stream: str, seed: int = 0) -> Mapping[str, Any]:
    """What Freeze changes in the enumeration: the noise of the prompt's first sample is known."""
    noise, positions = CounterNoise.of(seed, [prompt], [0], [0]), math.prod(model.grid)

    def gumbel(step: int) -> np.ndarray:
        return noise.path_gumbel(step, positions, torch.device("cpu"))[0].numpy()

    def draw(step: int, state: tuple[int, ...], chances: np.ndarray) -> list[int]:
        """The token that each position gets; those that are not drawn get 0."""
        first, count = (step, 1) if isinstance(model.rule, Raster) else (0, positions)
        uniform = torch.from_numpy(noise.uniform("execution", step, first, count)[..., 0])
        drawn = draw_by_inversion(torch.from_numpy(chances)[None, first : first + count], uniform)
        result = [0] * positions
        result[first : first + count] = drawn[0].tolist()
        return result

    def uniform(step: int) -> np.ndarray:
        return noise.path_uniform(step, positions, torch.device("cpu"))[0].numpy()

    return {"gumbel": gumbel, "uniform": uniform} if stream == "path" else {"draw": draw}
