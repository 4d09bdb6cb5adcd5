"""Where wordings come from. A source is asked for one prompt at a time; whatever it answers is checked by `asking`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from divlens.errors import DivlensError
from divlens.models.failures import one_line
from divlens.prompts import read_prompts

ASKED = (
    "Rewrite the description of a picture below in {count} other wordings, from short to long. Each names the same "
    "things, numbers, colours and places, keeps every negation, adds nothing and leaves nothing out. Answer with one "
    "wording a line and nothing else.\n\n{text}"
)
MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s+")  # of a list
QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb "
NEW_TOKENS = 60  # of a wording, on average


class SourceError(DivlensError):
    """A source cannot answer: one line that says why. What it answered before is kept."""


@runtime_checkable
class Source(Protocol):
    """`identity`: all that its answers depend on, as plain values without a secret. `remembered`: whether its answers
    are worth keeping."""

    @property
    def identity(self) -> Mapping[str, object]: ...
    @property
    def remembered(self) -> bool: ...

    def wordings(self, text: str, count: int) -> Sequence[str]:
        """Up to `count` other wordings of a text. Raises SourceError where it cannot answer."""
        ...


def lines_of(answer: str) -> list[str]:
    """The wordings in what a language model answers: its lines, without marks of a list and quotes around them."""
    return [line for line in (MARK.sub("", line).strip(QUOTES) for line in answer.splitlines()) if line]


@dataclass(frozen=True)
class FromFile:
    """The user's file: JSONL with `prompt` and `paraphrases`. Raises DivlensError when it is read and is none."""

    path: Path
    remembered = False

    @property
    def identity(self) -> Mapping[str, object]:
        return {"source": "file", "path": str(self.path)}

    def wordings(self, text: str, count: int) -> Sequence[str]:
        return next((one.paraphrases[:count] for one in read_prompts(self.path) if one.text == text), ())


@dataclass(frozen=True)
class LocalModel:
    """A causal language model of transformers, in a folder or on the model hub; loaded when it is first asked.

    Its answer is the most probable one, so it is the same each time."""

    place: str
    device: str = "cpu"
    remembered = True

    @property
    def identity(self) -> Mapping[str, object]:
        return {"source": "transformers", "place": self.place}

    def wordings(self, text: str, count: int) -> Sequence[str]:
        try:
            with one_line(f"expected a language model of transformers at {self.place}"):
                tokenizer, network = language_model(self.place, self.device)
                return lines_of(answered(tokenizer, network, ASKED.format(count=count, text=text), NEW_TOKENS * count))
        except DivlensError as error:
            raise SourceError(str(error)) from error


@cache
def language_model(place: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(place)
    network = network.to(device).eval()
    return AutoTokenizer.from_pretrained(place), network


def answered(tokenizer: Any, network: Any, question: str, new_tokens: int) -> str:
    """What a language model answers, as a turn of a chat where it knows chats."""
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": question}]
        question = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    read = tokenizer(question, return_tensors="pt", add_special_tokens=not tokenizer.chat_template).to(network.device)
    inputs = {name: read[name] for name in ("input_ids", "attention_mask")}
    out = network.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
