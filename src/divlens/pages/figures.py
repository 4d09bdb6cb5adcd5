"""The figures of single prompts and of whole commands, as rows for charts and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divlens.doses.result import Curve
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, FIDELITY, OPENNESS
from divlens.pages.gallery import UNKNOWN, Gallery, Row, reference_of
from divlens.pages.verdicts import number, percent
from divlens.plots.rows import PARETO, kind_of, of_guidance, scales_of, series_of

if TYPE_CHECKING:
    import pandas as pd

BRACKETS = {  # what is known from below and above only; other quantities are one value
    "H(Z|X), what a prompt leaves open": ("conditional_lower", "conditional_upper"),
    "H(Z), all images": ("sequence_lower", "sequence_upper"),
    "I(X;Z), what an image tells of its prompt": ("mutual_lower", "mutual_upper"),
}
SINGLE = {"path H(P||Z|X)": "path", "execution H(Z||P|X)": "execution"}


def prompt_rows(per_prompt: pd.DataFrame | None, gallery: Gallery) -> list[dict[str, Any]]:
    """A row for each model, condition and prompt: LPIPS diversity at baseline and under the condition, and the change,
    each with its interval for this very prompt where all of its samples are in the gallery; fidelity and openness on
    both sides. `row` and `before`: places in the gallery, None where the pictures are not there."""
    if per_prompt is None:
        return []
    where = {(row.model, row.condition, row.prompt): place for place, row in enumerate(gallery.rows)}
    records = {(one["model"], one["condition"], one["prompt"]): one for one in per_prompt.to_dict("records")}
    first = reference_of([condition for _, condition, _ in records])
    rows = []
    for (model, condition, prompt), after in records.items():
        before = records.get((model, first, prompt))
        if condition == first or before is None:
            continue
        places = where.get((model, first, prompt)), where.get((model, condition, prompt))
        sides = [gallery.rows[place] if place is not None and gallery.is_whole else None for place in places]
        values = number(before[DIVERSITY]), number(after[DIVERSITY])
        change = None if None in values else values[1] - values[0]  # type: ignore[operator]
        rows.append(
            {
                **{"model": model, "condition": condition, "prompt": prompt, "before": places[0], "row": places[1]},
                **around("baseline", values[0], sides[0], "mean"),
                **around("diversity", values[1], sides[1], "mean"),
                **around("change", change, sides[1], "change"),
                "baseline_fidelity": percent(before.get(FIDELITY)),
                "fidelity": percent(after.get(FIDELITY)),
                "baseline_openness": percent(before.get(OPENNESS)),
                "openness": percent(after.get(OPENNESS)),
                "duplicates": number(after.get(columns.DUPLICATES)),
            }
        )
    return rows


def row_figures(per_prompt: pd.DataFrame | None, gallery: Gallery) -> list[dict[str, float | None]]:
    """Of each row of a gallery what is known of its pictures: diversity, with the interval over its samples where all
    of them are there, fidelity and openness."""
    records = [] if per_prompt is None else per_prompt.to_dict("records")
    stored = {(one["model"], one["condition"], one["prompt"]): one for one in records}
    found: list[dict[str, float | None]] = []
    for row in gallery.rows:
        record = stored.get((row.model, row.condition, row.prompt))
        if record is None:
            found.append({})
            continue
        ends = row.mean if gallery.is_whole else UNKNOWN
        found.append(
            {
                **{"diversity": number(record[DIVERSITY]), "low": number(ends.low), "high": number(ends.high)},
                **{"fidelity": percent(record[FIDELITY]), "openness": percent(record[OPENNESS])},
            }
        )
    return found


def around(name: str, value: float | None, row: Row | None, part: str) -> dict[str, float | None]:
    """A stored figure, with the interval that its pictures give."""
    found = None if row is None else getattr(row, part)
    ends = (None, None) if found is None else (number(found.low), number(found.high))
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def share_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each model, condition and source of `decompose`: its share of LPIPS diversity in percent."""
    return [
        {
            "series": series_of(record),
            "source": str(record["source"]),
            "share": percent(record["share"]),
            "low": percent(record["share_low"]),
            "high": percent(record["share_high"]),
            "component": number(record["component"]),
        }
        for record in table.to_dict("records")
    ]


