"""The command line. Thin: it reads arguments, calls the library, prints. torch is loaded when a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from divlens import __version__

if TYPE_CHECKING:
    from divlens.models.protocol import Model
    from divlens.types import Prompt

PROBE_PROMPTS, INFORMATION_PROMPTS, DECOMPOSE_PROMPTS = 12, 12, 16


class LazyZoo(click.Group):
    """`divlens zoo`: its commands need torch and more, so they are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from divlens.zoo.commands import zoo

        return zoo.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from divlens.zoo.commands import zoo

        return zoo.get_command(ctx, cmd_name)


@click.group(invoke_without_command=True)
@click.version_option(__version__)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Where the diversity of discrete-latent image generators comes from, and how to get more of it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


cli.add_command(LazyZoo("zoo", help="The built-in laboratory: fetch its data, train it, measure it."))


class BatchSizeType(click.ParamType):
    """A number of at least 1, or "auto"."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


@dataclass(frozen=True)
class Setup:
    """How models are loaded and run: see `divlens.load` and `divlens.sample`."""

    device: str
    dtype: str
    truncate: bool
    compile: bool
    batch_size: Any

    def load(self, spec: str) -> Model:
        from divlens.models import load

        return load(spec, self.device, dtype=self.dtype, truncate=self.truncate, compile=self.compile)


def command() -> Callable[[Callable[..., Any]], click.Command]:
    """A command of `cli` with the options that all have; those of the models arrive as one `setup`."""
    options = (
        click.option("--batch-size", default="96", type=BatchSizeType(), show_default=True, help="auto: what fits."),
        click.option("--compile", is_flag=True, help="torch.compile the network."),
        click.option("--truncate", is_flag=True, help="Cut a wording that the model cannot read whole."),
        click.option(
            "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True
        ),
        click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda."),
        click.option(
            "--out", type=click.Path(path_type=Path), help="Folder to write to: new, empty, or divlens's own."
        ),
        click.option("--seed", default=0, show_default=True),
    )

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(
            *arguments: Any, device: str, dtype: str, truncate: bool, compile: bool, batch_size: Any, **others: Any
        ) -> Any:
            return function(*arguments, setup=Setup(device, dtype, truncate, compile, batch_size), **others)

        run_with_options: Callable[..., Any] = run
        for option in options:
            run_with_options = option(run_with_options)
        return cli.command()(run_with_options)

    return decorate


prompts_option = click.option(
    "--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text lines or JSONL; default: the zoo's."
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Use the first so many prompts.")
lpips_option = click.option(
    "--lpips", type=click.Choice(["stlpips", "alex", "vgg"]), default="stlpips", show_default=True
)
disable_option = click.option(
    "--disable-top", default=0.05, show_default=True, help="Enhancer: share of top codes disabled."
)


def chosen_prompts(prompt_file: Path | None, limit: int | None, usual: int) -> Sequence[Prompt]:
    """The first of a file's prompts, or `usual` of those that come with the zoo."""
    from divlens.prompts import default_prompts, read_prompts

    return read_prompts(prompt_file)[:limit] if prompt_file else default_prompts()[: limit or usual]


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
@click.option("--argmax", is_flag=True, help="Under Argmax: the token draw is deterministic.")
def information(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    reading: Literal["schedule", "trajectory"],
    argmax: bool,
    seed: int,
    out: Path | None,
    setup: Setup,
) -> None:
    """Where the entropy of MODELS sits: path, execution, H(Z|X), H(Z) and I(X;Z), in bits per image and per token."""
    need_two(n)
    from divlens.experiment import store
    from divlens.experiment.probe import loaded_models
    from divlens.information import information as run
    from divlens.interventions import Argmax
    from divlens.report.tables import information_tables

    prompts = chosen_prompts(prompt_file, limit, INFORMATION_PROMPTS)
    if out:
        store.check_output(out)
    loaded = loaded_models([setup.load(spec) for spec in models])
    interventions = (Argmax(),) if argmax else ()
    results = []
    with progress_bar(len(models) * len(prompts) * n) as (advance, describe):
        for model in loaded:
            describe(model.name)
            results.append(
                run(
                    model,
                    prompts,
                    n,
                    seed,
                    interventions=interventions,
                    reading=reading,
                    judge=label_reader(model),
                    batch_size=setup.batch_size,
                    on_batch=advance,
                )
            )
    show(information_tables(results))
    if out:
        store.write_tables(
            {"table": [result.table for result in results], "steps": [result.steps_table for result in results]},
            {"command": "information", "models": list(models), "n": n, "seed": seed, "reading": reading},
            out,
        )
        click.echo(f"written: {out}")


def label_reader(model: Model) -> Any:
    """The zoo's judge as a reader of concepts, for the zoo's models."""
    from divlens.experiment.probe import judge_for

    judge = judge_for(model)
    return judge and (lambda images: [judge.concepts[i] for i in judge(images).concept[:, 0].tolist()])


@command()
@click.argument("model")
@prompts_option
@limit_option
@click.option("--wordings", default=3, show_default=True, help="Wordings of each prompt.")
@click.option("--paths", default=4, show_default=True, help="Path noises of each wording.")
@click.option("--executions", default=4, show_default=True, help="Execution noises of each path.")
@click.option("--length-control", is_flag=True, help="Split the wording's part into meaning and length.")
@lpips_option
def decompose(
    model: str,
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
    """Split the LPIPS diversity of MODEL by source: wording, path, execution and their interactions."""
    from divlens.decompose import decompose as run
    from divlens.diversity import load_network
    from divlens.experiment import store
    from divlens.report.tables import decomposition_table

    prompts = chosen_prompts(prompt_file, limit, DECOMPOSE_PROMPTS)
    if out:
        store.check_output(out)
    loaded, network = setup.load(model), load_network(lpips)
    with progress_bar(None) as (advance, describe):
        describe(model)
        result = run(
            loaded,
            prompts,
            wordings,
            paths,
            executions,
            seed,
            features=network.to(setup.device),
            length_control=length_control,
            batch_size=setup.batch_size,
            on_batch=advance,
        )
    show(decomposition_table(result))
    if out:
        about = {"command": "decompose", "models": [model], "levels": list(result.levels), "seed": seed, "lpips": lpips}
        store.write_tables({"table": [result.table], "per_prompt": [result.per_prompt]}, about, out)
        click.echo(f"written: {out}")


@cli.command()
def models() -> None:
    """The models that are known by name."""
    from divlens.models import known

    for name in known():
        click.echo(name)


def need_two(n: int) -> None:
    if n < 2:
        raise click.UsageError(f"-n expects at least 2 samples per prompt: with {n} the LPIPS diversity is NaN")


def show(renderable: Any) -> None:
    """Print; 80 columns wide where the output is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 80).print(renderable)


@contextmanager
def progress_bar(total: int | None) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """Samples done of all (None: not known), with the remaining time, on stderr; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda count: progress.advance(task, count),
            lambda text: progress.update(task, description=text),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input: one line on stderr, exit code 2. Interrupted: 130."""
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="divlens", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        fail(error.format_message())
    except Exception as error:
        from divlens.types import DivlensError

        if not isinstance(error, DivlensError):
            raise
        fail(str(error))


def fail(message: str) -> None:
    click.echo(f"divlens: error: {' '.join(message.split())}", err=True)
    sys.exit(2)
