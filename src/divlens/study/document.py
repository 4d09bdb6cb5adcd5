"""A YAML file of which every value knows where it stands, so that what is refused is named with its line."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from divlens.errors import DivlensError, is_number, is_whole

TAG = "tag:yaml.org,2002:"  # of YAML's own kinds of values


@dataclass(frozen=True)
class Item:
    """A value of a file: its node, and what it is called in messages. Every method raises DivlensError, with the line,
    for a value of another kind."""

    node: yaml.Node
    file: str
    name: str

    @property
    def line(self) -> int:
        return self.node.start_mark.line + 1

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"

    @property
    def written(self) -> str:
        """What stands there, for a message."""
        if isinstance(self.node, yaml.MappingNode):
            return "fields"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        if self.node.tag == f"{TAG}null":
            return "nothing"
        return f"the text {self.node.value!r:.80}" if self.node.tag == f"{TAG}str" else f"{self.node.value:.80}"

    def refusal(self, expected: str) -> DivlensError:
        return DivlensError(f"{self.place}: {self.name} expects {expected}, got {self.written}")

    def scalar(self) -> Any:
        """A number, text, truth value or nothing; None for all else."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag not in [
            TAG + kind for kind in ("str", "int", "float", "bool")
        ]:
            return None
        try:
            return yaml.SafeLoader("").construct_object(self.node)
        except (ValueError, KeyError, IndexError):  # `!!int eight`
            return None

    def whole(self, least: int) -> int:
        value = self.scalar()
        if not is_whole(value) or value < least:
            raise self.refusal(f"a whole number of at least {least}")
        return value

    def number_between(self, low: float, high: float) -> float:
        """Ends excluded."""
        value = self.scalar()
        if not is_number(value) or not low < value < high:
            raise self.refusal(f"a number between {low:g} and {high:g}")
        return float(value)

    def truth(self) -> bool:
        value = self.scalar()
        if not isinstance(value, bool):
            raise self.refusal("true or false")
        return value

    def text(self) -> str:
        value = self.scalar()
        if not isinstance(value, str) or not value.strip():
            other_kind = value is not None and not isinstance(value, str)
            raise self.refusal("a text (in quotes, for without them it is none)" if other_kind else "a text")
        return value.strip()

    def one_of(self, known: Collection[str]) -> Any:
        value = self.scalar()
        if value not in known:
            raise self.refusal(f"one of {', '.join(known)}")
        return value

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def has_fields(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def items(self, of: str) -> list[Item]:
        """The values of a list that is not empty. `of`: what they are, in a word."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise self.refusal(f"a list of {of}, not empty")
        return [Item(node, self.file, f"a value of {self.name}") for node in self.node.value]

    def different_texts(self, of: str) -> list[tuple[Item, str]]:
        """The texts of a list, each with the value it is; none comes twice."""
        found: dict[str, Item] = {}
        for item in self.items(of):
            text = item.text()
            if text in found:
                raise DivlensError(f"{item.place}: {text!r:.80} is already on line {found[text].line}")
            found[text] = item
        return [(item, text) for text, item in found.items()]

    def named_items(self, of: str) -> dict[str, tuple[Item, Item]]:
        """The values of fields of any names, each with the value that is its name; no name comes twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.refusal(f"{of}, a `name: value` each")
        found: dict[str, tuple[Item, Item]] = {}
        for key, node in self.node.value:
            name = Item(key, self.file, "the name of a field")
            text = name.text()
            if text in found:
                raise DivlensError(f"{name.place}: the field {text!r:.80} is already on line {found[text][0].line}")
            found[text] = name, Item(node, self.file, text)
        return found

    def fields(self, known: Collection[str]) -> dict[str, Item]:
        """The values of fields whose names are known."""
        found = self.named_items("fields")
        for text, (name, _) in found.items():
            if text not in known:
                close = difflib.get_close_matches(text, known, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise DivlensError(f"{name.place}: no field is called {text!r:.80}; {hint}known: {', '.join(known)}")
        return {text: item for text, (_, item) in found.items()}

    @contextmanager
    def named_in_refusals(self) -> Iterator[None]:
        """What the block refuses is refused with the line of this value."""
        try:
            yield
        except DivlensError as error:
            raise DivlensError(f"{self.place}: {error}") from None


def document_in(path: Path, kind: str) -> Item:
    """The value that a file is; UTF-8. Raises DivlensError, with the line where there is one, for a file that cannot be
    read, is empty, or is no YAML. `kind`: what the file is, for messages."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DivlensError(f"{kind} not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DivlensError(f"cannot read the {kind} {path}: {error}") from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = error.problem or error.context or "it cannot be read"
        raise DivlensError(f"{path}{line}: expected YAML: {problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise DivlensError(f"{path}: expected YAML: {problem:.200}") from None
    if node is None:
        raise DivlensError(f"{path}: the {kind} is empty: expected fields, a `name: value` each")
    return Item(node, str(path), kind)
