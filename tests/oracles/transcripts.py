"""Brute force for the accounting: every transcript of a small model, step by step, written apart from the library.

Only a model's logits and the rule's schedule numbers are taken from the library. Guidance, filters, the chances of a
selection (Plackett-Luce) and the diffusion's posteriors are written again here; entropies are those of the tables.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from divlens.paths import ChooseThenSample, ConfidenceUnmasking, FixedOrder, MaskReplaceDiffusion, RandomOrder, Raster
from divlens.types import View
from oracles.toy_grids import posterior, selection_chance

State = tuple[int, ...]
Outcome = tuple[object, object, State, float]  # event, tokens, next state, chance


@dataclass(frozen=True)
class Case:
    """What is enumerated. `transform`: guided logits (n, codes) to log-probabilities; `greedy`: the draw is its mode,
    at the steps before `greedy_until` where that is given. `draw`: a token that the draw must give at (step, state,
    position), where the execution noise is known; `gumbel` and `uniform`: the path's noise at (step, position), of
    unmasking and of diffusion, where that is. `guided`: the steps from which and to which guidance acts, where it does
    not at all of them."""

    model: object
    prompt: str
    guidance: float | None = None
    guided: tuple[int, int] | None = None
    rule: object = None
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    greedy: bool = False
    greedy_until: int | None = None
    draw: Callable[[int, State, np.ndarray], Sequence[int]] | None = None
    gumbel: Callable[[int], np.ndarray] | None = None
    uniform: Callable[[int], np.ndarray] | None = None

    @property
    def path_rule(self) -> Any:
        return self.rule or self.model.rule  # type: ignore[attr-defined]


def log_chances(case: Case, step: int, state: State) -> np.ndarray:
    """log p(x0 | state, prompt), float64 (positions, codes)."""
    model, n = case.model, len(state)
    rule, scale = case.path_rule, model.guidance if case.guidance is None else case.guidance  # type: ignore
    if case.guided is not None and not case.guided[0] <= step < case.guided[1]:
        scale = 1.0
    predictor = model.predictor(model.encode([case.prompt]), guided=True)  # type: ignore[attr-defined]
    seen = rule.view(torch.tensor([state]), step)
    conditional, unconditional = predictor(View(step, torch.tensor([state]), 0, n, seen.time))
    logits = (unconditional + scale * (conditional - unconditional))[0].double().numpy()
    if case.transform is not None:
        logits = case.transform(logits)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def possible_draws(case: Case, step: int, state: State, log_p: np.ndarray, i: int) -> list[tuple[int, float]]:
    """Tokens that position i may draw, with their chances."""
    if case.greedy and (case.greedy_until is None or step < case.greedy_until):
        return [(int(log_p[i].argmax()), 1.0)]
    if case.draw is not None:
        return [(int(case.draw(step, state, np.exp(log_p))[i]), 1.0)]
    return [(code, math.exp(value)) for code, value in enumerate(log_p[i]) if value > -math.inf]


def outcomes(case: Case, step: int, state: State) -> Iterator[Outcome]:
    """What a step may do from a state, one entry per way that is told apart, chances summing to 1."""
    rule, log_p, n = case.path_rule, log_chances(case, step, state), len(state)
    draws = [possible_draws(case, step, state, log_p, i) for i in range(n)]
    if isinstance(rule, Raster):
        for code, chance in draws[step]:
            yield (), code, (*state[:step], code, *state[step + 1 :]), chance
    elif isinstance(rule, ConfidenceUnmasking):
        yield from unmasked(case, rule, step, state, log_p, draws)
    elif isinstance(rule, RandomOrder | FixedOrder | ChooseThenSample):
        yield from chosen_first(case, rule, step, state, draws, log_p)
    else:
        assert isinstance(rule, MaskReplaceDiffusion)
        time, known = rule.steps - step, case.uniform(step) if case.uniform else [None] * n
        q = posterior(rule, time, rule.codes)
        for every in itertools.product(*(moves(q, draws[i], state[i], time, known[i]) for i in range(n))):
            events, tokens, following = (tuple(part[k] for part in every) for k in range(3))
            yield events, tokens, following, math.prod(part[3] for part in every)


def moves(
    q: np.ndarray, draws: list[tuple[int, float]], now: int, time: int, uniform: np.ndarray | None
) -> list[tuple]:
    """(event, token, next, chance) of one position; the x0 that is not taken is summed over."""
    if time == 1:
        return [("end", code, code, chance) for code, chance in draws]
    table: dict[tuple, float] = defaultdict(float)
    for origin, chance in draws:
        if np.isnan(q[origin, now]).all():  # x_t cannot have come from x0: the rule then keeps it
            table["stay", None, now] += chance
            continue
        law = q[origin, now] if uniform is None else certain_move(q[origin, now], now, origin, uniform)
        for after, part in enumerate(law):
            if not part > 0:
                continue
            if after == now:
                key = ("stay", None, now)
            elif after == origin:
                key = ("reveal", origin, origin)
            else:
                key = (("replace", after), None, after)
            table[key] += chance * part
    return [(*key, chance) for key, chance in table.items()]


def certain_move(law: np.ndarray, now: int, origin: int, uniform: np.ndarray) -> np.ndarray:
    """With the noise known: it stays below the chance of that, then takes x0, then one of the other codes, in order."""
    others = [code for code in range(len(law) - 1) if code not in (now, origin)]
    reveal = 0.0 if origin == now else law[origin]
    if uniform[0] < law[now]:
        after = now
    elif uniform[0] < law[now] + reveal:
        after = origin
    else:
        after = others[int(uniform[1] * len(others))]
    return np.eye(len(law))[after]


def unmasked(
    case: Case, rule: ConfidenceUnmasking, step: int, state: State, log_p: np.ndarray, draws: list
) -> Iterator[Outcome]:
    mask = case.model.mask  # type: ignore[attr-defined]
    opened = [i for i, token in enumerate(state) if token == mask]
    left = still_masked(rule, step, len(opened), len(state))
    tau = tau_at(rule, step)
    table: dict[tuple, float] = defaultdict(float)
    for every in itertools.product(*(draws[i] for i in opened)):
        drawn = {i: code for i, (code, _) in zip(opened, every, strict=True)}
        chance = math.prod(part for _, part in every)
        for chosen in itertools.combinations(opened, len(opened) - left):
            table[chosen, tuple(drawn[i] for i in chosen)] += chance * chosen_chance(
                case, step, chosen, {i: log_p[i, code] for i, code in drawn.items()}, tau
            )
    for (chosen, tokens), chance in table.items():
        if chance > 0:
            following = list(state)
            for i, code in zip(chosen, tokens, strict=True):
                following[i] = code
            yield chosen, tokens, tuple(following), chance


def tau_at(rule: Any, step: int) -> float:
    """The temperature of the path's noise."""
    first, last = rule.temperature
    if rule.cooling == "running product":
        for done in range(1, step + 2):
            first *= 1.0 - done / rule.steps
        return first
    return 0.0 if rule.steps == 1 else first + (last - first) * step / (rule.steps - 1)


