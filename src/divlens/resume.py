"""`resume`: a run goes on where it stopped, from what run.json says was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from divlens.decompose import decompose_design
from divlens.enhance import enhanced_of
from divlens.errors import DivlensError
from divlens.experiment.built_in import is_known
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.design import Levels, design_of
from divlens.experiment.measures import usual_measures
from divlens.experiment.probe import probe_of
from divlens.experiment.result import UNTIL_DECIDED
from divlens.experiment.shares import draw_share
from divlens.frontier.api import frontier_of, plan_of
from divlens.information.api import information_of
from divlens.information.plan import Effort, accountings
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.progress import OnBatch, ShowProgress
from divlens.results import Result, finished, joint_request
from divlens.store.asked import batch_size_of, conditions_of, models_of, prompts_of
from divlens.store.folder import RunFolder, run_for
from divlens.store.lock import only_writer
from divlens.store.place import Place
from divlens.store.record import existing_record, share_in
from divlens.until_decided import Growing, decided_of, run_that_grows
from divlens.verdict.looks import Size

Draw = Callable[[RunFolder | None, ShowProgress, OnBatch | None], list[Result]]


def resume(
    path: str | Path,
    *,
    arguments: Sequence[str] = (),
    repair: bool = False,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> list[Result]:
    """Go on with all that was asked of a run and is not complete; the results of what was completed, none for a run
    that was complete, and none for a share of a run.

    `repair`: files that are not what was written are removed, and what they held is drawn again. Raises DivlensError
    for a folder without a run, for models that cannot be loaded by the name under which they were asked, or are others
    now, and as `divlens.probe` does.
    """
    place = Place(path)
    about = existing_record(place)
    share = share_in(about)
    open_ = [request for command, request in about["requests"].items() if repair or command not in about["complete"]]
    results: list[Result] = []
    if not open_:  # nothing is written, and what is damaged is no complete run
        RunFolder(place, about).check_files()
        with suppress(DivlensError), only_writer(place):  # sweeps, where it may, after one that died at the end
            pass
    for request in open_:
        models = models_of(request)
        if UNTIL_DECIDED in request:
            plan = growing_again(request, models)
            with run_that_grows(plan, path, arguments, repair=repair) as folder:
                results.append(finished(decided_of(plan, folder, progress=progress, on_batch=on_batch), folder))
            continue
        asked, draw = PLANS[request["command"]](request, models)
        with run_for(path, asked, models, arguments, repair=repair, share=share) as folder:
            if found := draw(folder, progress, on_batch):
                results += finished(found, folder)
    return results


def growing_again(request: Record, models: Sequence[Model]) -> Growing:
    """All that a probe until decided may draw, with the looks that it was begun with."""
    plan = request[UNTIL_DECIDED]
    looks = tuple(Size(*size) for size in plan["looks"])
    whole = {**request, "prompts": plan["prompts"], "n": looks[-1].n}
    return Growing(comparison_of(whole, models), looks)


def comparison_of(request: Record, models: Sequence[Model]) -> Comparison:
    usual = [measure.name for measure in usual_measures(None)]
    extra = [name for name in request["measures"] if name not in usual]
    if own := [name for name in extra if not is_known(name)]:
        raise DivlensError(
            f"the measures {', '.join(own)} are functions, of which a folder has the name only: go on with the call of "
            "divlens that began the run"
        )
    prompts, conditions = prompts_of(request), conditions_of(request)
    n, seed, lpips = request["n"], request["seed"], request["lpips"]
    return compared(models, prompts, n, seed, conditions, extra, lpips, batch_size_of(request))


def probe_again(request: Record, models: Sequence[Model]) -> tuple[Record, Draw]:
    comparison = comparison_of(request, models)
    return compared_again("probe", comparison, partial(probe_of, comparison))


def enhance_again(request: Record, models: Sequence[Model]) -> tuple[Record, Draw]:
    comparison = comparison_of(request, models)
    return compared_again("enhance", comparison, partial(enhanced_of, comparison))


def frontier_again(request: Record, models: Sequence[Model]) -> tuple[Record, Draw]:
    plan = plan_of(comparison_of(request, models), request["fidelity"])
    _, draw = compared_again("frontier", plan.comparison, partial(frontier_of, plan))
    return plan.request, draw


def compared_again(command: str, comparison: Comparison, measured: Callable[..., Result]) -> tuple[Record, Draw]:
    """A comparison or, in the folder of a share, that share of it."""

    def draw(folder: RunFolder | None, progress: ShowProgress, on_batch: OnBatch | None) -> list[Result]:
        if folder is not None and folder.share is not None:
            draw_share(comparison, command, folder, progress=progress, on_batch=on_batch)
            return []
        return [measured(folder=folder, progress=progress, on_batch=on_batch)]

    return comparison.request(command), draw


def information_again(request: Record, models: Sequence[Model]) -> tuple[Record, Draw]:
    if request["judge"] not in ("declared", "none"):
        raise DivlensError(
            "the judge is a function, which no folder keeps: go on with the call of divlens that began the run"
        )
    planned = [
        accounting
        for model in models
        for accounting in accountings(
            model,
            prompts_of(request),
            request["n"],
            request["seed"],
            conditions_of(request),
            reading=request["reading"],
            judge="declared" if request["judge"] == "declared" else None,
            effort=Effort(**request["effort"]),
            batch_size=batch_size_of(request),
        )
    ]
    return joint_request([each.request for each in planned]), lambda folder, progress, on_batch: [
        information_of(each, folder=folder, progress=progress, on_batch=on_batch) for each in planned
    ]


def decompose_again(request: Record, models: Sequence[Model]) -> tuple[Record, Draw]:
    network = request["lpips"]
    if network == "a function":
        raise DivlensError(
            "the features are a function, which no folder keeps: go on with the call of divlens that began the run"
        )
    ((_, interventions),) = conditions_of(request).items()
    designs = [
        design_of(
            model,
            prompts_of(request),
            Levels(**request["levels"][model.name]),
            request["seed"],
            interventions=interventions,
            length_control=request["length_control"],
            batch_size=batch_size_of(request),
        )
        for model in models
    ]
    return joint_request([each.request(network) for each in designs]), lambda folder, progress, on_batch: [
        decompose_design(each, network, folder=folder, progress=progress, on_batch=on_batch) for each in designs
    ]


PLANS: Mapping[str, Callable[[Record, Sequence[Model]], tuple[Record, Draw]]] = {
    "probe": probe_again,
    "enhance": enhance_again,
    "frontier": frontier_again,
    "information": information_again,
    "decompose": decompose_again,
}