def bit_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each model, condition and quantity of `information`: its value, or from where to where it is, in bits
    per image, and the outer ends of the intervals over prompts."""
    rows = []
    for series, found in by_series(table).items():
        named = {**{label: (name, name) for label, name in SINGLE.items()}, **BRACKETS}
        for label, (lower, upper) in named.items():
            if lower not in found or upper not in found:
                continue
            least, most = number(found[lower]["bits_per_image"]), number(found[upper]["bits_per_image"])
            if least is None and most is None:
                continue
            rows.append(
                {
                    **{"series": series, "quantity": label, "least": least, "most": most},
                    "low": number(found[lower]["image_low"]),
                    "high": number(found[upper]["image_high"]),
                }
            )
    return rows


def plane_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each model and condition of `information`: its place on the bottleneck plane, in bits. Those without
    a place, as of models that nobody can say the thing of that was asked for, are left out."""
    rows = []
    for series, found in by_series(table).items():
        least, most, relevant = (found.get(name) for name in ("mutual_lower", "mutual_upper", "relevant"))
        if least is None or most is None or relevant is None:
            continue
        row = {
            **{"series": series, "least": number(least["bits_per_image"]), "most": number(most["bits_per_image"])},
            **{"relevant": number(relevant["bits_per_image"])},
            **{f"relevant_{end}": number(relevant[f"image_{end}"]) for end in ("low", "high")},
        }
        if row["least"] is not None and row["relevant"] is not None:
            rows.append(row)
    return rows


def frontier_rows(settings: pd.DataFrame) -> tuple[str, str, list[dict[str, Any]]]:
    """What diversity and fidelity are, and a row for each setting of `frontier`, in their order; the most faithful one
    of the Pareto set has a label. Without a fidelity there are no rows: diversity alone is no frontier. Shares are in
    percent."""
    scales = scales_of(settings)
    if scales is None:
        return "", "", []
    read = percent if scales.are_shares else number
    rows = []
    for record in settings.to_dict("records"):
        figures = {
            f"{name}{end}": read(record[f"{name}{end}"])
            for name in (DIVERSITY, FIDELITY)
            for end in ("", "_low", "_high")
        }
        named = {"series": record["model"], "condition": record["condition"], "done": record["interventions"]}
        kind, curve = kind_of(record), of_guidance(record)
        rows.append({**named, "kind": kind, "curve": curve, "passes": int(record["passes"]), **figures})
    best = max((row for row in rows if row["kind"] == PARETO), key=lambda row: row[FIDELITY] or 0.0, default=None)
    for place, row in enumerate(rows):
        row |= {"place": place, "label": row["condition"] if row is best else ""}
    return scales.diversity, scales.fidelity, rows


def dose_rows(curves: Sequence[Curve], measure: str) -> list[dict[str, Any]]:
    """A row for each point of the curves of a sweep: what is left of a measure, in percent of baseline."""
    return [
        {
            **{"series": curve.model, "curve": f"{curve.model} {place}", "dose": point.dose},
            **{"condition": point.condition, "left": percent(point.left[measure].value)},
            **{"low": percent(point.left[measure].low), "high": percent(point.left[measure].high)},
            "prompts": point.prompts[measure],
        }
        for place, curve in enumerate(curves)
        for point in curve.points
        if measure in curve.measures
    ]


def by_series(table: pd.DataFrame) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The rows of the table of `information` by whose they are, and by quantity."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in table.to_dict("records"):
        found.setdefault(series_of(record), {})[record["quantity"]] = record
    return found
