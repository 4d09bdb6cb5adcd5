"""Prompts that come with the package, by the name of their set.

`everyday.jsonl` holds 100 prompts of our own, ten of each of ten categories, for models that draw anything. The first
ten are one of each category, and so are the next ten. The paraphrases of each are a short wording, two of about its own
number of words, a longer and a long one: the two are what `Paraphrase(lengths="similar")` takes beside the prompt, and
all of them are what `Paraphrase(lengths="mixed")` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files

from divlens.models.zoo.prompts import default_prompts
from divlens.prompts import parse_prompts
from divlens.types import Prompt

FILE = "everyday.jsonl"


def everyday_prompts() -> tuple[Prompt, ...]:
    return parse_prompts(files("divlens.study").joinpath(FILE).read_text(encoding="utf-8"), FILE)


PROMPT_SETS: Mapping[str, Callable[[], tuple[Prompt, ...]]] = {"everyday": everyday_prompts, "zoo": default_prompts}
