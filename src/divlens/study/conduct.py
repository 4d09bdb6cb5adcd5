"""`study`: a whole protocol, from a file, into one run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from divlens.doses.result import doses, sweeps_in
from divlens.errors import DivlensWarning
from divlens.experiment.result import ProbeResult
from divlens.experiment.shares import draw_share
from divlens.models.answers import loaded_models
from divlens.models.registry import load
from divlens.progress import OnBatch, ShowProgress
from divlens.results import Result, finished
from divlens.score import score
from divlens.store.folder import RunFolder, writing_run
from divlens.store.record import check_request
from divlens.store.share import Share
from divlens.study.plan import Part, Plan, planned, requests_so_far
from divlens.study.protocol import Protocol, protocol_in
from divlens.study.result import Study
from divlens.verdict import verdict
from divlens.verdict.result import why_no_decision, why_no_verdict


def study(
    file: str | Path,
    *,
    out: str | Path,
    device: str | None = None,
    arguments: Sequence[str] = (),
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Study:
    """Carry out a study file (docs/studies.md): probe and sweeps, and as far as it asks for them information, decompose
    and further measures, of all of its models, into the one run `out`; and the verdict on each model.

    `out`: the folder of a run, see `divlens.probe`. The same call goes on where another stopped, and draws nothing that
    the folder holds. `device`: in place of the file's, which is no part of a protocol. `on_batch` is told how many more
    samples are done. DivlensWarning, before a model is loaded, says that no verdict can come of so few prompts.

    Raises DivlensError for a file that is not as it should be, with the line; and, before anything of the study is
    drawn, for what any of the verbs refuses of any of the models. (Code frequencies that a model does not bring are
    drawn to plan `Subset`, once all prompts and wordings have been read.)
    """
    protocol = protocol_for(file, device)
    results = results_of(protocol, out, arguments, progress, on_batch)
    if protocol.measures:
        results.append(score(out, protocol.measures, arguments=arguments, progress=progress, on_batch=on_batch))
    (probed,) = (one for one in results if isinstance(one, ProbeResult))
    reason = why_no_verdict(probed)
    judged = None if reason else verdict(out, margin=protocol.margin)
    curves = doses(probed) if sweeps_in(probed.conditions) else None
    return Study(run=str(out), results=results, verdict=judged, no_verdict=reason, doses=curves)


def study_share(
    file: str | Path,
    share: Share,
    *,
    out: str | Path,
    device: str | None = None,
    arguments: Sequence[str] = (),
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> int:
    """Draw and measure a share of the probe of a study, which most of its samples are for, into a folder of its own;
    how many samples that were. `divlens.merge` makes one run of all shares, in which `study` goes on with the rest."""
    protocol = protocol_for(file, device)
    plan = checked_plan(protocol, out, share)
    probe = next(part for part in plan.parts if part.command == "probe")
    with open_for([probe], plan, out, arguments, share) as folder:
        draw_share(plan.comparison, probe.command, folder, progress=progress, on_batch=on_batch)
        return folder.drawn


def protocol_for(file: str | Path, device: str | None) -> Protocol:
    protocol = protocol_in(file)
    if reason := why_no_decision(protocol.conditions, len(protocol.prompts)):
        warnings.warn(reason, DivlensWarning, stacklevel=3)
    return protocol if device is None else replace(protocol, device=device)


def checked_plan(protocol: Protocol, out: str | Path, share: Share | None = None) -> Plan:
    """The plan of a study that the folder can hold: what can be refused without the models is refused before."""
    for request in requests_so_far(protocol):
        check_request(out, request, share)
    options = {"dtype": protocol.dtype, "truncate": protocol.truncate, "compile": protocol.compile}
    plan = planned(protocol, loaded_models([load(model, protocol.device, **options) for model in protocol.models]))
    for part in plan.parts:
        check_request(out, part.request, share)
    return plan


@contextmanager
def open_for(
    parts: Sequence[Part], plan: Plan, out: str | Path, arguments: Sequence[str], share: Share | None = None
) -> Iterator[RunFolder]:
    """The folder, whose run.json has the requests of these parts: `divlens resume` goes on with all of them."""
    with writing_run(out, arguments) as folder:
        folder.enter_models(plan.models)
        for part in parts:
            folder.begin(part.request, share)
        yield folder


def results_of(
    protocol: Protocol, out: str | Path, arguments: Sequence[str], progress: ShowProgress, on_batch: OnBatch | None
) -> list[Result]:
    """Draw all parts. The models go with this call: whatever comes after it loads its own."""
    plan, found = checked_plan(protocol, out), list[Result]()
    with open_for(plan.parts, plan, out, arguments) as folder:
        for part in plan.parts:
            found += finished(part.drawn(folder, progress=progress, on_batch=on_batch), folder)
            folder.written()  # for the next part, which looks for samples of this one
    return found
