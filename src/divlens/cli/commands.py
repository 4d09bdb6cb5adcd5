"""The commands that measure. Thin: arguments in, a call of the library, a table out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from divlens.cli.options import (
    Setup,
    check_folder,
    chosen_prompts,
    command,
    condition_option,
    deliver,
    disable_option,
    intervene_option,
    limit_option,
    log_option,
    lpips_option,
    named_prompts,
    need_two,
    prompts_option,
    quiet_option,
    ray_option,
    reporter_of,
    said_when_stopped,
    say_drawn,
    shard_option,
    storing,
    sweep_option,
)
from divlens.cli.verdict import say_too_few, show_with_verdicts
from divlens.report.terminal import put
from divlens.showing import visible

if TYPE_CHECKING:
    from divlens.experiment.comparison import Comparison
    from divlens.progress import ShowProgress
    from divlens.results import Result
    from divlens.store.folder import RunFolder
    from divlens.store.share import Share

PROBE_PROMPTS, INFORMATION_PROMPTS, DECOMPOSE_PROMPTS = 12, 12, 16


@command()
@click.argument("models", nargs=-1, required=True)
@prompts_option
@limit_option
@click.option("-n", "n", default=8, show_default=True, help="Samples per prompt, at least 2.")
@click.option("--subset", default=0.5, show_default=True, help="Subset: share of the codebook that stays.")
@disable_option
@condition_option
@sweep_option
@lpips_option
@ray_option
@shard_option
@click.option(
    "--until-decided",
    is_flag=True,
    help="Add prompts to the run, then samples, until the verdict's contrasts are decided; its looks share the 5%.",
)
@click.option(
    "--budget",
    type=int,
    help="With --until-decided: most samples of a model under a condition; default: twice those of all prompts.",
)
def probe(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    subset: float,
    disable_top: float,
    named: Sequence[str],
    swept: Sequence[str],
    lpips: str,
    share: Share | None,
    ray: str | None,
    until_decided: bool,
    budget: int | None,
    seed: int,
    out: str | None,
    setup: Setup,
) -> None:
    """How much diversity MODELS have, how much is left under Subset, Argmax and Paraphrase, and which strategy that
    makes; with --sweep, how much is left at each dose, and at which it halves."""
    need_two(n)
    check_until_decided(until_decided, budget, out, share)
    from divlens.conditions import BASELINE, default_conditions
    from divlens.experiment.comparison import compared
    from divlens.experiment.probe import probe_of
    from divlens.models.answers import loaded_models
    from divlens.notation import conditions_from
    from divlens.results import request_so_far
    from divlens.sweeps import with_sweeps

    prompts = chosen_prompts(prompt_file, limit, None if until_decided else PROBE_PROMPTS)
    asked = with_sweeps(conditions_from(named, BASELINE), swept)
    conditions = asked if named or swept else default_conditions(subset, disable_top)
    check_folder(out, request_so_far("probe", conditions, seed), share, ray)
    loaded = loaded_models(setup.load(models))
    if until_decided and out:
        from divlens.until_decided import decided_of, growing, run_that_grows

        plan = growing(loaded, prompts, n, seed, conditions, (), lpips, setup.batch_size, budget)
        with said_when_stopped(out), run_that_grows(plan, out, sys.argv[1:]) as folder:
            deliver([decided_of(plan, folder, ray, progress=setup.reporter)], folder)
        return
    comparison = compared(loaded, prompts, n, seed, conditions, (), lpips, setup.batch_size)
    with storing(out, comparison.request("probe"), loaded, share) as folder:
        say_too_few(conditions, len(comparison.prompts))
        deliver_compared("probe", comparison, folder, ray, setup.reporter, partial(probe_of, comparison))


def check_until_decided(asked: bool, budget: int | None, out: str | None, share: Share | None) -> None:
    if budget is not None and not asked:
        raise click.UsageError("--budget is that of --until-decided, which is not asked for")
    if asked and not out:
        raise click.UsageError("--until-decided expects --out FOLDER, where each look finds what those before drew")
    if asked and share:
        raise click.UsageError("--until-decided decides on the way what is drawn, --shard before: expected one of both")


@command()
@click.argument("model")
@click.argument("prompts", nargs=-1)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="More prompts: text lines or JSONL.")
@click.option("-n", "n", default=16, show_default=True, help="Samples per prompt, at least 2.")
@click.option("--recipe", metavar="NAME", help="paper, everyday or detailed; default: what suits the model.")
@click.option("--strength", default=1.0, show_default=True, help="From 0, which changes nothing, to 1.")
@click.option("--disable-top", type=float, help="Share of top codes that the recipe paper disables; default: 0.05.")
@lpips_option
@ray_option
@shard_option
def enhance(
    model: str,
    prompts: Sequence[str],
    prompt_file: Path | None,
    n: int,
    recipe: str | None,
    strength: float,
    disable_top: float | None,
    lpips: str,
    share: Share | None,
    ray: str | None,
    seed: int,
    out: str | None,
    setup: Setup,
) -> None:
    """Draw PROMPTS with MODEL as it is and enhanced, by the recipe that suits it or by the paper's own."""
    need_two(n)
    from divlens.enhance import enhanced_of, sides_of
    from divlens.experiment.comparison import compared
    from divlens.recipes import PAPER, recipe_at
    from divlens.results import request_so_far

    asked = named_prompts(prompts, prompt_file)
    recipe_at(recipe or PAPER, strength, disable_top)  # what it refuses is refused before anything is loaded
    loaded = setup.load([model])
    conditions = sides_of(loaded[0], asked, recipe, strength, disable_top)
    check_folder(out, request_so_far("enhance", conditions, seed), share, ray)
    comparison = compared(loaded, asked, n, seed, conditions, (), lpips, setup.batch_size)
    with storing(out, comparison.request("enhance"), loaded, share) as folder:
        measured = partial(enhanced_of, comparison)
        deliver_compared("enhance", comparison, folder, ray, setup.reporter, measured)


