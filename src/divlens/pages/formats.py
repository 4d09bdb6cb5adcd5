"""A summary as Markdown, CSV, JSON or LaTeX. Text of any origin stays text in each of them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict

from divlens.pages.summary import Summary
from divlens.pages.texts import file_name, shown
from divlens.showing import Block, visible

COLUMNS = ("command", "model", "condition", "figure", "value", "low", "high")
MEANT = r"\`*_|<>#~"  # characters that Markdown takes for something else
LATEX = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
}


def markdown(summary: Summary) -> str:
    parts = [f"# {in_markdown(summary.name)}", *map(in_markdown, summary.missing)]
    parts += map(block_in_markdown, summary.blocks)
    parts += ["## Methods", in_markdown(summary.methods)]
    if summary.notes:
        parts += ["## How to read the figures", "\n".join(f"- {in_markdown(note)}" for note in summary.notes)]
    return "\n\n".join(parts) + "\n"


def block_in_markdown(block: Block) -> str:
    rows = [block.headings, *block.rows]
    cells = [f"| {' | '.join(map(in_markdown, row))} |" for row in rows]
    rule = f"|{'|'.join([' :-- ', *[' --: '] * (len(block.headings) - 1)])}|"
    lines = [f"- {in_markdown(line)}" for line in (*block.warnings, *block.lines)]
    table = "\n".join([cells[0], rule, *cells[1:]])
    return "\n\n".join(filter(None, (f"### {in_markdown(block.title)}", table, "\n".join(lines))))


def in_markdown(text: str) -> str:
    escaped = re.sub(f"[{re.escape(MEANT)}]", r"\\\g<0>", visible(text))
    return escaped.replace("](", "]\\(")  # no link


def comma_separated(summary: Summary) -> str:
    """A row for each number: command, model, condition, figure, value, low, high; empty where there is none."""
    written = io.StringIO()
    writer = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(shown(list(summary.figures)))
    return written.getvalue()


def as_json(summary: Summary) -> str:
    return json.dumps(shown(asdict(summary)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def latex(summary: Summary) -> str:
    r"""Tables for booktabs, a label each, and the methods as a paragraph: to be read with \input."""
    label = file_name(summary.name)
    tables = [block_in_latex(block, f"tab:{label}-{place}") for place, block in enumerate(summary.blocks)]
    head = r"% Written by divlens. Needs \usepackage{booktabs} and, for symbols in text, \usepackage[T1]{fontenc}."
    return "\n\n".join([head, *tables, f"\\paragraph{{Methods.}} {in_latex(summary.methods)}"]) + "\n"


def block_in_latex(block: Block, label: str) -> str:
    # Braces around the first cell: a bracket after the end of a row would be read as its argument.
    rows = ["{" + " & ".join((in_latex(first) + "}", *map(in_latex, rest))) + r" \\" for first, *rest in block.rows]
    head = " & ".join(map(in_latex, block.headings)) + r" \\"
    note = " ".join(map(in_latex, (*block.warnings, *block.lines)))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{in_latex(block.title)}. Brackets are 95\\% intervals. {note}}}".replace(" }", "}"),
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(block.headings) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"),
        ]
    )


def in_latex(text: str) -> str:
    """Escaped; a minus before a number is one."""
    escaped = "".join(LATEX.get(each, each) for each in visible(text))
    return re.sub(r"(?<![\w.)\]-])-(?=\.?\d)", "$-$", escaped)


FORMATS: Mapping[str, Callable[[Summary], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": as_json,
    "latex": latex,
}
SUFFIXES = {"html": ".html", "md": ".md", "csv": ".csv", "json": ".json", "latex": ".tex"}
