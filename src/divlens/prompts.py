"""Prompt files: text lines, or JSONL with `prompt` and optional `paraphrases` and `concept`."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from divlens.types import DivlensError, Prompt

FIELDS = {"prompt", "paraphrases", "concept"}


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in order. A line that begins with `{` makes it JSONL; in text, `#` starts a comment.

    Raises DivlensError, naming the line, for a missing or empty file, bad JSON, an empty prompt or a repeated one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DivlensError(f"prompt file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DivlensError(f"cannot read prompt file {path}: {error}") from None
    return parse_prompts(text, str(path))


def parse_prompts(text: str, name: str) -> tuple[Prompt, ...]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    structured = any(line.startswith("{") for _, line in lines)
    found: dict[str, Prompt] = {}
    for number, line in lines:
        if not structured and line.startswith("#"):
            continue
        place = f"{name}, line {number}"
        prompt = parse_record(line, place) if structured else Prompt(line)
        if prompt.text in found:
            raise DivlensError(f"{place}: the prompt {prompt.text!r} was given before")
        found[prompt.text] = prompt
    if not found:
        raise DivlensError(f"expected at least one prompt in {name}, found none")
    return tuple(found.values())


def parse_record(line: str, place: str) -> Prompt:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DivlensError(f"{place}: expected one JSON object a line, got bad JSON ({error.msg})") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise DivlensError(f'{place}: expected an object with a text "prompt", got {line[:60]}')
    if unknown := set(record) - FIELDS:
        raise DivlensError(f"{place}: expected only {', '.join(sorted(FIELDS))}, got {', '.join(sorted(unknown))}")
    paraphrases, concept = record.get("paraphrases", []), record.get("concept")
    texts = paraphrases if isinstance(paraphrases, list) else [None]
    if not all(isinstance(item, str) and item.strip() for item in texts):
        raise DivlensError(f'{place}: expected "paraphrases" to be a list of non-empty texts')
    if concept is not None and not isinstance(concept, str):
        raise DivlensError(f'{place}: expected "concept" to be a text, got {concept!r}')
    if not record["prompt"].strip():
        raise DivlensError(f"{place}: the prompt is empty: expected at least one word")
    return Prompt(record["prompt"].strip(), tuple(texts), concept)


def default_prompts() -> tuple[Prompt, ...]:
    """The 24 zoo prompts that ship with the package, each with mixed-length paraphrases."""
    text = files("divlens.models.zoo").joinpath("assets/prompts.jsonl").read_text(encoding="utf-8")
    return parse_prompts(text, "prompts.jsonl")
