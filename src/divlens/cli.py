"""The command line. Thin: it reads arguments, calls the library, prints. torch is loaded when a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from divlens import __version__

if TYPE_CHECKING:
    from divlens.types import Prompt

DEMO_PROMPTS = 12


class LazyGroup(click.Group):
    """A group whose `zoo` subcommands are imported when they are asked for: they need torch and more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "zoo"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "zoo":
            return super().get_command(ctx, cmd_name)
        if ctx.resilient_parsing or set(sys.argv[1:]) == {"--help"}:
            return click.Group("zoo", short_help="The built-in laboratory: fetch its data, train it, measure it.")
        from divlens.zoo.commands import zoo

        return zoo


@click.group(cls=LazyGroup)
@click.version_option(__version__)
def cli() -> None:
    """Where the diversity of discrete-latent image generators comes from, and how to get more of it."""


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--out", type=click.Path(path_type=Path), help="Folder to write to: new, empty, or ours."),
        click.option("--disable-top", default=0.05, show_default=True, help="Enhancer: share of top codes disabled."),
        click.option("--lpips", type=click.Choice(["stlpips", "alex", "vgg"]), default="stlpips", show_default=True),
        click.option("--seed", default=0, show_default=True),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text lines or JSONL.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first so many prompts.  [default without --prompts: 12]")
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
    from divlens.experiment import store
    from divlens.experiment.probe import default_conditions
    from divlens.experiment.probe import probe as run
    from divlens.models import load
    from divlens.prompts import default_prompts, read_prompts
    from divlens.report.tables import probe_tables

    need_two(n)
    prompts: Sequence[Prompt] = read_prompts(prompt_file) if prompt_file else default_prompts()[: limit or DEMO_PROMPTS]
    prompts = prompts[:limit]
    conditions = default_conditions(subset, disable_top)
    if out:
        store.check_output(out)
    loaded = [load(model) for model in models]
    for model in loaded:
        model.encode([prompt.text for prompt in prompts])  # a prompt that is too long is said before any work
    total = len(models) * len(conditions) * len(prompts) * n
    with progress_bar(total) as (advance, describe):
        result = run(
            loaded,
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
    from divlens.enhance import enhance as run
    from divlens.experiment import store
    from divlens.prompts import default_prompts
    from divlens.report.sheets import save_pictures
    from divlens.report.tables import enhance_table
    from divlens.types import Prompt

    need_two(n)
    asked = [Prompt(text) for text in prompts]
    known = {prompt.text: prompt for prompt in default_prompts()}  # they bring paraphrases
    if out:
        store.check_output(out)
    with progress_bar(2 * len(asked) * n) as (advance, describe):
        describe(model)
        result = run(
            model,
            [known.get(prompt.text, prompt) for prompt in asked],
            n,
            seed,
            disable_top=disable_top,
            lpips=lpips,
            on_batch=advance,
        )
    show(enhance_table(result))
    if out:

        def write(folder: Path) -> None:
            save_pictures(result.before.generation.images, folder, "before")
            save_pictures(result.after.generation.images, folder, "after")
            store.write_samples((*result.before.samples, *result.after.samples), folder / "samples.parquet")

        store.write_output(out, {"command": "enhance", "seed": seed, "n": n, "lpips": lpips}, write)
        click.echo(f"written: {out}")


@cli.command()
def models() -> None:
    """The models that are known by name."""
    from divlens.models import known

    for name in known():
        click.echo(name)


def need_two(n: int) -> None:
    if n < 2:
        from divlens.types import DivlensError

        raise DivlensError(f"-n expects at least 2 samples per prompt: with {n} the LPIPS diversity is NaN")


def show(renderable: object) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 80).print(renderable)


@contextmanager
def progress_bar(total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """Samples done of all, with the remaining time, on stderr; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda count: progress.advance(task, count),
            lambda text: progress.update(task, description=text),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input: one line on stderr, exit code 2. Interrupted: 130."""
    try:
        cli.main(args=list(arguments) if arguments is not None else None, prog_name="divlens", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        fail(error.format_message())
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from divlens.types import DivlensError

        if not isinstance(error, DivlensError):
            raise
        fail(str(error))


def fail(message: str) -> None:
    click.echo(f"divlens: error: {' '.join(message.split())}", err=True)
    sys.exit(2)