@command()
@click.argument("model")
@prompts_option
@limit_option
@click.option("-n", "n", default=8, show_default=True, help="Samples per prompt, at least 2.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="A method to hold against lower guidance (repeatable); default: all that the prompts are suited for.",
)
@click.option(
    "--fidelity",
    metavar="MEASURE",
    help="What fidelity is where no judge knows the prompts, such as clipscore:PLACE; more of it is better.",
)
@lpips_option
@ray_option
@shard_option
def frontier(
    model: str,
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    methods: Sequence[str],
    fidelity: str | None,
    lpips: str,
    share: Share | None,
    ray: str | None,
    seed: int,
    out: str | None,
    setup: Setup,
) -> None:
    """Diversity against fidelity of MODEL over the settings of each method, and which is ahead of lower guidance.

    Half of the prompts choose the settings, the others report what they give.
    """
    need_two(n)
    from divlens.frontier.api import frontier_of, planned
    from divlens.frontier.methods import methods_named

    prompts = chosen_prompts(prompt_file, limit, None)
    named = list(methods) or None
    methods_named(named)
    check_folder(out, {"command": "frontier", "seed": seed, "fidelity": fidelity}, share, ray)
    (loaded,) = setup.load([model])
    plan = planned(loaded, prompts, n, seed, named, fidelity, (), lpips, setup.batch_size)
    with storing(out, plan.request, [loaded], share) as folder:
        measured = partial(frontier_of, plan)
        deliver_compared("frontier", plan.comparison, folder, ray, setup.reporter, measured)


def deliver_compared(
    name: str,
    comparison: Comparison,
    folder: RunFolder | None,
    ray: str | None,
    progress: ShowProgress,
    measured: Callable[..., Result],
) -> None:
    """Draw and measure, and print the tables; or draw the shard that the folder is for."""
    if folder is not None and folder.share is not None:
        from divlens.experiment.shares import draw_share

        draw_share(comparison, name, folder, ray=ray, progress=progress)
        say_drawn(folder)
    else:
        from divlens.experiment.workers import on_workers

        deliver([on_workers(comparison, measured, folder, ray, progress=progress)], folder)


@command()
@click.argument("models", nargs=-1, required=True)
@prompts_option
@limit_option
@click.option("-n", "n", default=32, show_default=True, help="Samples per prompt, at least 2.")
@click.option(
    "--reading",
    type=click.Choice(["schedule", "trajectory"]),
    default="schedule",
    show_default=True,
    help="What counts as the path of a diffusion.",
)
@click.option(
    "--under",
    type=click.Choice(["baseline", "subset", "argmax", "paraphrase", "enhanced"]),
    multiple=True,
    help="A condition of the probe to account for (repeatable); default: baseline.",
)
@intervene_option
@click.option("--paths", type=click.IntRange(min=0), default=8, show_default=True, help="Weighed per grid, for H(Z|X).")
@click.option("--path-samples", type=click.IntRange(min=0), help="Grids per prompt that get them; default: n / paths.")
@click.option(
    "--mixture-samples",
    type=click.IntRange(min=0),
    help="Grids per prompt that are asked under all wordings, for I(X;Z); default: n / wordings of all prompts.",
)
def information(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    reading: Literal["schedule", "trajectory"],
    under: Sequence[str],
    intervene: Sequence[str],
    paths: int,
    path_samples: int | None,
    mixture_samples: int | None,
    seed: int,
    out: str | None,
    setup: Setup,
) -> None:
    """Where the entropy of MODELS sits: path, execution, H(Z|X), H(Z) and I(X;Z), in bits per image and per token."""
    need_two(n, "Monte-Carlo error")
    if under and intervene:
        raise click.UsageError("--under names a condition, --intervene makes one: expected one of both")
    from divlens.conditions import default_conditions
    from divlens.information import Effort
    from divlens.information.api import information_of
    from divlens.information.plan import accountings
    from divlens.models.answers import asked_prompts, loaded_models
    from divlens.notation import condition_of_all
    from divlens.results import joint_request, request_so_far

    prompts = chosen_prompts(prompt_file, limit, INFORMATION_PROMPTS)
    effort, known = Effort(paths, path_samples, mixture_samples), default_conditions()
    conditions = {name: known[name] for name in under} or condition_of_all(intervene)
    check_folder(out, request_so_far("information", conditions, seed))
    loaded = loaded_models(setup.load(models))
    asked = asked_prompts(loaded, prompts)
    planned = [
        accounting
        for model in loaded
        for accounting in accountings(
            model, asked, n, seed, conditions, reading=reading, effort=effort, batch_size=setup.batch_size
        )
    ]
    with storing(out, joint_request([accounting.request for accounting in planned]), loaded) as folder:
        deliver([information_of(each, folder=folder, progress=setup.reporter) for each in planned], folder)


