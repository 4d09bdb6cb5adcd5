"""What the commands share: options, how models are loaded, progress and output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from divlens.models.protocol import Model
    from divlens.types import Prompt


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
    """A command with the options that all measurements have; those of the models arrive as one `setup`."""
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
        return click.command()(run_with_options)

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


def need_two(n: int, missing: str = "LPIPS diversity") -> None:
    if n < 2:
        raise click.UsageError(f"-n expects at least 2 samples per prompt: with {n} there is no {missing}")


def show(renderable: Any) -> None:
    """Print; 80 columns wide where the output is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 80).print(renderable)


def on_terminal() -> bool:
    """Whether somebody sees how far a run is."""
    from rich.console import Console

    return Console(stderr=True).is_terminal