def still_masked(rule: Any, step: int, opened: int, positions: int) -> int:
    """How many positions the step leaves masked."""
    ratio = (step + 1) / rule.steps
    shares = {"cosine": math.cos(ratio * math.pi / 2), "linear": 1 - ratio, "arccos": math.acos(ratio) * 2 / math.pi}
    share = np.float32(shares[rule.schedule]) if isinstance(rule, ConfidenceUnmasking) else shares[rule.schedule] + 1e-9
    wanted = math.floor(positions * share)
    return 0 if step == rule.steps - 1 else max(1, min(opened - 1, wanted))


def chosen_first(case: Case, rule: Any, step: int, state: State, draws: list, log_p: np.ndarray) -> Iterator[Outcome]:
    """Positions chosen without a look at the tokens; of a fixed order, one that is not rolled."""
    opened = [i for i, token in enumerate(state) if token == case.model.mask]  # type: ignore[attr-defined]
    count = len(opened) - still_masked(rule, step, len(opened), len(state))
    sets = list(itertools.combinations(opened, count))
    chances = [1 / len(sets)] * len(sets)
    if isinstance(rule, FixedOrder):
        assert not rule.roll
        sets, chances = [tuple(sorted([i for i in rule.order if i in opened][:count]))], [1.0]
    elif isinstance(rule, ChooseThenSample):
        tau = tau_at(rule, step)
        scores = {
            i: math.log((np.exp(log_p[i]) ** (1 + 1 / tau)).sum()) * tau if tau else log_p[i].max() for i in opened
        }
        chances = [chosen_chance(case, step, chosen, scores, tau) for chosen in sets]
    for chosen, chance_of_set in zip(sets, chances, strict=True):
        for every in itertools.product(*(draws[i] for i in chosen)):
            following = list(state)
            for i, (code, _) in zip(chosen, every, strict=True):
                following[i] = code
            chance = math.prod(part for _, part in every) * chance_of_set
            if chance > 0:
                yield chosen, tuple(code for code, _ in every), tuple(following), chance


