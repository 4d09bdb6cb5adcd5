"""Tables that fit an 80-column terminal. Every mean has its interval, or a note says why not."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from divlens.experiment.measures import COVERAGE, FIDELITY
from divlens.paraphrase.notes import wording_lines
from divlens.report.notes import (
    UNKNOWN,
    UNSEEN,
    WIDTH,
    below,
    fall_text,
    interval_text,
    judged_note,
    probe_falls,
    unread,
    warnings,
)
from divlens.showing import counted

if TYPE_CHECKING:
    import pandas as pd

    from divlens.decompose import Decomposition
    from divlens.enhance import Enhanced
    from divlens.experiment.probe import ProbeResult
    from divlens.information import Information


def cell(row: Mapping[str, Any], name: str, *, percent: bool, signed: bool = False) -> str:
    """The mean and interval of a figure in a row; shares as percentages."""
    scale = 100 if percent else 1
    form = ("+" if signed else "") + (".0f" if percent else ".3f")
    value, low, high = (scale * float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return interval_text(value, low, high, form)


def fitted(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with as much space between its columns as 80 columns allow; numbers are folded rather than cut.

    All text is put in as it is: a string would be read as markup, and a folder or a condition may be called "[best]".
    """
    for gap in (2, 1):
        table = Table(
            title=Text(title),
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, gap, 0, 0),
            pad_edge=False,
        )
        for index, heading in enumerate(headings):
            table.add_column(Text(heading), justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        if Measurement.get(Console(width=1000), Console().options.update(width=1000), table).maximum <= WIDTH:
            break
    return table


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows, by column name."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def probe_tables(result: ProbeResult) -> Group:
    """One block per model: diversity, its change against baseline in percent, styles, fidelity, duplicates; and a
    warning where fidelity fell."""
    blocks: list[Table | Text] = []
    first, *others = result.measures
    for model, rows in result.table.groupby("model", sort=False):
        found = records(rows)
        texts = [
            (
                str(row["condition"]),
                cell(row, first.name, percent=first.is_share),
                "-" if row["condition"] == "baseline" else cell(row, "relative_change", percent=True, signed=True),
                *(cell(row, measure.name, percent=measure.is_share) for measure in others),
                str(row["duplicates"]),
            )
            for row in found
        ]
        headings = ("condition", first.heading, "change %", *(measure.heading for measure in others), "dup")
        blocks += [fitted(str(model), headings, texts), *warnings(probe_falls(found)), Text()]
    return Group(*blocks, below(probe_notes(result)))


def probe_notes(result: ProbeResult) -> list[str]:
    """What the numbers are, and why some are missing."""
    table = result.table
    first = records(table)[0]
    prompts, n = first["prompts"], first["n"]
    lines = [
        f"Means over {counted(prompts, 'prompt')}, {counted(n, 'sample')} each; [95% interval].",
        "change: against baseline, paired by prompt, same noise. "
        + "".join(f"{measure.title or measure.name}: {measure.note}. " for measure in result.measures if measure.note)
        + "dup: samples whose token grid another of the prompt has.",
        f"LPIPS diversity that one grey level of noise makes: {table['noise_floor'].max():.1g} at most.",
    ]
    if n < 2:
        lines.append("n/a: LPIPS diversity is undefined (NaN) for fewer than 2 samples.")
    elif any(math.isnan(change) for change in table["relative_change"]):
        lines.append("n/a: no change in percent where baseline has no diversity.")
    if prompts < 2:
        lines.append("No intervals: they need at least 2 prompts.")
    known = [count for count in table["fidelity_prompts"] if count > 0]
    if len(known) < len(table):
        lines.append(UNSEEN)
    lines += judged_note(min(known, default=0), prompts)
    return lines + wording_lines(result.templated, prompts, unread(result.samples))


def enhance_table(result: Enhanced) -> Group:
    """Before and after, the paired change, and a warning where fidelity fell."""
    sides = ("before", "after", "change")
    figures = records(result.table)
    texts = [
        (
            measure.heading,
            *(cell(row, side, percent=measure.is_share, signed=side == "change") for side in sides),
        )
        for measure, row in zip(result.measures, figures, strict=True)
    ]
    prompts, n = len(result.before.prompts), result.before.n
    lines = [
        f"Means over {counted(prompts, 'prompt')}, {counted(n, 'sample')} each, same noise before and after; [95% "
        "interval over prompts]. change: after - before, paired by prompt.",
    ]
    if result.note:
        lines.append(result.note)
    if n < 2:
        lines.append("n/a: LPIPS diversity is undefined (NaN) for fewer than 2 samples.")
    known = min(row["prompts"] for row in figures if row["figure"] in (COVERAGE, FIDELITY))
    lines += judged_note(known, prompts) if known else [UNSEEN]
    notes = unread(result.before.result.samples, result.after.result.samples)
    lines += wording_lines(result.templated, prompts, notes)
    fall = result.fidelity_change
    warned = warnings([fall_text(fall, n)] if fall.fell else [])
    return Group(fitted(result.model, ("", *sides), texts), *warned, Text(), below(lines))


def decomposition_table(result: Decomposition) -> Group:
    """A row per source of diversity, and the total."""
    rows = [(source, result.component(source), result.share(source)) for source in result.sources]
    texts = [
        (
            source,
            interval_text(part.value, part.low, part.high, ".4f"),
            interval_text(100 * share.value, 100 * share.low, 100 * share.high, ".1f"),
        )
        for source, part, share in rows
    ]
    total = result.total
    whole = UNKNOWN if math.isnan(rows[0][2].value) else "100"
    texts.append(("total", interval_text(total.value, total.low, total.high, ".4f"), whole))
    named = zip(result.levels._fields, result.levels, strict=True)
    levels = " x ".join(counted(count, name.removesuffix("s")) for name, count in named)
    lines = [
        f"Means over {counted(len(result.prompts), 'prompt')}, {levels}; [95% interval over prompts]. total: "
        f"{result.distance} of two pictures that differ in wording, path and execution noise. The rows that hold a "
        f"factor add up to the {result.distance} of two pictures that differ in that factor only."
    ]
    if result.sources[0] == "wording.meaning":
        lines.append(
            "wording.length: what filling a wording up with neutral words to the same length changes; "
            "wording.meaning: the rest of its effect. Each may be below 0."
        )
    table = fitted(" ".join((result.model, *result.interventions)), ("source", result.distance, "share %"), texts)
    return Group(table, Text(), below([*lines, result.note]))


INFORMATION_ROWS = {
    "path": "path H(P||Z|X)",
    "execution": "execution H(Z||P|X)",
    "joint": "joint, sum of both",
    "schedule_path": "path, schedule",
    "schedule_execution": "execution, schedule",
    "trajectory_path": "path, trajectory",
    "trajectory_execution": "execution, trajectory",
    "conditional_lower": "H(Z|X) at least",
    "conditional_upper": "H(Z|X) at most",
    "token_plug_in": "H(Z) tokens, plug-in",
    "token_miller_madow": "H(Z) tokens, Miller-Madow",
    "token_chao_shen": "H(Z) tokens, Chao-Shen",
    "sequence_lower": "H(Z) images at least",
    "sequence_upper": "H(Z) images at most",
    "mutual_lower": "I(X;Z) at least",
    "mutual_upper": "I(X;Z) at most",
    "ceiling": "I(X;Z) ceiling",
    "relevant": "I(Z;Y) at least",
}


def information_tables(results: Sequence[Information]) -> Group:
    """One block per model: bits per image with interval and Monte-Carlo error, and bits per token."""
    blocks: list[Table | Text] = []
    reasons: dict[str, None] = {}
    for result in results:
        texts = []
        for name, label in INFORMATION_ROWS.items():
            found = result.estimates[name]
            if name.startswith(("schedule_", "trajectory_")) and found == result.estimates[name.split("_", 1)[1]]:
                continue  # the reading that is shown above, or a rule that has one only
            error = UNKNOWN if math.isnan(found.mc_error) else f"{found.mc_error:.2g}" if found.mc_error > 1e-9 else "0"
            value, low, high = found.value, found.over_prompts.low, found.over_prompts.high
            image = interval_text(value, low, high, ".2f")
            value, low, high = (part / result.positions for part in (value, low, high))
            token = interval_text(value, low, high, ".3f")
            texts.append((label, image, error, token))
            if math.isnan(found.value):
                reasons[f"{label}: {found.note or 'undefined'}"] = None
        title = " ".join((result.model, *result.interventions))
        table = fitted(title, ("", "bits per image", "MC error", "bits per token"), texts)
        blocks += [table, Text(information_extras(result)), Text()]
        reasons |= dict.fromkeys(result.notes)
    first = results[0]
    if len(first.prompts) < 2:
        reasons["No intervals: they need at least 2 prompts"] = None
    if first.n < 2:
        reasons["MC error n/a: it needs at least 2 samples per prompt"] = None
    lines = [
        f"{counted(len(first.prompts), 'prompt')}, {counted(first.n, 'sample')} each; [95% interval over prompts]; "
        "MC error: standard error for exactly these prompts. path and execution are causal and add up to the joint; "
        "the marginal H(P|X) is between path and joint, H(Z|P,X) at most execution, H(Z|X) between its two rows. See "
        f"docs/theory.md. What is called the path of a diffusion: the {first.reading}.",
        ". ".join(reasons),
    ]
    templates = dict.fromkeys(text for result in results for text in result.templated)
    notes: dict[str, dict[str, str]] = {}
    for result in results:
        notes.setdefault(result.model, {}).update(result.wording_notes)
    return Group(*blocks, below([*lines, *wording_lines(tuple(templates), len(first.prompts), notes)]))


def information_extras(result: Information) -> str:
    """The point of the bottleneck plane, how the codebook is used, and how tight the bounds on H(Z|X) are."""

    def bits(value: float) -> str:
        return interval_text(value, math.nan, math.nan, ".2f")

    known, relevant = map(bits, result.plane)
    lines = [
        f"plane (I(X;Z), I(Z;Y)), both at least: ({known}, {relevant}) bits",
        f"codes that came out: {100 * result.usage:.0f}%, perplexity {result.perplexity:.0f} of {result.codes}",
    ]
    if result.tightness:
        bounds = ", ".join(f"{t.paths}: {bits(t.lower)} to {bits(t.upper)}" for t in result.tightness)
        lines.append(f"H(Z|X) by the number of paths weighed: {bounds}")
    return "\n".join(line for long in lines for line in textwrap.wrap(long, WIDTH))
