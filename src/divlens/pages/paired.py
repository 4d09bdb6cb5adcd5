"""The report of `compare`: two runs as one HTML file, their pictures of the same prompt, condition and sample one below
the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divlens.compare import A, B, RunComparison, compare, paired
from divlens.errors import check_whole
from divlens.experiment.measures import DIVERSITY, FIDELITY, OPENNESS
from divlens.output import Record
from divlens.pages import charts
from divlens.pages.charted import names_in
from divlens.pages.gallery import Gallery, Row
from divlens.pages.page import Figure, Page, html_of
from divlens.pages.report import (
    MOST_PICTURES,
    check_packages,
    check_target,
    gallery_note,
    row_data,
    write,
)
from divlens.pages.stored import gallery_of
from divlens.pages.tables import COMPARED, sessions_of
from divlens.pages.texts import file_name
from divlens.pages.verdicts import number, percent
from divlens.showing import counted
from divlens.store.reader import StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

Side = tuple[str, StoredRun, Record, Gallery]


def report_of_two(
    a: str | Path | StoredRun,
    b: str | Path | StoredRun,
    path: str | Path,
    *,
    force: bool = False,
    device: str | None = None,
    pictures: int = MOST_PICTURES,
) -> RunComparison:
    """Write to `path` what `divlens.compare` finds of two runs, with their pictures in pairs, and return it.

    Sample i of a prompt has the same noise in both where their seeds are the same, so what differs down a column is
    what the other model, revision or setting made of it. The other arguments, and what is refused, are those of
    `report` and of `compare`.
    """
    check_packages()
    check_whole("pictures", pictures, 0)
    target = Path(path)
    check_target(target, force)
    one, other = (run if isinstance(run, StoredRun) else open_run(run) for run in (a, b))
    found = compare(one, other)
    write(target, html_of(contents_of_two(found, one, other, pictures, device)))
    return found


def contents_of_two(
    found: RunComparison, one: StoredRun, other: StoredRun, pictures: int, device: str | None = None
) -> Page:
    command = next((name for name in COMPARED if name in one.requests and name in other.requests), None)
    sides: list[Side] = []
    if command is not None:
        for side, run in ((A, one), (B, other)):
            request = run.requests[command]
            sides.append((side, run, request, gallery_of(run, request, pictures // 2, device)))
    names = {side: dict(pairs_of(one, other, which)) for which, side in enumerate((A, B))}
    rows = list(rows_of(sides, names, common_to(sides)))
    images = [address for _, _, _, gallery in sides for address in gallery.images]
    conditions = names_in(rows, "condition")
    of_prompts = prompt_rows(found.per_prompt, command, rows)
    chart = charts.prompts(len(names_in(of_prompts, "prompt")))
    settings, *tables = found.blocks
    return Page(
        title=f"{one.place} and {other.place}",
        headline="; ".join(title_of(*pair) for pair in model_pairs(one, other)),
        facts=tuple((cells[0], f"a: {cells[1]}; b: {cells[2]}") for cells in settings.rows),
        cards=(),
        warnings={},
        later=(),
        later_warnings={},
        verdict_notes=tuple(found.notes),
        missing=missing_of(sides, command),
        figures=(Figure("prompts", "Diversity of each prompt, a and b", chart, of_prompts),) if of_prompts else (),
        halvings=(),
        tables=tuple(tables),
        gallery_note=" ".join(dict.fromkeys(filter(None, (gallery_note(gallery) for *_, gallery in sides)))),
        models=tuple(names_in(rows, "model")),
        conditions=tuple((name, name) for name in conditions),
        prompts=tuple(names_in(rows, "prompt")),
        floors=(),
        undecided=(),
        blind=(),
        notes=(),
        sessions=tuple(session for run in (one, other) for session in sessions_of(run)),
        data={
            "name": file_name("compared"),
            "images": images,
            "crossed": [],
            "replays": [],
            "rows": rows,
            "conditions": conditions,
            "first": [],
            "typical": "",
        },
        paired=True,
    )


def model_pairs(one: StoredRun, other: StoredRun) -> list[tuple[str, str]]:
    return paired(one.model_names, other.model_names)[0]


def title_of(before: str, after: str) -> str:
    """What two models that are held against each other are called together."""
    return before if before == after else f"{before} and {after}"


def pairs_of(one: StoredRun, other: StoredRun, which: int) -> Iterator[tuple[str, str]]:
    """Of each model of a side its name and that of the pair."""
    yield from ((pair[which], title_of(*pair)) for pair in model_pairs(one, other))


def common_to(sides: Sequence[Side]) -> list[tuple[str, str]]:
    """The prompts and conditions of which both have pictures, in the order of the first."""
    found = [dict.fromkeys((row.prompt, row.condition) for row in gallery.rows) for *_, gallery in sides]
    return [pair for pair in found[0] if all(pair in others for others in found)] if found else []


def rows_of(
    sides: Sequence[Side], names: Mapping[str, Mapping[str, str]], common: Sequence[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """For the script: of each pair of models, prompt and condition the row of a, and below it that of b."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    first = 0
    for side, run, request, gallery in sides:
        for row in gallery.rows:
            title = names[side].get(row.model)
            if title is not None and (row.prompt, row.condition) in common:
                shifted = tuple(replace(picture, image=picture.image + first) for picture in row.pictures)
                data = row_data(replace(row, pictures=shifted), request, figures_of(row, gallery), run)
                named = data | {"model": title, "condition": f"{row.condition}, {side}", "side": side}
                found.setdefault((title, row.prompt, row.condition), []).append(named)
        first += len(gallery.images)
    for title in dict.fromkeys(title for title, _, _ in found):
        for pair in common:
            both = found.get((title, *pair), [])
            if {row["side"] for row in both} == {A, B}:
                yield from both


