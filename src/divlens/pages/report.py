"""`report`: a run as one HTML file. It asks for nothing from anywhere, and shows what is there of any run, finished or
not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divlens.compare import measure_of
from divlens.errors import DivlensError, check_whole
from divlens.experiment import columns
from divlens.experiment.result import change_text, measure_text
from divlens.files import written_beside
from divlens.output import Record
from divlens.pages import charts, honesty
from divlens.pages.figures import bit_rows, prompt_rows, share_rows
from divlens.pages.gallery import Gallery, Row, gallery_of, reference_of
from divlens.pages.page import Figure, Page, html_of
from divlens.pages.texts import command_line, file_name
from divlens.pages.verdicts import (
    ALL,
    RIGHT,
    Card,
    cards_of,
    contrast_rows,
    number,
    open_questions,
    percent,
    verdict_of,
)
from divlens.showing import Block, counted, interval_text
from divlens.store.reader import StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

PROBE, ENHANCE, DECOMPOSE, INFORMATION = "probe", "enhance", "decompose", "information"
COMPARED = (PROBE, ENHANCE)  # of these there are conditions and a diversity of every prompt
MOST_PICTURES = 4000
PACKAGES = ("jinja2", "altair", "vl_convert")


def report(
    run: str | Path | StoredRun,
    path: str | Path,
    *,
    force: bool = False,
    device: str | None = None,
    pictures: int = MOST_PICTURES,
) -> Path:
    """Write a page about a run to `path`, one HTML file that needs no network, and return where it is.

    `run`: a folder, an address that fsspec knows, or what `divlens.open_run` returns; finished or not. `force`: also
    over a file that exists. `device`: where pictures are made of the stored tokens, in place of the one that they were
    drawn on. `pictures`: embed at most so many; fewer where they would take more than 9 MB, and the page says what is
    left out.

    Raises DivlensError where there is no run, or one of a newer format, where `path` exists or cannot be written, for a
    `device` that cannot be used, and where the extra `report` is not installed. A model that cannot be loaded again
    leaves its pictures out, which the page says.
    """
    check_packages()
    check_whole("pictures", pictures, 0)
    target = Path(path)
    check_target(target, force)
    page = contents(run if isinstance(run, StoredRun) else open_run(run), pictures, device)
    try:
        with written_beside(target) as partial:
            partial.write_text(html_of(page), encoding="utf-8")
    except OSError as error:
        raise DivlensError(f"cannot write to {target}: {error.strerror or error}") from error
    return target


def check_packages() -> None:
    if lacking := [name for name in PACKAGES if find_spec(name) is None]:
        raise DivlensError(f"a report needs {', '.join(lacking)}: pip install 'divlens[report]'")


def check_target(target: Path, force: bool) -> None:
    if target.is_dir():
        raise DivlensError(f"a report expects the name of a file, {target} is a folder")
    if target.exists() and not force:
        raise DivlensError(f"{target} exists: --force, or force=True, writes over it")
    if not target.parent.is_dir():
        raise DivlensError(f"a report expects a folder that exists, {target.parent} does not")


@dataclass(frozen=True)
class Tables:
    """The tables of a run that are written, and why others are not."""

    by_command: Mapping[str, Mapping[str, pd.DataFrame]]
    missing: tuple[str, ...]

    def of(self, command: str | None, name: str) -> pd.DataFrame | None:
        return self.by_command.get(command or "", {}).get(name)


def tables_of(run: StoredRun) -> Tables:
    found, missing = {}, []
    for command in run.requests:
        try:
            found[command] = run.tables(command)
        except DivlensError as error:
            missing.append(f"No figures of {command}: {error}.")
    return Tables(found, tuple(missing))


def contents(run: StoredRun, pictures: int, device: str | None) -> Page:
    """Raises DivlensError for a run of which nothing was asked."""
    if not run.requests:
        raise DivlensError(f"{run.place} holds no command yet: there is nothing to report")
    compared = next((command for command in COMPARED if command in run.requests), None)
    with_samples = next((name for name, request in run.requests.items() if "n" in request), None)
    of_gallery = compared or with_samples
    tables = tables_of(run)
    gallery = (
        gallery_of(run, run.requests[of_gallery], pictures, device)
        if of_gallery
        else Gallery(missing=("No gallery: decompose alone has crossed samples, and no conditions beside each other.",))
    )
    table, per_prompt = tables.of(compared, "table"), tables.of(compared, "per_prompt")
    found, why_none = verdict_of(run)
    request = run.requests[compared or of_gallery or next(iter(run.requests))]
    probed = table if compared == PROBE else None
    contrasts = [] if probed is None else contrast_rows(run, found, probed)
    cards = cards_of(found, request["models"], per_prompt)
    of_prompts = prompt_rows(per_prompt, gallery)
    single = len(request["conditions"]) < 2
    return Page(
        title=run.place.address("").rstrip("/").rpartition("/")[2] or str(run.place),
        headline=headline(cards, run),
        facts=tuple(facts(run, request)),
        cards=tuple(cards),
        warnings={} if probed is None else honesty.warnings_of(probed),
        verdict_notes=tuple(found.notes) if found else (why_none,),
        missing=(
            *tables.missing,
            *gallery.missing,
            *(["One condition only: there is nothing to hold its pictures against."] if single else []),
        ),
        figures=tuple(figures_of(contrasts, of_prompts, tables, found.margin if found else None, request)),
        tables=tuple(blocks_of(compared, table)),
        gallery_note=gallery_note(gallery),
        models=tuple(dict.fromkeys(row.model for row in gallery.rows)),
        conditions=tuple(request["conditions"].items()),
        prompts=tuple(dict.fromkeys(row.prompt for row in gallery.rows)),
        floors=() if probed is None else tuple(honesty.floors(probed)),
        undecided=tuple(open_questions(contrasts)),
        blind=() if probed is None else tuple(honesty.blind_spots(probed)),
        notes=tuple(honesty.notes_on(request, run.record["found"].get(request["command"], {}), probed)),
        sessions=tuple(sessions_of(run)),
        data={
            "name": file_name(str(run.place).rstrip("/").rpartition("/")[2]),
            "images": list(gallery.images),
            "rows": [row_data(row, request, per_prompt, run, gallery.is_whole) for row in gallery.rows],
            "reference": reference_of(list(request["conditions"])),
            "typical": next((card.typical for card in cards if card.typical), ""),
        },
    )


def headline(cards: Sequence[Card], run: StoredRun) -> str:
    """The answers, models of one answer together; without any what the run is."""
    by_answer: dict[str, list[str]] = {}
    for card in cards:
        by_answer.setdefault(card.name, []).append(card.model)
    if "" in by_answer or not cards:
        return f"{' and '.join(run.requests)} of {', '.join(run.model_names)}"
    return "; ".join(
        f"{' and '.join(models)} {'is' if len(models) == 1 else 'are'} {name}" for name, models in by_answer.items()
    )


def facts(run: StoredRun, request: Record) -> Iterator[tuple[str, str]]:
    yield "run", str(run.place)
    yield (
        "commands",
        ", ".join(f"{name}{'' if name not in run.unfinished else ' (not complete)'}" for name in run.requests),
    )
    yield "models", ", ".join(request["models"])
    size = f", {counted(request['n'], 'sample')} each" if "n" in request else ""
    yield (
        "size",
        f"{counted(len(request['prompts']), 'prompt')}, {counted(len(request['conditions']), 'condition')}{size}",
    )
    yield "seed", str(request["seed"])
    for model, setup in request["setup"].items():
        yield f"{model} drawn with", f"{setup['device']}, {setup['dtype']}, batches of {setup['batch_size']}"
    if versions := (run.record["sessions"] or [{}])[-1].get("versions", {}):
        yield (
            "versions",
            ", ".join(f"{name} {versions[name]}" for name in ("divlens", "torch", "python") if name in versions),
        )


def sessions_of(run: StoredRun) -> Iterator[dict[str, str]]:
    for one in run.record["sessions"]:
        line = command_line(["divlens", *map(str, one.get("arguments", ()))])
        yield {"started": str(one.get("started", "")), "command": line, "how": str(one.get("how", ""))}


def figures_of(
    contrasts: list[dict[str, Any]],
    of_prompts: list[dict[str, Any]],
    tables: Tables,
    margin: float | None,
    request: Record,
) -> Iterator[Figure]:
    """The charts of a page; those that have no rows are left out."""
    for place, model in enumerate(request["models"]):
        rows = [row for row in contrasts if row["model"] == model]
        kinds = {row["pictures"] for row in rows}
        if rows:
            title = f"Change of LPIPS diversity, {model}"
            yield Figure(
                f"changes-{place}",
                title,
                charts.changes(len(names_in(rows, "condition")), margin, kinds == {ALL, RIGHT}),
                rows,
            )
    if of_prompts:
        yield Figure(
            "prompts", "Diversity of each prompt", charts.prompts(len(names_in(of_prompts, "prompt"))), of_prompts
        )
    shares = tables.of(DECOMPOSE, "table")
    if shares is not None and (rows := share_rows(shares)):
        spec = charts.shares(names_in(rows, "series"), names_in(rows, "source"))
        yield Figure("sources", "Where LPIPS diversity comes from", spec, rows)
    bits = tables.of(INFORMATION, "table")
    if bits is not None and (rows := bit_rows(bits)):
        spec = charts.bits(names_in(rows, "series"), names_in(rows, "quantity"))
        yield Figure("bits", "Bits of an image", spec, rows)


def names_in(rows: list[dict[str, Any]], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def gallery_note(gallery: Gallery) -> str:
    """What of the run is not among the pictures."""
    if gallery.is_whole or not gallery.rows:
        return ""
    here = f"the first {counted(gallery.extent.samples, 'sample')} of the first {counted(gallery.extent.prompts, 'prompt')}"
    return (
        f"Shown are {here}; the run has {gallery.n} of {gallery.prompts}. Figures are over all of them; intervals of single "
        "prompts are left out, for they need every picture. The pair marks are among the pictures that were looked at."
    )


def row_data(
    row: Row, request: Record, per_prompt: pd.DataFrame | None, run: StoredRun, is_whole: bool
) -> dict[str, Any]:
    """A row of the gallery for the script: its figures, its pictures, and the command that draws one of them again."""
    words = ["divlens", "sample", str(run.place), "--prompt", str(row.place), "--condition", row.condition]
    several = ["--model", row.model] if len(run.model_names) > 1 else []
    figures: dict[str, float | None] = {}
    if per_prompt is not None:
        mine = per_prompt[
            (per_prompt["model"] == row.model)
            & (per_prompt["condition"] == row.condition)
            & (per_prompt["prompt"] == row.prompt)
        ]
        for record in mine.to_dict("records"):
            figures = {
                "diversity": number(record["diversity"]),
                "fidelity": percent(record["fidelity"]),
                "openness": percent(record["openness"]),
            }
    ends = {"low": number(row.mean.low), "high": number(row.mean.high)} if is_whole else {}
    return {
        **{"model": row.model, "condition": row.condition, "done": request["conditions"][row.condition]},
        **{"prompt": row.prompt, "place": row.place, "distinct": row.distinct, "count": len(row.pictures)},
        **{"nearest": row.nearest, "farthest": row.farthest, "command": command_line([*words, *several])},
        **{"figures": figures | ends, "pictures": [asdict(picture) for picture in row.pictures]},
    }


def blocks_of(command: str | None, table: pd.DataFrame | None) -> Iterator[Block]:
    """The tables of a command as they are read: each figure with its interval."""
    if table is None:
        return
    if command == ENHANCE:
        sides = ("before", "after", "change")
        for model, of_model in table.groupby("model", sort=False):
            rows = []
            for record in of_model.to_dict("records"):
                measure = measure_of(record["figure"])
                form, scale = measure.form
                cells = [
                    interval_text(columns.interval_in(record, side), f"{'+' if side == 'change' else ''}{form}", scale)
                    for side in sides
                ]
                rows.append((measure.heading, *cells))
            yield Block(str(model), ("", *sides), rows)
        return
    names = [name.removesuffix(columns.COUNT) for name in table.columns if name.endswith(columns.COUNT)]
    first, *others = [measure_of(name) for name in names]
    headings = ("condition", first.heading, "change %", *(each.heading for each in others), "duplicates")
    for model, of_model in table.groupby("model", sort=False):
        records = [{str(key): value for key, value in one.items()} for one in of_model.to_dict("records")]
        conditions = [str(one["condition"]) for one in records]
        cells = [
            (
                str(record["condition"]),
                measure_text(first, record),
                "–" if record["condition"] == reference_of(conditions) else change_text(record),
                *(measure_text(each, record) for each in others),
                str(record[columns.DUPLICATES]),
            )
            for record in records
        ]
        yield Block(str(model), headings, cells)
