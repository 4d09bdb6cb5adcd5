"""What the commands share: options, how models are loaded, what is asked, progress and output."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from divlens.cli.verdict import show_with_verdicts
from divlens.errors import DivlensError, check_text
from divlens.report.terminal import put, show
from divlens.showing import visible
from divlens.store.share import Share, share_from

if TYPE_CHECKING:
    from divlens.models.protocol import Model
    from divlens.output import Record
    from divlens.progress import Reporter
    from divlens.results import Result
    from divlens.store.folder import RunFolder
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
    quiet: bool = False
    log: IO[str] | None = None

    @property
    def reporter(self) -> Reporter:
        return reporter_of(self.quiet, self.log)

    def load(self, specs: Sequence[str]) -> list[Model]:
        """The models. Raises DivlensError for a name that is not known before any of them is loaded."""
        from divlens.models import known, load
        from divlens.models.registry import factory_of

        names = set(known())
        for place, spec in enumerate(specs):
            check_text("a model's name", spec)
            name = spec.partition(":")[0]
            try:
                if name not in names:
                    factory_of(name)
            except DivlensError as error:
                if "did you mean" not in str(error) and (place or " " in spec):  # more likely a prompt than a model
                    raise DivlensError(f"{error}; prompts go into a file, a prompt per line: --prompts FILE") from None
                raise
        options = {"dtype": self.dtype, "truncate": self.truncate, "compile": self.compile}
        return [load(spec, self.device, **options) for spec in specs]


quiet_option = click.option("--quiet", is_flag=True, help="Do not show how far the run is.")
log_option = click.option(
    "--log-json",
    "log",
    type=click.File("a", lazy=False),
    help="A file to which how far the run is goes as JSON, an object a line.",
)


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What the model computes in.",
)
skip_broken_option = click.option(
    "--skip-broken", is_flag=True, help="Leave out picture files that cannot be read, in place of refusing them."
)


def listed(names: str) -> list[str]:
    """Names that commas part."""
    return [name.strip() for name in names.split(",") if name.strip()]


def reporter_of(quiet: bool, log: IO[str] | None) -> Reporter:
    """How far a run is: on stderr, and in a file of JSON lines."""
    from divlens.progress import JsonLines, Several, usual_reporter

    return Several([*([] if quiet else [usual_reporter()]), *([JsonLines(log)] if log else [])])


def command() -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the options that all measurements have; those of the models arrive as one `setup`."""
    options = (
        click.option("--batch-size", default="96", type=BatchSizeType(), show_default=True, help="auto: what fits."),
        click.option("--compile", is_flag=True, help="torch.compile the network."),
        click.option("--truncate", is_flag=True, help="Cut a wording that the model cannot read whole."),
        dtype_option,
        click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda."),
        click.option(
            "--out",
            metavar="FOLDER",
            help="The folder of a run: what it holds is not drawn again, and what is new is stored as it is drawn.",
        ),
        log_option,
        quiet_option,
        click.option("--seed", default=0, show_default=True, help="Of the noise: the same seed, the same samples."),
    )

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(*arguments: Any, **given: Any) -> Any:
            of_setup = {field.name: given.pop(field.name) for field in fields(Setup)}
            return function(*arguments, setup=Setup(**of_setup), **given)

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
    "--lpips",
    type=click.Choice(["stlpips", "alex", "vgg"]),
    default="stlpips",
    show_default=True,
    help="The network of LPIPS.",
)
condition_option = click.option(
    "--condition",
    "named",
    multiple=True,
    metavar="NAME=INTERVENTIONS",
    help='In place of the usual ones, beside baseline (repeatable): --condition "hot=Temperature(1.3), TopP(0.9)".',
)
sweep_option = click.option(
    "--sweep",
    "swept",
    multiple=True,
    metavar="INTERVENTION=DOSES",
    help='An intervention at several doses, in place of the usual conditions (repeatable): --sweep "Subset=1,0.5,0.1".',
)
intervene_option = click.option(
    "--intervene",
    multiple=True,
    metavar="INTERVENTION",
    help='As Python writes it (repeatable, in order): --intervene "Subset(0.25)".',
)
disable_option = click.option(
    "--disable-top", default=0.05, show_default=True, help="Enhancer: share of top codes disabled; 0: none."
)


