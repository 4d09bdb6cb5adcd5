"""What `frontier` returns: of each method what it reaches, and where it stands against plain lower guidance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from divlens.conditions import BASELINE
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, LAW_DISTANCE, Measure, named, notes_of
from divlens.experiment.result import ProbeResult
from divlens.experiment.samples import unread, write_samples
from divlens.frontier.analysis import MOST_LOSS, Analysis, Gain, Reached
from divlens.frontier.goals import goal_block, goal_rows
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.plots import FrontierPlots
from divlens.results import Result
from divlens.showing import UNKNOWN, Block, counted, interval_text
from divlens.verdict.contrasts import LEVEL, MARGIN
from divlens.verdict.significance import fewest_prompts

if TYPE_CHECKING:
    import pandas as pd

NO_FIDELITY = (
    "No figure of fidelity exists: no judge knows these prompts, and no other measure was asked for that has a value "
    "of them. So nothing here says whether what is more diverse is broken."
)


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Frontier(Result):
    """`probed`: the figures of every setting of every prompt. `analysis`: what follows from them. `passes`: by setting,
    how often the network is asked for one sample."""

    model: str
    probed: ProbeResult
    analysis: Analysis
    passes: Mapping[str, int]

    @property
    def table(self) -> pd.DataFrame:
        """One row per method, over the prompts that report; intervals have `_low` and `_high`. settings: how many were
        tried. area: its diversity, meaned over all losses of fidelity up to the most that is allowed; area_of_baseline,
        as a share of baseline's. standing: against guidance, empty for itself; change_against_guidance, of the area, a
        share; fidelity_against_guidance; p_no_change, p_equivalence, adjusted. most_diverse: the setting that is, at no
        loss of fidelity; diversity_gained, a share of baseline, and its fidelity_change. most_faithful: the setting
        that is, at no loss of diversity; fidelity_gained, and its diversity_change. Undefined is NaN."""
        import pandas as pd

        return pd.DataFrame([row_of(self.model, *item) for item in self.analysis.methods.items()])

    @property
    def settings(self) -> pd.DataFrame:
        """One row per setting, baseline first: method, condition, interventions; passes; in_pareto_set; diversity,
        fidelity and, where it is known, law_distance over the prompts that report, with `_low` and `_high`, and over
        those that choose as `_chosen_by`."""
        import pandas as pd

        return pd.DataFrame(list(self.setting_rows()))

    def setting_rows(self) -> Iterator[dict[str, Any]]:
        for name, done in self.probed.conditions.items():
            method = "" if name == BASELINE else name.partition("=")[0]
            row: dict[str, Any] = {"model": self.model, "method": method, "condition": name, "interventions": done}
            row |= {"passes": self.passes[name], "in_pareto_set": name in self.analysis.pareto}
            for column, measure in self.shown_measures.items():
                chosen_by, values = self.values_of(column, name)
                row |= columns.with_ends(column, measure.mean(values, self.probed.n, self.probed.seed))
                row[f"{column}_chosen_by"] = float(chosen_by.mean())
            yield row

    @property
    def shown_measures(self) -> dict[str, Measure]:
        """What stands in the columns diversity, fidelity and law_distance, as far as it is known."""
        fidelity, distance = self.analysis.fidelity, self.analysis.figures.reports.distance
        return {
            "diversity": self.analysis.diversity,
            **({} if fidelity is None else {"fidelity": fidelity}),
            **({} if distance is None else {LAW_DISTANCE.name: named(self.probed.measures, LAW_DISTANCE.name)}),
        }

    def values_of(self, column: str, setting: str) -> tuple[np.ndarray, np.ndarray]:
        """Of every prompt that chooses, and of every one that reports."""
        found = []
        for half in (self.analysis.figures.chooses, self.analysis.figures.reports):
            of = {"diversity": half.diversity, "fidelity": half.fidelity, LAW_DISTANCE.name: half.distance or {}}
            found.append(of[column][setting])
        return found[0], found[1]

    @property
    def goals(self) -> pd.DataFrame:
        """One row per method of which a setting might be nearer to the true law than baseline and guidance, see
        `Candidate`; none where the law is not known."""
        import pandas as pd

        goal = self.analysis.goal
        return pd.DataFrame([] if goal is None else list(goal_rows(self.model, goal)))

    @property
    def per_prompt(self) -> pd.DataFrame:
        """As of `ProbeResult`."""
        return self.probed.per_prompt

    @property
    def plot(self) -> FrontierPlots:
        """Its figures: `plot.frontier()`."""
        return FrontierPlots(self.settings)

    @property
    def headline(self) -> str:
        prompts, n = counted(len(self.probed.prompts), "prompt"), counted(self.probed.n, "sample")
        methods = counted(len(self.analysis.methods), "method")
        return f"Frontier: {self.model}, {methods}, {prompts}, {n} each, seed {self.probed.seed}"

    @property
    def blocks(self) -> list[Block]:
        """What the methods reach, the settings that were chosen for that, the Pareto set, and the goal."""
        fidelity = self.analysis.fidelity
        what = self.analysis.diversity.title or self.analysis.diversity.name
        against = "" if fidelity is None else f" against {fidelity.title or fidelity.name}"
        blocks = [
            self.methods_block(f"{self.model}: {what}{against}"),
            self.chosen_block(),
            self.pareto_block(),
        ]
        return blocks if self.analysis.goal is None else [*blocks, goal_block(self.model, self.analysis.goal)]

    def methods_block(self, title: str) -> Block:
        rows = [
            (
                method,
                interval_text(of.of_baseline, ".0f", 100),
                interval_text(of.at_equal_fidelity.diversity, "+.0f", 100),
                self.fidelity_text(of.at_equal_diversity),
                "-" if of.standing is None else interval_text(of.standing.diversity.change, "+.0f", 100),
                "-" if of.standing is None else of.standing.word,
            )
            for method, of in self.analysis.methods.items()
        ]
        headings = ("method", "area %", "diversity + %", "fidelity +", "guidance + %", "stands")
        return Block(title, headings, rows)

    def fidelity_text(self, gain: Gain) -> str:
        if self.analysis.fidelity is None:
            return UNKNOWN
        form, scale = self.analysis.fidelity.form
        return interval_text(gain.fidelity, f"+{form}", scale)

    def chosen_block(self) -> Block:
        rows = [
            (
                method,
                setting_text(of.choice.most_diverse),
                setting_text(of.choice.most_faithful),
                " ".join(f"{setting_text(name)}:{100 * share:.0f}%" for name, share in of.choice.shares.items()),
            )
            for method, of in self.analysis.methods.items()
        ]
        return Block("settings chosen", ("method", "diversity +", "fidelity +", "area"), rows)

    def pareto_block(self) -> Block:
        shown, seed, n = self.shown_measures, self.probed.seed, self.probed.n
        rows = []
        for name in self.analysis.pareto:
            means = [measure.mean(self.values_of(column, name)[1], n, seed) for column, measure in shown.items()]
            cells = (interval_text(mean, *each.form) for mean, each in zip(means, shown.values(), strict=True))
            rows.append((name, *cells, str(self.passes[name])))
        headings = ("Pareto set", *(measure.heading for measure in shown.values()), "passes")
        return Block("", headings, rows)

    @property
    def notes(self) -> list[str]:
        figures, n = self.analysis.figures, self.probed.n
        chooses, reports = figures.chooses.prompts, figures.reports.prompts
        tried = Counter(len(of.settings) for of in self.analysis.methods.values())
        most, others = max(tried), [one for one in tried if one != max(tried)]
        fewer = f" ({', '.join(map(str, sorted(others)))} of some, whose settings coincide)" if others else ""
        loss = f"{100 * MOST_LOSS:.0f} {'points' if self.fidelity_is_share else '% of it'}"
        lines = [
            f"Settings are chosen on {counted(chooses, 'prompt')}; all figures are of the {reports} others, {n} "
            f"samples each; [95% interval]. {most} settings of each method{fewer}; baseline stands beside them.",
            f"area: mean diversity over all losses of fidelity up to {loss}, of baseline. diversity +: of the most "
            "diverse setting at no loss of fidelity, against baseline. fidelity +: of the most faithful setting at no "
            "loss of diversity. guidance +: the area against that of plain guidance.",
            f"stands: ahead or behind where a sign-flip test over prompts says so, level within {100 * MARGIN:.0f}%; "
            f"adjusted for all methods (Holm), at {100 * LEVEL:.0f}%; undecided where the better one lost more "
            "fidelity than was allowed. See docs/diversity.md.",
            self.passes_note(),
        ]
        fewest = fewest_prompts(max(1, len(self.analysis.methods) - 1), LEVEL)
        if reports < fewest:
            lines.append(f"No method can stand ahead or behind on {reports} prompts: that takes {fewest} that report.")
        if figures.left_out:
            lines.append(f"{counted(figures.left_out, 'prompt')} left out, which lack a figure under some setting.")
        lines += [] if self.analysis.fidelity is not None else [NO_FIDELITY]
        lines += notes_of([measure for measure in self.shown_measures.values() if measure.name != DIVERSITY])
        return lines + wording_lines(self.probed.templated, len(self.probed.prompts), unread(self.probed.samples))

    @property
    def fidelity_is_share(self) -> bool:
        return self.analysis.fidelity is None or self.analysis.fidelity.unit == "%"

    def passes_note(self) -> str:
        """What a sample costs under each setting, where that is not the same."""
        usual = self.passes[BASELINE]
        others = {name: passes for name, passes in self.passes.items() if passes != usual}
        but = "; ".join(f"{passes} under {name}" for name, passes in others.items())
        return f"Passes of the network for a sample: {usual}{f', but {but}' if but else ' under every setting'}."

    @property
    def found(self) -> Record:
        return self.probed.found

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table, settings, conditions (the table of the probe, over all prompts), per_prompt, and goals where the true
        law is known (see `write_tables`)."""
        (result,) = results
        tables = {"table": result.table, "settings": result.settings, "conditions": result.probed.table}
        tables |= {"per_prompt": result.per_prompt}
        tables |= {} if result.analysis.goal is None else {"goals": result.goals}
        write_tables({name: [table] for name, table in tables.items()}, folder)

    @classmethod
    def write_samples(cls, results: Sequence[Self], folder: Path) -> None:
        (result,) = results
        write_samples(result.probed.samples, folder / "samples.parquet")


def setting_text(name: str) -> str:
    """A setting without the name of its method."""
    return name.partition("=")[2] or name


def row_of(model: str, method: str, of: Reached) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "method": method, "settings": len(of.settings)}
    row |= columns.with_ends("area", of.area) | columns.with_ends("area_of_baseline", of.of_baseline)
    row["standing"] = of.standing.word if of.standing else ""
    if of.standing is not None:
        row |= columns.with_ends("change_against_guidance", of.standing.diversity.change)
        row |= columns.with_ends("fidelity_against_guidance", of.standing.fidelity)
        row |= {
            "p_no_change": of.standing.diversity.of_no_change,
            "p_equivalence": of.standing.diversity.of_equivalence,
        }
    row["most_diverse"] = of.at_equal_fidelity.setting
    row |= columns.with_ends("diversity_gained", of.at_equal_fidelity.diversity)
    row |= columns.with_ends("fidelity_change", of.at_equal_fidelity.fidelity)
    row["most_faithful"] = of.at_equal_diversity.setting
    row |= columns.with_ends("fidelity_gained", of.at_equal_diversity.fidelity)
    row |= columns.with_ends("diversity_change", of.at_equal_diversity.diversity)
    return row
