"""What a reader of results must know of the wordings: which are templates, and what models did not read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from divlens.showing import counted

MOST_NOTES = 4  # that are said one by one


def wording_lines(templated: Sequence[str], prompts: int, unread: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sentences for below a table.

    `templated`: the prompts, of so many `prompts`, whose other wordings are templates. `unread`: by model, what it did
    not read of a wording, for those wordings only.
    """
    lines = []
    if templated:
        lines.append(
            f"Other wordings of {len(templated)} of {counted(prompts, 'prompt')} are templates around the prompt, "
            "which has no paraphrases of its own."
        )
    groups: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for model, notes in unread.items():
        for wording, note in notes.items():
            models, wordings = groups.setdefault(note, ({}, {}))
            models[model] = wordings[wording] = None
    for note, (models, wordings) in list(groups.items())[:MOST_NOTES]:
        where = "" if len(models) == len(unread) else f"{', '.join(models)}: "
        lines.append(f"{where}{note}, in {counted(len(wordings), 'wording')} such as {next(iter(wordings))!r:.60}.")
    rest = {wording for _, wordings in list(groups.values())[MOST_NOTES:] for wording in wordings}
    if rest:
        lines.append(f"{counted(len(rest), 'more wording')} not read whole.")
    return lines