ray_option = click.option(
    "--ray",
    metavar="auto|ADDRESS",
    help="Draw and measure on the workers of a Ray cluster, or (auto) on those of this machine.",
)
shard_option = click.option(
    "--shard",
    "share",
    metavar="K/N",
    callback=lambda context, option, text: None if text is None else share_from(text),
    help="Draw the K-th of N shards of the run only; `divlens merge` makes one run of all.",
)


def chosen_prompts(prompt_file: Path | None, limit: int | None, usual: int | None) -> Sequence[Prompt]:
    """The first of a file's prompts, or `usual` of those that come with the zoo; None for all."""
    from divlens.models.zoo.prompts import default_prompts
    from divlens.prompts import read_prompts

    return read_prompts(prompt_file)[:limit] if prompt_file else default_prompts()[: limit or usual]


def named_prompts(texts: Sequence[str], prompt_file: Path | None) -> Sequence[str | Prompt]:
    """Prompts of the command line, then those of a file."""
    from divlens.prompts import read_prompts

    if not texts and prompt_file is None:
        raise click.UsageError(
            "Missing argument 'PROMPTS...': expected a prompt, or a file of them with --prompts FILE"
        )
    listed = read_prompts(prompt_file) if prompt_file else ()
    return [*(text.strip() for text in texts), *listed]  # as the lines of a file


def need_two(n: int, missing: str = "LPIPS diversity") -> None:
    if n < 2:
        raise click.UsageError(f"-n expects at least 2 samples per prompt: with {n} there is no {missing}")


def check_folder(out: str | None, request: Record, share: Share | None = None, ray: str | None = None) -> None:
    """Refuse a folder that `--out` cannot use, before any work: `request` is what is known of it then."""
    if share and not out:
        raise click.UsageError("--shard expects --out FOLDER, which holds the shard until all are merged")
    if ray is not None:
        from divlens.experiment.workers import check_on_ray

        check_on_ray(ray, out)
    if out:
        from divlens.store.record import check_request

        check_request(out, request, share)


@contextmanager
def storing(
    out: str | None, request: Record, models: Sequence[Model], share: Share | None = None
) -> Iterator[RunFolder | None]:
    """The folder of a run, or of a share of it, open for writing, or None."""
    from divlens.store.folder import run_for

    with said_when_stopped(out), run_for(out, request, models, sys.argv[1:], share=share) as folder:
        yield folder


@contextmanager
def said_when_stopped(out: str | None) -> Iterator[None]:
    """Where the user stops a run, a line says how to go on; none where nothing is stored yet."""
    try:
        yield
    except KeyboardInterrupt:
        from divlens.store.place import Place
        from divlens.store.record import NAME
        from divlens.store.stopping import undisturbed

        with undisturbed(), suppress(OSError):
            if out and Place(out).has(NAME):
                again = f"divlens resume {shlex.quote(out)}"
                put(f"divlens: stopped; {visible(out)} keeps what was drawn. To go on: {visible(again)}\n", sys.stderr)
        raise


def deliver(results: Sequence[Result], folder: RunFolder | None) -> None:
    """Write the tables, then print them: whoever reads the tables may leave before the end. Results that cannot be
    written are at least printed.

    Raises DivlensError when one of both fails, and BrokenPipeError when nobody reads.
    """
    from divlens.results import finished
    from divlens.showing import together

    try:
        finished(results, folder)
    except Exception:
        show(together(results))
        raise
    try:
        show_with_verdicts(results)
        if folder:
            put(f"written: {visible(str(folder.place))}\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        written = f"; the results are in {folder.place}" if folder else ""
        raise DivlensError(f"cannot write the table to stdout: {error.strerror}{written}") from error


def say_drawn(folder: RunFolder) -> None:
    """Of a shard: what is here, and what makes tables of it."""
    share = folder.share
    assert share is not None
    put(
        f"written: {visible(str(folder.place))} has shard {share}, {folder.drawn} samples drawn now; the tables come "
        f"of all {share.of}: divlens merge SHARD... --out RUN\n"
    )
