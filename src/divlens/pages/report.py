"""`report`: a run as one HTML file. It asks for nothing from anywhere, and shows what is there of any run, finished or
not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from divlens.doses import Doses, doses
from divlens.errors import DivlensError, check_whole
from divlens.files import written_beside
from divlens.output import Record
from divlens.pages import honesty
from divlens.pages.charted import DECOMPOSE, INFORMATION, figures_of
from divlens.pages.code_charts import code_figures
from divlens.pages.codes import usage_rows
from divlens.pages.crossed import crossed_of
from divlens.pages.embedding import Embedded
from divlens.pages.figures import prompt_rows, row_figures
from divlens.pages.formats import FORMATS, SUFFIXES
from divlens.pages.gallery import Gallery, Row
from divlens.pages.law import law_rows
from divlens.pages.page import Page, html_of
from divlens.pages.replay import replays_of
from divlens.pages.stored import gallery_of
from divlens.pages.summary import summary_of
from divlens.pages.tables import COMPARED, PROBE, blocks_of, facts, sessions_of, tables_of
from divlens.pages.texts import command_line, file_name
from divlens.pages.verdicts import Card, cards_of, contrast_rows, first_shown, open_questions, verdict_of
from divlens.showing import counted
from divlens.store.reader import StoredRun, open_run

MOST_PICTURES, REPLAY, HTML = 4000, 1, "html"
PACKAGES = ("jinja2", "altair", "vl_convert")


def report(
    run: str | Path | StoredRun,
    path: str | Path,
    *,
    force: bool = False,
    device: str | None = None,
    pictures: int = MOST_PICTURES,
    replay: int = REPLAY,
    format: str = HTML,
) -> Path:
    """Write about a run to `path`, as one HTML file that needs no network, and return where it is.

    `run`: a folder, an address that fsspec knows, or what `divlens.open_run` returns; finished or not. `force`: also
    over a file that exists. `device`: where pictures are made of the stored tokens, in place of the one that they were
    drawn on. `pictures`: embed at most so many; fewer where they would take more than 9 MB, and the page says what is
    left out. `replay`: show of so many samples of one prompt how they were filled in, step by step. For this each model
    draws them once more; nothing else is drawn. `format`: html, or md, csv, json and latex, which have the figures and
    a paragraph on how they came about, and no pictures: they load no model and need no extra.

    Raises DivlensError where there is no run, or one of a newer format, where `path` exists or cannot be written, for a
    `device` that cannot be used, and where the extra `report` is not installed. A model that cannot be loaded again
    leaves its pictures out, which the page says.
    """
    if format not in SUFFIXES:
        raise DivlensError(f"a report expects a format among {', '.join(SUFFIXES)}, got {format!r:.80}")
    if format == HTML:
        check_packages()
    check_whole("pictures", pictures, 0)
    check_whole("replay", replay, 0)
    target = Path(path)
    check_target(target, force)
    opened = run if isinstance(run, StoredRun) else open_run(run)
    if format == HTML:
        text = html_of(contents(opened, pictures, device, replay))
    else:
        text = FORMATS[format](summary_of(opened))
    return write(target, text)


def write(target: Path, text: str) -> Path:
    """Raises DivlensError where it cannot be written."""
    try:
        with written_beside(target) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
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


def contents(
    run: StoredRun,
    pictures: int,
    device: str | None,
    replay: int = REPLAY,
    *,
    galleries: Callable[[StoredRun, Record, int, str | None], Gallery] = gallery_of,
) -> Page:
    """`galleries`: makes the gallery of a command. Raises DivlensError for a run of which nothing was asked."""
    if not run.requests:
        raise DivlensError(f"{run.place} holds no command yet: there is nothing to report")
    compared = next((command for command in COMPARED if command in run.requests), None)
    with_samples = next((name for name, request in run.requests.items() if "n" in request), None)
    of_gallery = compared or with_samples
    name = str(run.place).rstrip("/").rpartition("/")[2]
    tables = tables_of(run)
    gallery = (
        galleries(run, run.requests[of_gallery], pictures, device)
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
    first = list(request["conditions"]) if per_prompt is None else first_shown(request["conditions"], found)
    later = [name for name in request["conditions"] if name not in first]
    margin = found.margin if found else None
    found_doses = None if compared != PROBE or table is None else doses_of(run)
    of_law = law_rows(run, request, device) if "n" in request and gallery.rows else []
    usage = usage_rows(run, request, first) if "n" in request else {}
    more = More(run, cards, device, len(gallery.images))
    crossed = more.crossed() if pictures else []
    replays, not_replayed = more.replays(request, gallery, replay)
    on_first = [row for row in contrasts if row["condition"] in first]
    single = len(request["conditions"]) < 2

    def warnings_under(names: Sequence[str]) -> dict[str, list[str]]:
        return {} if per_prompt is None else honesty.warnings_of(per_prompt, request["n"], request["seed"], names)

    return Page(
        title=name,
        headline=headline(cards, run),
        facts=tuple(facts(run, request)),
        cards=tuple(cards),
        warnings=warnings_under(first),
        later=tuple(later),
        later_warnings=warnings_under(later),
        verdict_notes=tuple(found.notes) if found else (why_none,),
        missing=(
            *tables.missing,
            *gallery.missing,
            *not_replayed,
            *(["One condition only: there is nothing to hold its pictures against."] if single else []),
        ),
        figures=(
            *figures_of(on_first, of_prompts, found_doses, of_law, replays, tables, margin, request),
            *code_figures(usage, tables.of(INFORMATION, "steps"), tables.of(INFORMATION, "maps")),
        ),
        halvings=() if found_doses is None else tuple(found_doses.blocks),
        tables=tuple(blocks_of(compared, table)),
        gallery_note=gallery_note(gallery),
        models=tuple(dict.fromkeys(row.model for row in gallery.rows)),
        conditions=tuple(request["conditions"].items()),
        prompts=tuple(dict.fromkeys(row.prompt for row in gallery.rows)),
        floors=() if per_prompt is None else tuple(honesty.floors(per_prompt)),
        undecided=tuple(open_questions(contrasts)),
        blind=() if per_prompt is None else tuple(honesty.blind_spots(per_prompt)),
        notes=tuple(honesty.notes_on(request, run.record["found"].get(request["command"], {}), per_prompt)),
        sessions=tuple(sessions_of(run)),
        data={
            "name": file_name(name),
            "images": [*gallery.images, *more.embedded.addresses],
            "crossed": crossed,
            "replays": replays,
            "rows": [
                row_data(row, request, figures, run)
                for row, figures in zip(gallery.rows, row_figures(per_prompt, gallery), strict=True)
            ],
            "conditions": list(request["conditions"]),
            "first": first,
            "typical": next((card.typical for card in cards if card.typical), ""),
        },
    )


def doses_of(run: StoredRun) -> Doses | None:
    """What is left at each dose; None of a run without a sweep."""
    try:
        return doses(run)
    except DivlensError:
        return None


@dataclass(frozen=True)
class More:
    """Pictures beyond the gallery, which are embedded behind its `first` ones."""

    run: StoredRun
    cards: Sequence[Card]
    device: str | None
    first: int
    embedded: Embedded = field(default_factory=Embedded)

    def prompt(self, request: Record) -> str:
        """The one that is shown on the first screen where the request has it, else its first."""
        texts = [one["text"] for one in request["prompts"]]
        return next((card.typical for card in self.cards if card.typical in texts), texts[0])

    def crossed(self) -> list[dict[str, Any]]:
        """Of a run that has `decompose`."""
        request = self.run.requests.get(DECOMPOSE)
        if request is None:
            return []
        return crossed_of(self.run, request, self.prompt(request), self.embedded, self.first, self.device)

    def replays(self, request: Record, gallery: Gallery, count: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Of the models whose pictures are in the gallery, and what is missing."""
        models = list(dict.fromkeys(row.model for row in gallery.rows))
        found = self.run, request, models, self.prompt(request), count, self.embedded, self.first, self.device
        return replays_of(*found)


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


def gallery_note(gallery: Gallery) -> str:
    """What of the run is not among the pictures."""
    if gallery.is_whole or not gallery.rows:
        return ""
    samples, prompts = counted(gallery.extent.samples, "sample"), counted(gallery.extent.prompts, "prompt")
    return (
        f"Shown are the first {samples} of the first {prompts}; the run has {gallery.n} of {gallery.prompts}. Figures "
        "are over all of them. Single prompts have no intervals here, for these need every picture."
    )


def row_data(row: Row, request: Record, figures: Mapping[str, float | None], run: StoredRun) -> dict[str, Any]:
    """A row of the gallery for the script: its figures, its pictures, and the command that draws one of them again."""
    words = ["divlens", "sample", str(run.place), "--prompt", str(row.place), "--condition", row.condition]
    several = ["--model", row.model] if len(run.model_names) > 1 else []
    return {
        **{"model": row.model, "condition": row.condition, "done": request["conditions"][row.condition]},
        **{"prompt": row.prompt, "place": row.place, "distinct": row.distinct, "figures": figures},
        **{"nearest": row.nearest, "farthest": row.farthest, "command": command_line([*words, *several])},
        "pictures": [asdict(picture) for picture in row.pictures],
    }
