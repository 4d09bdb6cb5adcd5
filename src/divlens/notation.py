"""Interventions as text, in the form in which Python writes them: "Temperature(1.3), TopP(p=0.9)"."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from divlens import interventions, methods
from divlens.conditions import name_of
from divlens.errors import DivlensError
from divlens.interventions import Intervention, described

KINDS: Mapping[str, Any] = {
    name: kind
    for name, kind in sorted((vars(interventions) | vars(methods)).items())
    if is_dataclass(kind) and isinstance(kind, Intervention)
}
KNOWN = tuple(KINDS)
EXAMPLES: Mapping[str, str] = {
    "Argmax": "Argmax()",
    "ChooseThenSample": "ChooseThenSample()",
    "Detailed": "Detailed(1)",
    "FixedOrder": 'FixedOrder("halton", roll=True)',
    "Freeze": 'Freeze("path")',
    "GuidanceInterval": "GuidanceInterval(0.25, 0.75)",
    "Paraphrase": 'Paraphrase(lengths="mixed")',
    "RandomOrder": "RandomOrder()",
}
WHOLE = ("Guidance", "StratifiedNoise", "TopK")  # whose example has a 2
EXPECTED = 'expected interventions such as "Subset(0.25)" or "Temperature(1.3), TopP(0.9)"'


def interventions_from(text: str) -> tuple[Intervention, ...]:
    """The interventions that a text lists. Nothing of it is run: names are looked up, arguments are plain literals.

    Raises DivlensError for anything else, for an unknown name, and for arguments that the intervention refuses.
    """
    try:
        listed = ast.parse(f"({text.strip()},)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DivlensError(f"{EXPECTED}, got {text!r:.80}") from None
    if not isinstance(listed, ast.Tuple) or not listed.elts:
        raise DivlensError(f"{EXPECTED}, got {text!r:.80}")
    return tuple(intervention_from(part, text) for part in listed.elts)


def interventions_described(text: str) -> tuple[Intervention, ...]:
    """The interventions that `interventions.described` put into a line: its inverse."""
    return () if text == described(()) else interventions_from(text.replace(") + ", "), "))


def intervention_from(part: ast.expr, text: str) -> Intervention:
    """One of the parts of `text`."""
    kind, arguments, named = call_from(part, text)
    try:
        return kind(*arguments, **named)
    except TypeError:
        takes = ", ".join(field.name for field in fields(kind)) or "nothing"
        raise DivlensError(f"{kind.__name__} expects {takes}: {example(kind.__name__)}, got {text!r:.80}") from None


def call_from(part: ast.expr, text: str) -> tuple[Any, list[Any], dict[str, Any]]:
    """Of one of the parts of `text` the class of interventions, and its arguments without and with names."""
    if not (isinstance(part, ast.Call) and isinstance(part.func, ast.Name)):
        raise DivlensError(f"{EXPECTED}, got {ast.get_source_segment(f'({text.strip()},)', part) or text!r:.80}")
    kind = kind_called(part.func.id)
    try:
        arguments = [ast.literal_eval(value) for value in part.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in part.keywords}
    except (ValueError, TypeError, RecursionError, MemoryError):
        name = kind.__name__
        raise DivlensError(
            f"{name} expects numbers and texts in quotes, such as {example(name)}, got {text!r:.80}"
        ) from None
    return kind, arguments, named


def kind_called(name: str) -> Any:
    """The class of the interventions of that name. Raises DivlensError for a name of none."""
    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, 1, cutoff=0.6)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DivlensError(f"no intervention is called {name!r:.40}{hint}; known: {', '.join(KNOWN)}")
    return KINDS[name]


def example(name: str) -> str:
    """A call that works."""
    return EXAMPLES.get(name, f"{name}({2 if name in WHOLE else 0.5})")


def condition_from(text: str) -> tuple[str, tuple[Intervention, ...]]:
    """A named condition, "hot = Temperature(1.3)"; of one without a name the interventions are the name."""
    name, equals, listed = text.partition("=")
    if not equals or "(" in name:
        listed = interventions_from(text)
        return name_of(listed), listed
    if not name.strip():
        raise DivlensError(f'expected a condition such as "hot=Temperature(1.3)", got {text!r:.80}')
    return name.strip(), interventions_from(listed)


def condition_of_all(texts: Sequence[str]) -> dict[str, Sequence[Intervention]]:
    """One condition of all that the texts list, in order, under what it does as its name; the baseline for none."""
    listed = interventions_from(", ".join(texts)) if texts else ()
    return {name_of(listed): listed}


def conditions_from(texts: Sequence[str], baseline: str) -> dict[str, Sequence[Intervention]]:
    """The baseline, and the conditions that the texts name. Raises DivlensError for a name that comes twice."""
    found: dict[str, Sequence[Intervention]] = {baseline: ()}
    for text in texts:
        name, listed = condition_from(text)
        if name in found:
            raise DivlensError(f"expected every condition under a name of its own, got {name!r} twice")
        found[name] = listed
    return found
