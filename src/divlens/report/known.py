"""What is known of one model before it is run: its description, and of the zoo the concepts and words that it knows."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from divlens.errors import DivlensError
from divlens.models.registry import facts_of, place_of

WIDTH, GAP = 80, 2


def described(spec: str, words: bool = False) -> str:
    """Lines of at most 80 columns on the model that `spec` names, which is not loaded. `words`: of the zoo all words
    that it knows, in place of its concepts.

    Raises DivlensError for an unknown name, for a folder without the zoo's files, and for the words of a model whose
    words are not known.
    """
    name, _, checkpoint = spec.partition(":")
    place = place_of(name)
    if place.startswith("divlens.models.zoo."):
        return zoo_described(spec, Path(checkpoint) if checkpoint else None, words)
    if words:
        raise DivlensError(f"--words expects a model of the zoo, such as zoo/ar, got {name}")
    about, facts = documentation(place).partition("\n\n")[0], facts_of(name)
    lines = (
        " ".join(f"{name}: {about or facts.about or 'nothing is said of it'}".split()),
        facts.family and f"Its family: {facts.family}.",
        facts.extra and f"It needs: pip install 'divlens[{facts.extra}]'",
        facts.checkpoint and f"With a checkpoint, for example: {name}:{facts.checkpoint}",
    )
    return "\n".join(textwrap.fill(line, WIDTH) for line in lines if line)


def zoo_described(spec: str, folder: Path | None, words: bool) -> str:
    from divlens.lab.attributes import ATTRIBUTES, CONCEPT
    from divlens.lab.captions import NAMING, vocabulary
    from divlens.models.zoo.assets import packaged_folder, read_checksums
    from divlens.models.zoo.networks import WORDS

    read_checksums(folder or packaged_folder())  # a folder of other things is refused
    concepts, known = ATTRIBUTES[CONCEPT].values, vocabulary()
    shown = known if words else concepts
    title = f"{spec} knows {len(concepts)} concepts and {len(known)} words. {'The words' if words else 'The concepts'}:"
    others = [
        f"Its {ATTRIBUTES[place].name} may be {', '.join(ATTRIBUTES[place].values)}."
        for place in NAMING
        if place != CONCEPT
    ]
    notes = (
        'A prompt names a concept and as much of the rest as it likes, such as "a small fox on a blue background" or '
        f'"fox, top left, flat style", in up to {WORDS} words; the emoji of a concept stands for its name. What it '
        "does not name is left open. Words that are not known are all read alike, and a note names them. Of such a "
        "prompt the judge knows the concept only: other words may stand before its name, and after it only such as "
        '"on", "with" or "icon".'
    )
    more = f"All concepts: divlens models {spec}" if words else f"All words: divlens models {spec} --words"
    paragraphs = [textwrap.fill(text, WIDTH) for text in (*others, notes)]
    return "\n".join((title, "", *in_columns(sorted(shown, key=str.lower)), "", *paragraphs, more))


def documentation(place: str) -> str:
    """The docstring of the module that a factory lives in, read from its source: importing it may need a package that
    is not installed."""
    module = place.partition(":")[0]
    if module in sys.modules:
        return sys.modules[module].__doc__ or ""
    try:
        found = find_spec(module)
        source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
        return ast.get_docstring(ast.parse(source)) or ""
    except (ImportError, OSError, SyntaxError, ValueError):
        return ""


def in_columns(texts: Sequence[str], width: int = WIDTH) -> list[str]:
    """Texts in order down the columns, as many as fit the width."""
    for count in range(len(texts), 0, -1):
        rows = -(-len(texts) // count)
        columns = [texts[first : first + rows] for first in range(0, len(texts), rows)]
        widths = [max(map(len, column)) for column in columns]
        if sum(widths) + GAP * (len(widths) - 1) <= width or count == 1:
            break
    padded = [[f"{text:{size}}" for text in column] for column, size in zip(columns, widths, strict=True)]
    return [(" " * GAP).join(column[row] for column in padded if row < len(column)).rstrip() for row in range(rows)]
