"""`divlens reword`: other wordings of prompts. Thin: arguments in, a call of the library, lines out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from divlens.cli.options import named_prompts
from divlens.report.terminal import put
from divlens.showing import counted, visible

if TYPE_CHECKING:
    from divlens.types import Prompt
    from divlens.wordings.sources import Source


@click.command()
@click.argument("prompts", nargs=-1)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="More prompts: text lines or JSONL.")
@click.option("-n", "count", default=8, show_default=True, help="Wordings of each prompt, at most.")
@click.option("--local", metavar="PLACE", help="Ask a language model of transformers: a folder, or a hub repository.")
@click.option(
    "--device", default="cpu", show_default=True, help="Of --local and --encoder: a torch device, such as cuda."
)
@click.option("--endpoint", metavar="URL", help="Ask an OpenAI-compatible endpoint, such as http://localhost:8000/v1.")
@click.option("--model", metavar="NAME", help="With --endpoint: the model, as the endpoint calls it.")
@click.option(
    "--key",
    default="OPENAI_API_KEY",
    show_default=True,
    help="With --endpoint: the variable of the environment that holds the key.",
)
@click.option("--seed", default=0, show_default=True, help="Without --local and --endpoint: which wordings are made.")
@click.option(
    "--for",
    "reader",
    metavar="MODEL",
    help="The model that shall read them: its text encoder checks meaning where no sentence encoder is found.",
)
@click.option("--encoder", metavar="PLACE", help="A sentence encoder of transformers that checks meaning.")
@click.option("--least", type=float, help="The similarity that a wording must have.  [default: 0.8]")
@click.option("--answers", metavar="FOLDER", help="Keep what a model answers here, so that nothing is asked twice.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a prompt file (JSONL) for --prompts of others.",
)
@click.option("--force", is_flag=True, help="Write over a file that exists.")
def reword(
    prompts: Sequence[str],
    prompt_file: Path | None,
    count: int,
    local: str | None,
    device: str,
    endpoint: str | None,
    model: str | None,
    key: str,
    seed: int,
    reader: str | None,
    encoder: str | None,
    least: float | None,
    answers: str | None,
    out: Path | None,
    force: bool,
) -> None:
    """Other wordings of PROMPTS that mean the same: by rules for English or, if one is named, from a language model.

    Each is compared to its prompt: negations, counts, colours and places must be the same, and a text encoder must find
    both alike where there is one: --encoder, or the sentence encoder all-MiniLM-L6-v2 where it was downloaded before,
    or that of the model after --for. What was rejected, and why, is said on stderr; the wordings go to --out or,
    without it, to the screen.
    """
    from divlens.wordings.asking import reworded
    from divlens.wordings.similarity import sentence_similarity, similarity_of

    if out is not None and out.exists() and not force:
        raise click.UsageError(f"{visible(str(out))} exists: name another file, or write over it with --force")
    source = source_from(local, device, endpoint, model, key, seed)
    asked = named_prompts(prompts, prompt_file)
    similarity = sentence_similarity(encoder, device) if encoder else similarity_of(reader)
    if similarity is None and least is not None:
        raise click.UsageError("--least needs a text encoder: name one with --encoder, or a model with --for")
    click.echo(f"meaning is checked word by word{f', and by {similarity.name}' if similarity else ''}", err=True)
    found = reworded(asked, source, count, answers=answers, similarity=similarity, least=least)
    for note in found.notes:
        click.echo(note, err=True)
    if out is None:
        put("".join(f"{visible(wording)}\n" for one in found.prompts for wording in (one.text, *one.paraphrases)))
    else:
        from divlens.files import written_beside

        with written_beside(out) as beside:
            lines = (json.dumps(record_of(prompt), ensure_ascii=False) for prompt in found.prompts)
            beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        wordings = counted(sum(len(one.paraphrases) for one in found.prompts), "wording")
        put(f"written: {visible(str(out))}, {wordings} of {counted(len(found.prompts), 'prompt')}\n")


def source_from(local: str | None, device: str, endpoint: str | None, model: str | None, key: str, seed: int) -> Source:
    """Where wordings come from: rules, where nothing is named."""
    from divlens.wordings.endpoint import Endpoint
    from divlens.wordings.rewriting import Rewriting
    from divlens.wordings.sources import LocalModel

    if local and endpoint:
        raise click.UsageError("expected --local or --endpoint, got both")
    if bool(endpoint) != bool(model):
        raise click.UsageError("--endpoint and --model go together: an address, and what it calls the model")
    if endpoint and model:
        return Endpoint(endpoint, model, key)
    return LocalModel(local, device) if local else Rewriting(seed)


def record_of(prompt: Prompt) -> dict[str, object]:
    """A line of a prompt file."""
    concept = {} if prompt.concept is None else {"concept": prompt.concept}
    return {"prompt": prompt.text, "paraphrases": list(prompt.paraphrases), **concept}
