"""How a result shows itself: as tables that fit a terminal of 80 columns, with notes below them, wherever it is shown.

A line of text is the `repr` of a result. `print`, a notebook and the command line show the same tables and notes.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from divlens.statistics import Interval

# Characters that a terminal obeys or that hide what is there: controls, line separators, marks that turn the direction
# of writing around; and halves of surrogate pairs, which cannot be written.
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
WIDTH = 80
MOST_ROWS = 60  # of a table that is shown
UNKNOWN = "n/a"


@dataclass(frozen=True)
class Block:
    """A table as it is read: every cell is text, a number with its interval. `warnings` and `lines` stand right below
    it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    warnings: Sequence[str] = ()
    lines: Sequence[str] = ()

    @property
    def shown_rows(self) -> list[Sequence[str]]:
        """The first and the last rows of a table that has more than MOST_ROWS."""
        if len(self.rows) <= MOST_ROWS:
            return list(self.rows)
        half = MOST_ROWS // 2
        return [*self.rows[:half], ["..."] * len(self.headings), *self.rows[-half:]]


class Shown(ABC):
    """What shows a result needs to say: `headline` in a line, `blocks`, and the `notes` below them."""

    @property
    @abstractmethod
    def headline(self) -> str: ...

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Block]: ...

    @property
    @abstractmethod
    def notes(self) -> Sequence[str]:
        """What a reader must know of the numbers, and why some are missing: a sentence or more each."""

    def __repr__(self) -> str:
        return f"<{visible(self.headline)}>"

    def __str__(self) -> str:
        from rich.console import Console

        written = io.StringIO()
        # Plain text wherever this is, also in a notebook and where colours are forced.
        plain = {"force_terminal": False, "force_jupyter": False, "color_system": None}
        Console(file=written, width=WIDTH, **plain).print(together([self]))
        return f"{visible(self.headline)}\n\n{written.getvalue().rstrip()}"

    def __rich__(self) -> Group:
        return together([self])

    def _repr_html_(self) -> str:
        title, tables = in_html(self.headline), "".join(map(block_html, self.blocks))
        return f"<p><b>{title}</b></p>{tables}{paragraphs(self.notes)}"


def together(results: Sequence[Shown]) -> Group:
    """For rich: the tables of several results, then their notes, each once."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for block in (block for result in results for block in result.blocks):
        parts.append(fitted(block.title, block.headings, block.shown_rows))
        parts += [Text(wrapped(warning), style="bold") for warning in block.warnings]
        parts += [Text(wrapped(line)) for line in block.lines]
        parts.append(Text())
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return Group(*parts, Text("\n".join(map(wrapped, notes)), style="dim")) if notes else Group(*parts[:-1])


def wrapped(text: str) -> str:
    """Lines of at most 80 columns, and as much more as escaped characters need."""
    return "\n".join(map(visible, textwrap.wrap(text, WIDTH)))


def fitted(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with as much space between its columns as 80 columns allow; numbers are folded rather than cut.

    All text is put in as it is: a string would be read as markup, and a folder or a condition may be called "[best]".
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    for gap in (2, 1):
        table = Table(
            title=Text(visible(title)) if title else None,
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, gap, 0, 0),
            pad_edge=False,
        )
        for index, heading in enumerate(headings):
            table.add_column(Text(visible(heading)), justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        if Measurement.get(Console(width=1000), Console().options.update(width=1000), table).maximum <= WIDTH:
            break
    return table


def block_html(block: Block) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{in_html(cell)}</{tag}>' for cell in cells)}</tr>"

    table = f"<thead>{row(block.headings, 'th')}</thead>{''.join(row(cells, 'td') for cells in block.shown_rows)}"
    title = f"<caption><b>{in_html(block.title)}</b></caption>" if block.title else ""
    warned = "".join(f"<p><b>{in_html(warning)}</b></p>" for warning in block.warnings)
    return f"<table>{title}{table}</table>{warned}{paragraphs(block.lines)}"


def paragraphs(lines: Sequence[str]) -> str:
    return f"<p>{'<br>'.join(map(in_html, lines))}</p>" if lines else ""


def in_html(text: str) -> str:
    return html.escape(visible(text))


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and whether there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def first_of(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, name: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def interval_text(interval: Interval, form: str = ".3f", scale: float = 1.0) -> str:
    """`.215 [.198, .231]`; the mean alone where no interval is known; `n/a` where there is no mean. `scale`: 100 for
    percent."""
    value, low, high = (scale * part for part in (interval.value, interval.low, interval.high))
    if math.isnan(value):
        return UNKNOWN
    if math.isnan(low) or math.isnan(high):
        return number_text(value, form)
    return f"{number_text(value, form)} [{number_text(low, form)}, {number_text(high, form)}]"


def number_text(value: float, form: str) -> str:
    """A number without the zero before the point (three of them a cell would not fit), and never "-0"."""
    text = f"{value:{form}}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def missing_intervals(prompts: int) -> Iterator[str]:
    if prompts < 2:
        yield "No intervals: they need at least 2 prompts."


def visible(text: str) -> str:
    """One line of text, as it is but for harmful characters, which are written as Python writes them: `\\x1b`."""
    return HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
