"""Prompt files: text lines, or JSONL with `prompt` and optional `paraphrases`, `concept` and `category`.

A category is for whoever reads the file: nothing is computed of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from divlens.errors import DivlensError
from divlens.types import Prompt

FIELDS = {"prompt", "paraphrases", "concept", "category"}
STRUCTURED = {".jsonl", ".ndjson", ".json"}


def as_prompts(prompts: Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """Prompts from texts. Raises DivlensError for none, for an empty one, and for one text in place of a list."""
    if isinstance(prompts, str | Prompt) or not isinstance(prompts, Iterable):
        raise DivlensError(f"expected a list of prompts, got {prompts!r}")
    asked = tuple(prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts)
    if not asked:
        raise DivlensError("expected at least one prompt, got none")
    return asked


def distinct_prompts(prompts: Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """As `as_prompts`; raises DivlensError for the same text twice, too.

    A prompt's text is its noise, so the same text twice would be the same samples twice, counted as independent.
    """
    asked = as_prompts(prompts)
    texts = [prompt.text for prompt in asked]
    for text in texts:
        if texts.count(text) > 1:
            raise DivlensError(f"expected different prompts, got {text!r} {texts.count(text)} times")
    return asked


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in order; UTF-8, blank lines are skipped.

    JSONL when the file is called .jsonl, .ndjson or .json, or its first line begins with `{`; else text lines, where
    `#` at the start of a line makes it a comment. Raises DivlensError, naming the line, for a missing or empty file,
    bad JSON, an empty prompt or a repeated one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DivlensError(f"prompt file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DivlensError(f"cannot read the prompt file {path}: {error}") from None
    return parse_prompts(text, str(path))


def parse_prompts(text: str, name: str) -> tuple[Prompt, ...]:
    """The prompts of a file's content; `name` is the file's, for messages and for the kind of file."""
    # Not splitlines(): it also breaks at characters that may stand inside a JSON text, which would shift the numbers.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    structured = Path(name).suffix.lower() in STRUCTURED or (lines[:1] and lines[0][1].startswith("{"))
    found: dict[str, int] = {}
    prompts: list[Prompt] = []
    for number, line in lines:
        if not structured and line.startswith("#"):
            continue
        place = f"{name}, line {number}"
        prompt = parse_record(line, place) if structured else Prompt(line)
        if prompt.text in found:
            raise DivlensError(f"{place}: the prompt {prompt.text!r} is already on line {found[prompt.text]}")
        found[prompt.text] = number
        prompts.append(prompt)
    if not prompts:
        raise DivlensError(f"expected at least one prompt in {name}, found none")
    return tuple(prompts)


def parse_record(line: str, place: str) -> Prompt:
    """One line of JSONL to a prompt. Raises DivlensError, beginning with `place`."""
    try:
        record = json.loads(line, object_pairs_hook=without_repeats)
        line.encode()
        json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate, "\ud800", is JSON but no text
    except json.JSONDecodeError as error:
        raise DivlensError(f"{place}: expected one JSON object a line, got bad JSON ({error.msg})") from None
    except RecursionError:
        raise DivlensError(f"{place}: expected one JSON object a line, got brackets nested too deeply") from None
    except UnicodeEncodeError:
        raise DivlensError(f"{place}: expected Unicode text, got half of a surrogate pair") from None
    except KeyError as error:
        raise DivlensError(f"{place}: expected every name once, got {error} twice") from None
    except ValueError:  # Python's reader gives up on them
        raise DivlensError(f"{place}: expected one JSON object a line, got a number of too many digits") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise DivlensError(f'{place}: expected an object with a text "prompt", got {line[:60]}')
    if unknown := set(record) - FIELDS:
        raise DivlensError(f"{place}: expected only {', '.join(sorted(FIELDS))}, got {', '.join(sorted(unknown))}")
    paraphrases, concept = record.get("paraphrases", []), record.get("concept")
    if not (isinstance(paraphrases, list) and all(isinstance(item, str) and item.strip() for item in paraphrases)):
        raise DivlensError(f'{place}: expected "paraphrases" to be a list of non-empty texts, got {paraphrases!r}')
    for name in ("concept", "category"):
        if not isinstance(record.get(name), str | None):
            raise DivlensError(f'{place}: expected "{name}" to be a text, got {record[name]!r}')
    if not record["prompt"].strip():
        raise DivlensError(f"{place}: the prompt is empty: expected at least one word")
    return Prompt(record["prompt"].strip(), tuple(paraphrases), concept)


def without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object. Raises KeyError for a name that comes twice: one of its values would be lost without a word."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found
