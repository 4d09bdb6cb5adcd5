"""How a result shows itself: a line as its `repr`, its table and notes when it is printed and in a notebook."""

from __future__ import annotations

import html
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Characters that a terminal obeys or that hide what is there: controls, line separators, marks that turn the direction
# of writing around; and halves of surrogate pairs, which cannot be written.
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ROWS, WIDTH = 60, 60  # of a table that is shown: its rows, and the characters of a cell


class Shown(ABC):
    """What shows a result needs to say: `headline` in a line, `shown_table`, and `shown_notes` below it."""

    @property
    @abstractmethod
    def headline(self) -> str: ...

    @abstractmethod
    def shown_table(self) -> pd.DataFrame: ...

    @abstractmethod
    def shown_notes(self) -> Sequence[str]: ...

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def __str__(self) -> str:
        table = self.shown_table().to_string(index=False, max_rows=ROWS, max_colwidth=WIDTH, na_rep="NaN")
        return "\n".join((self.headline, table, *self.shown_notes()))

    def _repr_html_(self) -> str:
        table = self.shown_table().to_html(index=False, max_rows=ROWS, na_rep="NaN")
        notes = "<br>".join(map(html.escape, self.shown_notes()))
        return f"<p><b>{html.escape(self.headline)}</b></p>{table}<p>{notes}</p>"


def counted(number: int, name: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {name}{'s' * (number != 1)}"


def written(value: float, low: float, high: float) -> str:
    """`0.215 [0.198, 0.231]`; the mean alone where no interval is known; `NaN` where there is no mean."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.3f}" if math.isnan(low) or math.isnan(high) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def with_intervals(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table as text, those with `_low` and `_high` as `0.215 [0.198, 0.231]`."""
    import pandas as pd

    def text(name: str) -> list[object]:
        if f"{name}_low" not in table:
            return list(table[name])
        ends = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
        return [written(*figures) for figures in ends]

    return pd.DataFrame({name: text(name) for name in columns})


def visible(text: str) -> str:
    """One line of text, as it is but for harmful characters, which are written as Python writes them: `\\x1b`."""
    return HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
