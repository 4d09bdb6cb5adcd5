"""Draws docs/data_flow.svg, the chart of ARCHITECTURE.md: `python docs/data_flow.py`.

A picture, and no chart in Markdown: a page of the site would ask another host for the script that draws one.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

TARGET = Path(__file__).with_suffix(".svg")
ACROSS, DOWN, WIDTH, HEIGHT, EDGE = 172, 104, 160, 50, 12
# Name: its place across and down, and what it is.
BOXES = {
    "prompts": (0.6, 0, "with other wordings"),
    "conditions": (1.6, 0, "interventions by name"),
    "models": (2.6, 0, "what is drawn from"),
    "calibration": (3.6, 0, "code frequencies"),
    "planning": (2.3, 1, "a request becomes a run"),
    "noise": (3.6, 1, "path and execution"),
    "run.fill": (2.3, 2, "the loop, batch by batch"),
    "diversity": (0, 2, "LPIPS as a variance"),
    "fidelity": (1, 2, "the judge"),
    "store": (4.7, 3, "the folder of a run"),
    "experiment": (0.5, 4, "models under conditions"),
    "decompose": (1.7, 4, "crossed design"),
    "information": (2.9, 4, "exact entropies"),
    "sample": (4.05, 4, "pictures and a trace"),
    "probe": (0, 5, "what is left"),
    "enhance": (1.1, 5, "before and after"),
    "verdict": (0, 6, "contrasts, strategies"),
    "doses": (1, 6, "what each dose leaves"),
    "frontier": (2, 6, "methods, guidance"),
    "results": (3.2, 6, "blocks, notes, request"),
    "showing": (2.7, 7, "print, notebook, shell"),
    "output": (3.7, 7, "folders of tables"),
    "pages": (4.7, 7, "the report"),
}
# From where, to where, and what goes there.
ARROWS = [
    ("prompts", "planning", ""),
    ("conditions", "planning", "Settings"),
    ("models", "planning", ""),
    ("calibration", "planning", ""),
    ("planning", "run.fill", "Run"),
    ("noise", "run.fill", ""),
    ("run.fill", "experiment", ""),
    ("run.fill", "decompose", "pictures"),
    ("run.fill", "information", "every step"),
    ("run.fill", "sample", ""),
    ("run.fill", "store", "tokens"),
    ("store", "experiment", ""),
    ("store", "decompose", ""),
    ("store", "information", "tokens that are there"),
    ("store", "pages", "tokens, tables"),
    ("diversity", "experiment", ""),
    ("diversity", "decompose", ""),
    ("fidelity", "experiment", ""),
    ("fidelity", "information", ""),
    ("experiment", "probe", ""),
    ("experiment", "enhance", ""),
    ("probe", "verdict", ""),
    ("probe", "doses", "figures of every prompt"),
    ("probe", "frontier", ""),
    ("probe", "results", ""),
    ("enhance", "results", ""),
    ("decompose", "results", ""),
    ("information", "results", ""),
    ("sample", "results", ""),
    ("results", "showing", ""),
    ("results", "output", ""),
]
STYLE = """
  text { font: 12px system-ui, sans-serif; text-anchor: middle; fill: #44474d; }
  .name { font-weight: 600; font-size: 14px; fill: #1b1c1f; }
  .label { font-size: 11px; fill: #0b5fa5; paint-order: stroke; stroke: #fff; stroke-width: 4px; }
  .box { fill: #f4f1ea; stroke: #b9b4a8; }
  .arrow { fill: none; stroke: #7b7f86; stroke-width: 1.2; marker-end: url(#head); }
"""


def place(name: str) -> tuple[float, float]:
    """The left upper corner of a box."""
    across, down, _ = BOXES[name]
    return EDGE + ACROSS * across, EDGE + DOWN * down


def arrow(start: str, end: str, label: str) -> tuple[str, str]:
    """A curve from the lower side of a box to the upper side of another, and what is written on it."""
    (left, top), (to_left, to_top) = place(start), place(end)
    x, y, to_x, to_y = left + WIDTH / 2, top + HEIGHT, to_left + WIDTH / 2, to_top - 5
    bend = min((to_y - y) / 2, DOWN)
    line = f'<path class="arrow" d="M{x:g} {y:g}C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}"/>'
    middle = f'x="{(x + to_x) / 2:g}" y="{(y + to_y) / 2 + 4:g}"'
    return line, f'<text class="label" {middle}>{escape(label)}</text>' if label else ""


def box(name: str) -> str:
    (x, y), said = place(name), BOXES[name][2]
    return (
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="name" x="{x + WIDTH / 2:g}" y="{y + 21:g}">{escape(name)}</text>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + 39:g}">{escape(said)}</text>'
    )


def chart() -> str:
    right, below = (max(place(name)[axis] for name in BOXES) for axis in (0, 1))
    size = f"{right + WIDTH + EDGE:g} {below + HEIGHT + EDGE:g}"
    lines, labels = zip(*(arrow(*each) for each in ARROWS), strict=True)
    head = '<marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">',
        "<title>The data flow of divlens</title>",
        f"<style>{STYLE}</style>",
        f'<defs>{head}<path d="M0 0L8 4L0 8z" fill="#7b7f86"/></marker></defs>',
        '<rect width="100%" height="100%" rx="10" fill="#fff"/>',
        *lines,
        *map(box, BOXES),
        *filter(None, labels),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(chart(), encoding="utf-8")
