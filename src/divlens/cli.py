"""The command line. Thin: it reads arguments, calls the library, prints. torch is loaded when a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from divlens import __version__

DEMO_PROMPTS = 12


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


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--out", type=click.Path(path_type=Path), help="Folder to write to: new, empty, or divlens's own."
        ),
        click.option("--disable-top", default=0.05, show_default=True, help="Enhancer: share of top codes disabled."),
        click.option("--lpips", type=click.Choice(["stlpips", "alex", "vgg"]), default="stlpips", show_default=True),
        click.option("--seed", default=0, show_default=True),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text lines or JSONL.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first so many prompts; 12 without --prompts.")
@click.option("-n", "n", default=8, show_default=True, help="Samples per prompt, at least 2.")
@click.option("--subset", default=0.5, show_default=True, help="Subset: share of the codebook that stays.")
@shared_options
def probe(
    models: Sequence[str],
    prompt_file: Path | None,
    limit: int | None,
    n: int,
    subset: float,
    seed: int,
    lpips: str,
    disable_top: float,
    out: Path | None,
) -> None:
    """How much diversity MODELS have, and how much is left under Subset, Argmax and Paraphrase."""
    need_two(n)
    from divlens.experiment import store
    from divlens.experiment.probe import default_conditions
    from divlens.experiment.probe import probe as run
    from divlens.prompts import default_prompts, read_prompts
    from divlens.report.tables import probe_tables

    prompts = read_prompts(prompt_file)[:limit] if prompt_file else default_prompts()[: limit or DEMO_PROMPTS]
    conditions = default_conditions(subset, disable_top)
    if out:
        store.check_output(out)
    with progress_bar(len(models) * len(conditions) * len(prompts) * n) as (advance, describe):
        result = run(
            models,
            prompts,
            n,
            seed,
            conditions=conditions,
            lpips=lpips,
            on_batch=advance,
            on_condition=lambda model, condition: describe(f"{model} {condition}"),
        )
    show(probe_tables(result.table))
    if out:
        store.write_probe(result, out)
        click.echo(f"written: {out}")


@cli.command()
@click.argument("model")
@click.argument("prompts", nargs=-1, required=True)
@click.option("-n", "n", default=16, show_default=True, help="Samples per prompt, at least 2.")
@shared_options
def enhance(
    model: str, prompts: Sequence[str], n: int, seed: int, lpips: str, disable_top: float, out: Path | None
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
    with progress_bar(2 * len(asked) * n) as (advance, describe):
        describe(model)
        result = run(model, asked, n, seed, disable_top=disable_top, lpips=lpips, on_batch=advance)
    show(enhance_table(result))
    if out:
        write_enhanced(result, out, {"disable_top": disable_top, "lpips": lpips})
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
def progress_bar(total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """Samples done of all, with the remaining time, on stderr; silent where that is no terminal."""
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
