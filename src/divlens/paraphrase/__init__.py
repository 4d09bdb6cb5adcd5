"""Where wordings come from: a prompt's own paraphrases, or neutral templates around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from divlens.interventions import Paraphrase
from divlens.types import Prompt

TEMPLATES = (
    "a picture of {}",
    "an image of {}",
    "{} icon",
    "a simple drawing of {}",
    "a colorful illustration of {} on a white background",
    "an emoji that shows {}",
    "a small clean icon that shows {} on a plain white background",
)


Readable = Callable[[str], bool]


def any_text(wording: str) -> bool:
    return True


def wordings_of(prompt: Prompt, readable: Readable = any_text) -> tuple[str, ...]:
    """The prompt first, then its paraphrases, or neutral templates where it has none; no repeats."""
    others = prompt.paraphrases or tuple(filter(readable, (template.format(prompt.text) for template in TEMPLATES)))
    return tuple(dict.fromkeys((prompt.text, *others)))


def length(wording: str) -> int:
    """Words of a wording."""
    return len(wording.split())


def chosen(prompt: Prompt, paraphrase: Paraphrase, readable: Readable = any_text) -> tuple[str, ...]:
    """The wordings that `paraphrase` uses for this prompt, at least one."""
    wordings = wordings_of(prompt, readable)
    count = len(wordings) if paraphrase.n is None else min(paraphrase.n, len(wordings))
    if paraphrase.lengths == "similar":
        target = length(prompt.text)
        count = count if paraphrase.n is not None else (len(wordings) + 1) // 2
        return tuple(sorted(wordings, key=lambda wording: abs(length(wording) - target))[:count])
    by_length = sorted(wordings, key=length)
    if count == 1:
        return (by_length[0],)
    return ends_first([by_length[round(i * (len(by_length) - 1) / (count - 1))] for i in range(count)])


def ends_first(wordings: Sequence[str]) -> tuple[str, ...]:
    """The first, the last, then always the one farthest from those taken: however few samples there are, the lengths
    they get go from the shortest to the longest."""
    taken = [0, len(wordings) - 1]
    while len(taken) < len(wordings):
        left = [i for i in range(len(wordings)) if i not in taken]
        taken.append(max(left, key=lambda i: min(abs(i - j) for j in taken)))
    return tuple(wordings[i] for i in taken)


def wordings_for_samples(
    prompt: Prompt, interventions: Sequence[object], samples: Sequence[int], readable: Readable = any_text
) -> tuple[str, ...]:
    """The wording of each sample: the prompt itself, or with Paraphrase the (i mod n)-th wording for sample i.

    A neutral template around a long prompt may be more than a model reads; `readable` says so, and it is left out.
    """
    wordings: tuple[str, ...] = (prompt.text,)
    for intervention in interventions:
        if isinstance(intervention, Paraphrase):
            wordings = chosen(prompt, intervention, readable)
    return tuple(wordings[sample % len(wordings)] for sample in samples)