def figures_of(row: Row, gallery: Gallery) -> dict[str, float | None]:
    """The diversity of a row of pictures with its interval, and how many are right, where all samples are here."""
    if not gallery.is_whole:
        return {}
    right = [picture.right for picture in row.pictures]
    known = bool(right) and None not in right
    return {
        **{"diversity": number(row.mean.value), "low": number(row.mean.low), "high": number(row.mean.high)},
        "fidelity": percent(sum(map(bool, right)) / len(right)) if known else None,
    }


def prompt_rows(per_prompt: pd.DataFrame, command: str | None, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `figures.prompt_rows`: of each prompt, pair of models and condition the diversity of a and of b, with the
    places of their pictures."""
    where = {(row["model"], row["condition"], row["prompt"]): place for place, row in enumerate(rows)}
    values: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = {}
    for record in per_prompt.to_dict("records"):
        if record["command"] == command and record["figure"] in (DIVERSITY, FIDELITY, OPENNESS):
            key = title_of(record["model_a"], record["model_b"]), str(record["condition"]), str(record["prompt"])
            values.setdefault(key, {})[str(record["figure"])] = float(record[A]), float(record[B])
    found = []
    for (title, condition, prompt), figures in values.items():
        if DIVERSITY not in figures:
            continue
        places = [where.get((title, f"{condition}, {side}", prompt)) for side in (A, B)]
        ends = [{} if place is None else rows[place]["figures"] for place in places]
        before, after = figures[DIVERSITY]
        row: dict[str, Any] = {"model": title, "condition": condition, "prompt": prompt}
        row |= {"before": places[0], "row": places[1], "baseline": number(before), "diversity": number(after)}
        for name, known in zip(("baseline", "diversity"), ends, strict=True):
            row |= {f"{name}_{end}": known.get(end) for end in ("low", "high")}
        row |= {"change": number(after - before), "change_low": None, "change_high": None, "duplicates": None}
        for name in (FIDELITY, OPENNESS):
            sides_of = figures.get(name, (None, None))
            row |= {f"baseline_{name}": percent(sides_of[0]), name: percent(sides_of[1])}
        found.append(row)
    return found


def missing_of(sides: Sequence[Side], command: str | None) -> tuple[str, ...]:
    if command is None:
        return (f"No pictures: both runs hold {' or '.join(COMPARED)} only where there are pictures in pairs.",)
    found = [f"{side}: {line}" for side, _, _, gallery in sides for line in gallery.missing]
    seeds = [request["seed"] for _, _, request, _ in sides]
    if seeds[0] != seeds[1]:
        found.append(f"The seeds differ ({seeds[0]} and {seeds[1]}): columns do not have the same noise.")
    sizes = [gallery.extent.samples for *_, gallery in sides]
    if sizes[0] != sizes[1]:
        found.append(f"a has {counted(sizes[0], 'sample')} of each prompt here, b {sizes[1]}.")
    return tuple(found)
