"""`open_run`: the folder of a run as its readers see it, whoever writes it meanwhile: tables, SQL, pictures made again.

Nothing is locked and nothing is written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from divlens.errors import DivlensError
from divlens.output import Record
from divlens.showing import Block, Shown, counted
from divlens.store.place import Place
from divlens.store.record import check_content, existing_record
from divlens.store.schemas import SAMPLES, TABLES
from divlens.store.shards import Shards
from divlens.store.views import VIEWS, CheckedFiles, answer, literal

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from torch import Tensor

    from divlens.models.protocol import Model


def open_run(folder: str | Path) -> StoredRun:
    """The run in a folder, or at an address that fsspec knows, to be read; complete or not, and while it is written.

    Raises DivlensError where there is no run.
    """
    return StoredRun(folder)


class StoredRun(Shown):
    """A run that is open for reading. `record` is its run.json as it was when the run was opened; samples and figures
    are those that are stored when they are asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.place = Place(folder)
        self.record = existing_record(self.place)
        self.files = CheckedFiles(self.place)
        self.models: dict[tuple[str, str | None], Model] = {}

    @property
    def requests(self) -> Mapping[str, Record]:
        """What was asked for, by the name of the command."""
        return self.record["requests"]

    @property
    def unfinished(self) -> list[str]:
        """The commands that are not complete."""
        return [command for command in self.requests if command not in self.record["complete"]]

    @property
    def is_complete(self) -> bool:
        return bool(self.requests) and not self.unfinished

    @property
    def request(self) -> Record:
        """What was asked for, of a run of one command. Raises DivlensError for several."""
        return self.requests[self.command]

    @property
    def command(self) -> str:
        if len(self.requests) != 1:
            raise DivlensError(
                f"expected a run of one command, {self.place} has {', '.join(self.requests) or 'none'}: name one, as "
                'in run.tables("probe")["table"]'
            )
        return next(iter(self.requests))

    @property
    def samples(self) -> pd.DataFrame:
        """A row per sample, in the order in which they were asked for, with its tokens and what was read in it."""
        return self.sql(
            f"SELECT samples.*, judged FROM {SAMPLES} LEFT JOIN (SELECT DISTINCT ON (cell) cell, judged FROM verdicts) "
            f"USING (cell) {self.in_order('sample', 'cell')}"
        )

    @property
    def scores(self) -> pd.DataFrame:
        """A row per model, condition, prompt and figure: its value, over the first `n` samples of the prompt."""
        return self.sql(f"SELECT * FROM scores {self.in_order('n', 'name')}")

    @property
    def verdicts(self) -> pd.DataFrame:
        """A row per sample that was judged."""
        return self.sql(f"SELECT * FROM verdicts {self.in_order('sample')}")

    @property
    def table(self) -> pd.DataFrame:
        """The table of the run's command, as its result has it."""
        return self.tables(self.command)["table"]

    @property
    def per_prompt(self) -> pd.DataFrame:
        return self.tables(self.command)["per_prompt"]

    def tables(self, command: str) -> dict[str, pd.DataFrame]:
        """All tables of a command, by their names. Raises DivlensError for a command that has none."""
        import pandas as pd

        names = [name for of, name in self.table_names if of == command]
        if not names:
            there = ", ".join(dict.fromkeys(of for of, _ in self.table_names)) or "none"
            hint = f": go on with `divlens resume {self.place}`" if command in self.unfinished else ""
            raise DivlensError(f"{self.place} has no tables of {command}, only of {there}{hint}")
        whole = {name: self.place.read(f"{TABLES}/{command}/{name}.parquet") for name in names}
        return {name: pd.read_parquet(io.BytesIO(content)) for name, content in whole.items()}

    @property
    def table_names(self) -> list[tuple[str, str]]:
        """The tables that are written, each with its command."""
        return [
            (command, name.removesuffix(".parquet"))
            for command in (*self.requests, "score")
            for name in self.place.names(f"{TABLES}/{command}")
            if name.endswith(".parquet")
        ]

    def sql(self, query: str) -> pd.DataFrame:
        """What DuckDB answers. Its tables are samples, scores and verdicts (docs/runs.md has their columns), and those
        of the commands, such as probe_table and probe_per_prompt. Raises DivlensError for what is no query of these,
        and for files that are not what was written."""
        tables = {f"{command}_{name}": f"{TABLES}/{command}/{name}.parquet" for command, name in self.table_names}
        sizes = {request["n"] for request in self.requests.values() if "n" in request}
        return answer(query, self.files, tables, sizes)

    @property
    def view_names(self) -> list[str]:
        """The tables that a query may name."""
        return [*VIEWS, *(f"{command}_{name}" for command, name in self.table_names)]

    def in_order(self, *then: str) -> str:
        """Rows in the order of models, conditions and prompts in which they were asked for."""
        requests = self.requests.values()
        wanted = {
            "model": [name for one in requests for name in one["models"]],
            "condition": [name for one in requests for name in one["conditions"]],
            "prompt": [prompt["text"] for one in requests for prompt in one["prompts"]],
        }
        lists = {column: ", ".join(map(literal, dict.fromkeys(texts))) for column, texts in wanted.items()}
        first = [f"list_position([{texts}], {column})" for column, texts in lists.items() if texts]
        return f"ORDER BY {', '.join([*first, *then])}"

    def images(
        self,
        prompt: str | int,
        condition: str,
        model: str | None = None,
        *,
        samples: Sequence[int] | None = None,
        device: str | None = None,
    ) -> Float[Tensor, "n 3 H W"]:
        """The pictures of the stored samples of a prompt under a condition, made again from their tokens; float32 in
        [0, 1], in the order of their numbers.

        `prompt`: its text, or its place among those asked for, from 0. `model`: its name, needed where there are
        several. `samples`: the numbers of those that are wanted; None is all. `device`: where they are made, in place
        of the one that they were drawn on. Raises DivlensError for names that are not there, and for a model that its
        name does not load or that is another now.
        """
        import numpy as np
        import torch  # not above: tables are read without it

        from divlens.models.answers import pictures_of
        from divlens.models.room import Room
        from divlens.planning import BATCH_SIZE

        whose = self.model_named(model), self.condition_named(condition), self.prompt_named(prompt)
        named = zip(("model", "condition", "prompt"), whose, strict=True)
        where = " AND ".join(f"{column} = {literal(text)}" for column, text in named)
        found = self.sql(
            f"SELECT sample, tokens FROM samples WHERE {where} AND {self.numbered(*whose[:2])} ORDER BY sample, cell"
        )
        if samples is not None:
            if lacking := sorted(set(samples) - set(found["sample"])):
                raise DivlensError(
                    f"{self.place} has no sample {lacking[0]} of {whose[2]!r} under {whose[1]}, but {len(found)} others"
                )
            found = found.set_index("sample").loc[list(samples)]
        if not len(found):
            raise DivlensError(f"{self.place} has no samples of {whose[2]!r} under {whose[1]} yet")
        known = self.model(whose[0], device)
        tokens = torch.from_numpy(np.stack(found["tokens"].to_list()).astype(np.int64)).view(-1, *known.grid)
        return pictures_of(known, tokens.to(device or self.setup(whose[0])["device"]), Room(BATCH_SIZE))

    def numbered(self, model: str, condition: str) -> str:
        """The rows of the table of samples that a command drew by their number, as a condition of SQL; all of them,
        where only a crossed design has the condition."""
        from divlens.store.asked import rows_by_number

        asked = [
            f"({rows_by_number(one, condition)})"
            for one in self.requests.values()
            if "n" in one and model in one["models"] and condition in one["conditions"]
        ]
        return f"({' OR '.join(dict.fromkeys(asked)) or 'true'})"

    def setup(self, model: str) -> Record:
        """How a model was set up."""
        return next(one["setup"][model] for one in self.requests.values() if model in one["setup"])

    def model(self, name: str, device: str | None = None) -> Model:
        """A model of the run, loaded once. Raises DivlensError for one whose content is another now."""
        from divlens.models.fingerprint import fingerprint_of
        from divlens.store.asked import loaded_again

        if (name, device) not in self.models:
            found = loaded_again(name, self.setup(name), device)
            check_content(self.place, name, self.record["models"][name]["content"], fingerprint_of(found))
            self.models[name, device] = found
        return self.models[name, device]

    @property
    def prompts(self) -> list[str]:
        """The texts that were asked for, each once."""
        return list(dict.fromkeys(one["text"] for request in self.requests.values() for one in request["prompts"]))

    @property
    def model_names(self) -> list[str]:
        return list(dict.fromkeys(name for request in self.requests.values() for name in request["models"]))

    def prompt_named(self, prompt: str | int) -> str:
        """The text of a prompt that is named by it, or by its place."""
        texts = self.prompts
        if prompt in texts:
            return str(prompt)
        if str(prompt).isdecimal() and int(prompt) < len(texts):
            return texts[int(prompt)]
        raise DivlensError(
            f"{self.place} has {counted(len(texts), 'prompt')}, 0 to {len(texts) - 1}, got {prompt!r:.80}"
        )

    def condition_named(self, condition: str) -> str:
        return self.one_of("condition", condition, "conditions")

    def model_named(self, model: str | None) -> str:
        """A model by its name; None is the only one."""
        names = self.model_names
        if model is None and len(names) == 1:
            return names[0]
        if model is not None and f"{model}:0" in names:  # of a toy the seed may be left out
            return f"{model}:0"
        return self.one_of("model", model, "models")

    def one_of(self, kind: str, name: str | None, listed: str) -> str:
        names = list(dict.fromkeys(each for request in self.requests.values() for each in request[listed]))
        if name not in names:
            raise DivlensError(f"{self.place} expects a {kind} among {', '.join(names)}, got {name!r:.80}")
        return str(name)

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """The rows of the samples' files, as these say, and their bytes; of files that cannot be read neither."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = size = 0
        for shard in Shards(self.place, SAMPLES).live:
            name = f"{SAMPLES}/{shard.name}"
            try:
                with self.place.open(name) as file:
                    rows += pq.ParquetFile(file).metadata.num_rows
                size += self.place.size(name)
            except (OSError, pa.ArrowException):
                continue
        return rows, size

    @property
    def headline(self) -> str:
        state = "complete" if self.is_complete else "not complete"
        rows, size = self.sizes
        commands = " and ".join(self.requests) or "nothing"
        return f"StoredRun {self.place}: {commands}, {state}, {counted(rows, 'sample')} in {bytes_text(size)}"

    @property
    def blocks(self) -> list[Block]:
        rows = [
            (
                command,
                "no" if command in self.unfinished else "yes",
                ", ".join(one["models"]),
                str(len(one["conditions"])),
                str(len(one["prompts"])),
                str(one.get("n", "")),
                str(one["seed"]),
            )
            for command, one in self.requests.items()
        ]
        return [Block("", ("command", "complete", "models", "conditions", "prompts", "n", "seed"), rows)]

    @property
    def notes(self) -> list[str]:
        return list(self.hints())

    def hints(self) -> Iterator[str]:
        yield f"Tables of .sql(): {', '.join(self.view_names)}."
        if self.unfinished:
            yield f"{', '.join(self.unfinished)}: not complete. To go on: divlens resume {self.place}"


def bytes_text(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
