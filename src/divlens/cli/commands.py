"""The commands that measure. Thin: arguments in, a call of the library, a table out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

import click

from divlens.cli.options import (
    Setup,
    chosen_prompts,
    command,
    disable_option,
    limit_option,
    lpips_option,
    need_two,
    progress_bar,
    prompts_option,
    show,
)

PROBE_PROMPTS, INFORMATION_PROMPTS, DECOMPOSE_PROMPTS = 12, 12, 16


@command()
@click.argument("models", nargs=-1, required=True)
@prompts_option
@limit_option
@click.option("-n", "n", default=8, show_default=True, help="Samples per prompt, at least 2.")
@click.option("--subset", default=0.5, show_default=True, help="Subset: share of the codebook that stays.")
@disable_option
@lpips_option
def probe(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    subset: float,
    disable_top: float,
    lpips: str,
    seed: int,
    out: Path | None,
    setup: Setup,
) -> None:
    """How much diversity MODELS have, and how much is left under Subset, Argmax and Paraphrase."""
    need_two(n)
    from divlens.experiment import store
    from divlens.experiment.probe import default_conditions
    from divlens.experiment.probe import probe as run
    from divlens.report.tables import probe_tables

    prompts = chosen_prompts(prompt_file, limit, PROBE_PROMPTS)
    conditions = default_conditions(subset, disable_top)
    if out:
        store.check_output(out)
    loaded = [setup.load(spec) for spec in models]
    with progress_bar(len(models) * len(conditions) * len(prompts) * n) as (advance, describe):
        result = run(
            loaded,
            prompts,
            n,
            seed,
            conditions=conditions,
            lpips=lpips,
            batch_size=setup.batch_size,
            on_batch=advance,
            on_condition=lambda model, condition: describe(f"{model} {condition}"),
        )
    show(probe_tables(result.table))
    if out:
        store.write_probe(result, out)
        click.echo(f"written: {out}")


@command()
@click.argument("model")
@click.argument("prompts", nargs=-1, required=True)
@click.option("-n", "n", default=16, show_default=True, help="Samples per prompt, at least 2.")
@disable_option
@lpips_option
def enhance(
    model: str,
    prompts: Sequence[str],
    n: int,
    disable_top: float,
    lpips: str,
    seed: int,
    out: Path | None,
    setup: Setup,
) -> None:
    """Draw PROMPTS with MODEL as it is and enhanced: mixed-length wordings, the most used codes disabled."""
    need_two(n)
    from divlens.enhance import enhance as run
    from divlens.experiment import store
    from divlens.prompts import default_prompts
    from divlens.report.sheets import write_enhanced
    from divlens.report.tables import enhance_table

    shipped = {prompt.text: prompt for prompt in default_prompts()}  # they bring their paraphrases
    asked = [shipped.get(text, text) for text in prompts]
    if out:
        store.check_output(out)
    loaded = setup.load(model)
    with progress_bar(2 * len(asked) * n) as (advance, describe):
        describe(model)
        result = run(
            loaded,
            asked,
            n,
            seed,
            disable_top=disable_top,
            lpips=lpips,
            batch_size=setup.batch_size,
            on_batch=advance,
        )
    show(enhance_table(result))
    if out:
        write_enhanced(result, out, {"disable_top": disable_top, "lpips": lpips})
        click.echo(f"written: {out}")


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
    default=["baseline"],
    show_default=True,
    help="A condition of the probe to account for (repeatable).",
)
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
    paths: int,
    path_samples: int | None,
    mixture_samples: int | None,
    seed: int,
    out: Path | None,
    setup: Setup,
) -> None:
    """Where the entropy of MODELS sits: path, execution, H(Z|X), H(Z) and I(X;Z), in bits per image and per token."""
    need_two(n, "Monte-Carlo error")
    from divlens.experiment import store
    from divlens.experiment.probe import default_conditions, judge_for, loaded_models
    from divlens.information import Effort
    from divlens.information import information as run
    from divlens.report.maps import write_information
    from divlens.report.tables import information_tables

    prompts = chosen_prompts(prompt_file, limit, INFORMATION_PROMPTS)
    conditions, effort = default_conditions(), Effort(paths, path_samples, mixture_samples)
    if out:
        store.check_output(out)
    loaded = loaded_models([setup.load(spec) for spec in models])
    results = []
    with progress_bar(len(models) * len(under) * len(prompts) * n) as (advance, describe):
        for model in loaded:
            for name in dict.fromkeys(under):
                describe(f"{model.name} {name}")
                result = run(
                    model,
                    prompts,
                    n,
                    seed,
                    interventions=conditions[name],
                    reading=reading,
                    judge=judge_for(model),
                    effort=effort,
                    batch_size=setup.batch_size,
                    on_batch=advance,
                    on_bounds=partial(describe, f"{model.name} {name}: bounds"),
                )
                results.append(result)
    show(information_tables(results))
    if out:
        about = {"command": "information", "models": list(models), "under": list(under), "n": n, "seed": seed}
        about |= {"prompts": [prompt.text for prompt in prompts], "reading": reading, "effort": asdict(effort)}
        cut = [dict(result.cuts) for result in results]
        write_information(results, about | {"cut": cut}, out)
        click.echo(f"written: {out}")


@command()
@click.argument("models", nargs=-1, required=True)
@prompts_option
@limit_option
@click.option("--wordings", default=3, show_default=True, help="Wordings of each prompt.")
@click.option("--paths", default=4, show_default=True, help="Path noises of each wording.")
@click.option("--executions", default=4, show_default=True, help="Execution noises of each path.")
@click.option("--length-control", is_flag=True, help="Split the wording's part into meaning and length.")
@lpips_option
def decompose(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    wordings: int,
    paths: int,
    executions: int,
    length_control: bool,
    lpips: str,
    seed: int,
    out: Path | None,
    setup: Setup,
) -> None:
    """Split the LPIPS diversity of MODELS by source: wording, path, execution and their interactions."""
    from divlens.decompose import decompose as run
    from divlens.diversity import load_network
    from divlens.experiment import store
    from divlens.experiment.probe import loaded_models
    from divlens.report.tables import decomposition_table

    prompts = chosen_prompts(prompt_file, limit, DECOMPOSE_PROMPTS)
    if out:
        store.check_output(out)
    loaded, network = loaded_models([setup.load(spec) for spec in models]), load_network(lpips).to(setup.device)
    results = []
    with progress_bar(None) as (advance, describe):
        for model in loaded:
            describe(model.name)
            result = run(
                model,
                prompts,
                wordings,
                paths,
                executions,
                seed,
                features=network,
                length_control=length_control,
                batch_size=setup.batch_size,
                on_batch=advance,
            )
            results.append(result)
    for i, result in enumerate(results):
        if i:
            click.echo()
        show(decomposition_table(result))
    if out:
        about = {"command": "decompose", "models": list(models), "seed": seed, "lpips": lpips}
        about |= {"levels": {result.model: list(result.levels) for result in results}}
        names = ("table", "per_prompt")
        tables = {name: [getattr(one, name).assign(model=one.model) for one in results] for name in names}
        store.write_tables(tables, about, out)
        click.echo(f"written: {out}")


@click.command()
def models() -> None:
    """The models that are known by name."""
    from textwrap import fill

    from divlens.models import known
    from divlens.models.registry import facts_of

    found = {name: facts_of(name) for name in known()}
    rows = [("model", "family", "needs", "checkpoint, for example")]
    rows += [(name, of.family, of.extra and f"[{of.extra}]", of.checkpoint) for name, of in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo()
    for about in dict.fromkeys(of.about for of in found.values() if of.about):
        click.echo(fill(f"{', '.join(name for name, of in found.items() if of.about == about)}: {about}.", 80))
    click.echo(
        "A checkpoint follows a colon, as in amused:amused/amused-256. It is a folder or\n"
        "a repository of the model hub; of a toy, a seed; for the zoo and toys, optional.\n"
        "[diffusers] is installed by pip install 'divlens[diffusers]'."
    )