def chosen_chance(case: Case, step: int, chosen: tuple, log_p: dict[int, float], tau: float) -> float:
    if len(chosen) in (0, len(log_p)):
        return 1.0
    if tau > 0 and case.gumbel is None:
        return selection_chance(chosen, {i: math.exp(value / tau) for i, value in log_p.items()})
    noise = case.gumbel(step) if tau > 0 and case.gumbel is not None else np.zeros(max(log_p) + 1)
    # In float32, as the loop compares them: ties are exact there.
    order = sorted(log_p, key=lambda i: (float(np.float32(log_p[i])) + tau * noise[i], i))
    return float(set(order[-len(chosen) :]) == set(chosen))


def entropy(chances: Sequence[float]) -> float:
    values = np.array([chance for chance in chances if chance > 0])
    return float(-(values * np.log2(values)).sum())


@dataclass
class Truth:
    """Exact bits. `steps`: (steps, 2), path and execution of each step; grids: the distribution of final grids;
    `transcripts`: of (path, grid), for rules whose path can be told from the events."""

    path: float = 0.0
    execution: float = 0.0
    trajectory_path: float = 0.0
    trajectory_execution: float = 0.0
    steps: list[tuple[float, float]] = field(default_factory=list)
    grids: dict[State, float] = field(default_factory=dict)
    transcripts: dict[tuple, float] = field(default_factory=dict)

    @property
    def joint(self) -> float:
        return self.path + self.execution

    @property
    def trajectory_joint(self) -> float:
        return self.trajectory_path + self.trajectory_execution

    @property
    def conditional(self) -> float:
        """H(Z|X)."""
        return entropy(list(self.grids.values()))

    def marginal(self) -> tuple[float, float]:
        """H(P|X) and H(Z|P,X), not causal."""
        paths: dict[tuple, float] = defaultdict(float)
        for (path, _), chance in self.transcripts.items():
            paths[path] += chance
        alone = entropy(list(paths.values()))
        return alone, entropy(list(self.transcripts.values())) - alone


def truth(case: Case) -> Truth:
    """Walks all states step by step; each step's entropies are taken per state and averaged."""
    rule, model = case.path_rule, case.model
    n = math.prod(model.grid)  # type: ignore[attr-defined]
    mass: dict[State, float] = {(model.mask,) * n: 1.0}  # type: ignore[attr-defined]
    records: dict[tuple, float] = {((), next(iter(mass))): 1.0}
    result = Truth()
    for step in range(rule.steps):
        following: dict[State, float] = defaultdict(float)
        extended: dict[tuple, float] = defaultdict(float)
        path = execution = moved = 0.0
        for state, weight in mass.items():
            events: dict[object, float] = defaultdict(float)
            states: dict[State, float] = defaultdict(float)
            listed = list(outcomes(case, step, state))
            assert abs(sum(chance for *_, chance in listed) - 1) < 1e-9
            for event, _, after, chance in listed:
                events[event] += chance
                states[after] += chance
            alone = entropy(list(events.values()))
            path += weight * alone
            execution += weight * (entropy([chance for *_, chance in listed]) - alone)
            moved += weight * entropy(list(states.values()))
            for after, chance in states.items():
                following[after] += weight * chance
            if isinstance(rule, ConfidenceUnmasking | RandomOrder | FixedOrder | ChooseThenSample):
                for (route, at), before in records.items():
                    if at == state:
                        for event, _, after, chance in listed:
                            extended[(*route, event), after] += before * chance
        result.steps.append((path, execution))
        result.path += path
        result.execution += execution
        if step == rule.steps - 1:
            result.trajectory_execution = moved
        else:
            result.trajectory_path += moved
        mass, records = dict(following), dict(extended)
    result.grids, result.transcripts = mass, records
    return result
