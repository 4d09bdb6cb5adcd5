"""The prompts that ship with the zoo."""

from __future__ import annotations

from importlib.resources import files

from divlens.prompts import parse_prompts
from divlens.types import Prompt


def default_prompts() -> tuple[Prompt, ...]:
    """24 prompts for what the zoo draws, each with mixed-length paraphrases."""
    text = files("divlens.models.zoo").joinpath("assets/prompts.jsonl").read_text(encoding="utf-8")
    return parse_prompts(text, "prompts.jsonl")