@command()
@click.argument("models", nargs=-1, required=True)
@prompts_option
@limit_option
@click.option("--wordings", default=3, show_default=True, help="Wordings of each prompt.")
@click.option("--paths", default=4, show_default=True, help="Path noises of each wording.")
@click.option("--executions", default=4, show_default=True, help="Execution noises of each path.")
@click.option("--decoders", default=1, show_default=True, help="Noises of the decoder, where it has any.")
@click.option("--length-control", is_flag=True, help="Split the wording's part into meaning and length.")
@intervene_option
@lpips_option
def decompose(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    wordings: int,
    paths: int,
    executions: int,
    decoders: int,
    length_control: bool,
    intervene: Sequence[str],
    lpips: str,
    seed: int,
    out: str | None,
    setup: Setup,
) -> None:
    """Split the LPIPS diversity of MODELS by source: wording, path, execution, decoder and their interactions."""
    from divlens.decompose import decompose_design
    from divlens.experiment.design import Levels, design_of
    from divlens.models.answers import asked_prompts, loaded_models
    from divlens.notation import condition_of_all
    from divlens.results import joint_request, request_so_far

    prompts = chosen_prompts(prompt_file, limit, DECOMPOSE_PROMPTS)
    levels = Levels(wordings, paths, executions, decoders)
    conditions = condition_of_all(intervene)
    (interventions,) = conditions.values()
    check_folder(out, request_so_far("decompose", conditions, seed))
    control = {"length_control": length_control, "batch_size": setup.batch_size, "interventions": interventions}
    loaded = loaded_models(setup.load(models))
    asked = asked_prompts(loaded, prompts)
    designs = [design_of(model, asked, levels, seed, **control) for model in loaded]
    with storing(out, joint_request([design.request(lpips) for design in designs]), loaded) as folder:
        deliver([decompose_design(each, lpips, folder=folder, progress=setup.reporter) for each in designs], folder)


@click.command()
@click.argument("name", required=False)
@click.option("--words", is_flag=True, help="Of a model of the zoo: all words that it knows.")
def models(name: str | None, words: bool) -> None:
    """The models that are known by name, or what is known of the model NAME."""
    if name is not None:
        from divlens.report.known import described

        click.echo(described(name, words))
        return
    if words:
        raise click.UsageError("--words expects a model of the zoo: divlens models zoo/ar --words")
    from textwrap import fill

    from divlens.models import known
    from divlens.models.registry import facts_of

    found = {name: facts_of(name) for name in known()}
    rows = [("model", "family", "needs", "checkpoint, for example")]
    rows += [(name, of.family, of.extra and f"[{of.extra}]", of.checkpoint) for name, of in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        put(f"{visible(line.rstrip())}\n")
    put("\n")
    for about in dict.fromkeys(of.about for of in found.values() if of.about):
        names = ", ".join(name for name, of in found.items() if of.about == about)
        put(f"{fill(visible(f'{names}: {about}.'), 80)}\n")
    put(
        "A checkpoint follows a colon, as in amused:amused/amused-256. It is a folder or\n"
        "a repository of the model hub; of a toy, a seed; for the zoo and toys, optional.\n"
        "[diffusers] is installed by pip install 'divlens[diffusers]'.\n"
        "More on one of them: divlens models zoo/ar lists what it knows.\n"
    )


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--repair", is_flag=True, help="Remove files that are damaged; what they held is drawn again.")
@quiet_option
@log_option
def resume(run: str, repair: bool, quiet: bool, log: IO[str] | None) -> None:
    """Go on with the run in the folder RUN, as it was asked for, where it stopped."""
    from divlens.resume import resume as go_on

    with said_when_stopped(run):
        results = go_on(run, arguments=sys.argv[1:], repair=repair, progress=reporter_of(quiet, log))
    if results:
        show_with_verdicts(results)
        put(f"written: {visible(run)}\n")
    else:
        put(f"complete: {visible(run)} has all that was asked for\n")
