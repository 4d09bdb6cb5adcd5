"""What a damaged or foreign checkpoint does: it works, or it is refused in one line. Nothing else, and not for long.

    python studies/fuzz_configurations.py > studies/fuzz_configurations.txt

Each of seven published layouts, with tiny networks, is changed in one place: a field of a JSON file, a whole file, a
tensor. Then the model is loaded and draws one picture. Cases are chosen by a seed. Each layout runs in a process of its
own, which is ended, and begun again behind the case, when it crashes or a case takes longer than a minute.
Takes about ten minutes on one core. `--all` runs every case, `--cases` so many of a layout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the layouts are those of the tests

import torch
from safetensors.torch import load_file, save_file

from divlens.errors import DivlensError
from divlens.models import load
from divlens.models.zoo.assets import packaged_folder, write_tensors
from divlens.sampler import sample
from oracles import tiny_diffusers, tiny_glm_image, tiny_llamagen, tiny_transformers

SECONDS, GIBIBYTES = 60, 2  # that a case may take, the second besides what the process had
FEW = 310  # cases of a layout
REMOVED = "removed"
VALUES = (None, "a text", -1, 0, 10**9, 10**18, 1.5, math.nan, [1], True)
TENSORS_PER_FILE = 6


def make_zoo(folder: Path) -> None:
    for name in ("mim.safetensors", "tokenizer.safetensors", "checksums.json"):
        shutil.copy(packaged_folder() / name, folder / name)


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "amused": lambda folder: tiny_diffusers.saved(tiny_diffusers.amused(), folder),
    "vq-diffusion": lambda folder: tiny_diffusers.saved(tiny_diffusers.vq_diffusion(), folder),
    "llamagen": tiny_llamagen.save,
    "janus": lambda folder: tiny_transformers.saved(tiny_transformers.janus(), folder),
    "emu3": lambda folder: tiny_transformers.saved(tiny_transformers.emu3(), folder),
    "glm-image": lambda folder: tiny_glm_image.saved(tiny_glm_image.glm_image(), folder),
    "zoo/mim": make_zoo,
}


@dataclass(frozen=True)
class Case:
    """A change of one file, by its path in the folder. `change` is given that path, in a copy of the folder."""

    file: str
    what: str
    change: Callable[[Path], None]


def fresh(path: Path, content: bytes) -> None:
    """Another file in its place: the copies of a folder are links to one file."""
    path.unlink()
    path.write_bytes(content)


# Cases


def leaves(content: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where the scalars of a JSON document are; of a list or vocabulary, the first two."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for i, (key, value) in enumerate(items):
        if isinstance(value, dict | list):
            yield from leaves(value, (*place, key))
        elif i < 2 or not (isinstance(content, list) or len(content) > 60):
            yield (*place, key)


def field_cases(folder: Path, file: str) -> Iterator[Case]:
    def set_to(place: tuple, value: object) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            content = json.loads(path.read_text())
            at = content
            for key in place[:-1]:
                at = at[key]
            if value == REMOVED:
                del at[place[-1]]
            else:
                at[place[-1]] = value
            fresh(path, json.dumps(content).encode())

        return change

    for place in leaves(json.loads((folder / file).read_text())):
        for value in (*VALUES, REMOVED):
            yield Case(file, f"{'.'.join(map(str, place))} = {value!r}", set_to(place, value))


def file_cases(file: str) -> Iterator[Case]:
    def become_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def content(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda path: fresh(path, make(path.read_bytes()))

    noise = random.Random(0).randbytes(2000)
    yield Case(file, "cut in half", content(lambda whole: whole[: len(whole) // 2]))
    yield Case(file, "empty", content(lambda _: b""))
    yield Case(file, "a folder", become_folder)
    yield Case(file, "missing", Path.unlink)
    for what, other in (("a list", b"[1, 2]"), ("a number", b"3"), ("an empty object", b"{}"), ("noise", noise)):
        yield Case(file, what, content(lambda _, other=other: other))


def quantised(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "float64": lambda tensor: tensor.double(),
    "float16": lambda tensor: tensor.half(),
    "int8": lambda tensor: tensor.to(torch.int8),
    "int64": lambda tensor: tensor.long(),
    "bool": lambda tensor: tensor.bool(),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "a row more": lambda tensor: torch.cat([tensor, tensor[:1]]) if tensor.ndim else tensor.expand(2).clone(),
    "flat": lambda tensor: tensor.flatten()[:-1].clone(),
    "no rows": lambda tensor: tensor[:0].clone() if tensor.ndim else tensor[None][:0].clone(),
    "one number": lambda tensor: tensor.flatten()[0].clone(),
    "NaN": lambda tensor: torch.full_like(tensor, math.nan),
    "huge numbers": lambda tensor: torch.full(tensor.shape, 3e38),
}
ODD: dict[str, Callable[[torch.Tensor], Any]] = {  # what a pickle may hold besides
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantised": quantised,
    "one number, expanded": lambda tensor: tensor.flatten()[:1].expand(10**9),
    "no tensor": lambda tensor: "a text",
    "without memory": lambda tensor: tensor.to("meta"),
}


def rewritten_safetensors(path: Path, key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    state = load_file(path)
    state[key] = change(state[key]).contiguous()
    if (path.parent / "checksums.json").exists():
        unlinked = path.parent / "checksums.json"
        fresh(unlinked, unlinked.read_bytes())
        path.unlink()
        write_tensors(path.stem, state, path.parent)
        return
    path.unlink()
    save_file(state, path, metadata={"format": "pt"})


def rewritten_pt(path: Path, key: str, change: Callable[[torch.Tensor], Any], compressed: bool = False) -> None:
    content = torch.load(path, weights_only=True)
    state = content["model"]
    state[key] = change(state[key])
    path.unlink()
    torch.save(content, path)
    if compressed:
        compress(path)


def as_bin(path: Path, key: str, change: Callable[[torch.Tensor], Any], compressed: bool = False) -> None:
    """The same weights in torch's own format, as older checkpoints have them."""
    state: dict[str, Any] = load_file(path)
    state[key] = change(state[key])
    path.unlink()
    name = "pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin"
    torch.save(state, path.parent / name)
    if compressed:
        compress(path.parent / name)


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry.filename, content)


def tensor_cases(folder: Path, file: str, chosen: random.Random) -> Iterator[Case]:
    path, zoo = folder / file, (folder / "checksums.json").exists()
    if file.endswith(".pt"):
        keys, rewrite, old = list(torch.load(path, weights_only=True)["model"]), rewritten_pt, rewritten_pt
    else:
        keys, rewrite, old = list(load_file(path)), rewritten_safetensors, as_bin
    for key in chosen.sample(keys, min(TENSORS_PER_FILE, len(keys))):
        for what, change in PLAIN.items():
            yield Case(file, f"{key}: {what}", lambda at, key=key, change=change: rewrite(at, key, change))
        for what, odd in {} if zoo else ODD.items():
            yield Case(file, f"{key}: {what}", lambda at, key=key, odd=odd: old(at, key, odd))
    if not zoo:
        same, first = (lambda tensor: tensor), keys[0]
        yield Case(file, "torch's own format", lambda at: old(at, first, same))
        yield Case(file, "compressed", lambda at: old(at, first, same, True))


def cases_of(folder: Path, seed: int = 0) -> list[Case]:
    chosen, found = random.Random(seed), []
    for path in sorted(folder.rglob("*")):
        file = str(path.relative_to(folder))
        if path.is_dir():
            continue
        found += file_cases(file)
        if path.suffix == ".json":
            found += field_cases(folder, file)
        if path.suffix in (".safetensors", ".pt"):
            found += tensor_cases(folder, file, chosen)
    return found


def few_of(cases: list[Case], count: int, seed: int = 0) -> list[Case]:
    """So many of the cases, as many of one file as of another as far as they go."""
    by_file: dict[str, list[Case]] = {}
    for case in random.Random(seed).sample(cases, len(cases)):
        by_file.setdefault(case.file, []).append(case)
    rounds = max(map(len, by_file.values()))
    ordered = [of[i] for i in range(rounds) for of in by_file.values() if i < len(of)]
    return ordered[:count]


# Running them


@dataclass(frozen=True)
class Outcome:
    """kind: "works", "refused" (one line of a DivlensError), or what must not be: "raw", "lines", "pictures", "memory",
    "slow", "crash"."""

    kind: str
    said: str = ""
    seconds: float = 0.0


def drawn(name: str, folder: Path) -> torch.Tensor:
    model: Any = load(f"{name}:{folder}")
    # The published grids are far larger than what networks this small are for.
    if name == "emu3" and model.grid == (90, 90):
        model = replace(model, grid=(2, 3))
    if name == "glm-image":
        model = replace(model, size=(2, 2), preview=(1, 2), decoder=replace(model.decoder, steps=2))
    if name == "llamagen" and model.side == 128:
        model = replace(model, side=3)
    return sample(model, ["red heart"], n=1).images


def outcome_of(draw: Callable[[], torch.Tensor]) -> Outcome:
    """What comes of one case."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        pictures = draw()
        fine = bool(pictures.isfinite().all()) and pictures.min() >= 0 and pictures.max() <= 1
        kind, said = ("works" if fine else "pictures"), ""
    except DivlensError as error:
        kind, said = ("lines" if "\n" in str(error) else "refused"), str(error)
    except BaseException as error:
        kind, said = "raw", f"{type(error).__name__}: {error}"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > GIBIBYTES * 2**20:
        kind = "memory"
    return Outcome(kind, said, time.perf_counter() - started)


def run_case(name: str, folder: Path, case: Case) -> Outcome:
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        copy = Path(place) / "copy"
        shutil.copytree(folder, copy, copy_function=os.link)
        case.change(copy / case.file)
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            return outcome_of(lambda: drawn(name, copy))


def work(name: str, folder: Path, cases: Sequence[Case], first: int, results: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the packages print
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
    torch.set_num_threads(1)
    for number in range(first, len(cases)):
        results.send((number, run_case(name, folder, cases[number])))


def run_cases(name: str, folder: Path, cases: Sequence[Case]) -> list[Outcome]:
    """An outcome per case."""
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("fork")
    while len(outcomes) < len(cases):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(name, folder, cases, len(outcomes), sending))
        process.start()
        sending.close()
        try:
            while len(outcomes) < len(cases):
                if not receiving.poll(SECONDS):
                    outcomes.append(Outcome("slow", f"more than {SECONDS} s", SECONDS))
                    break
                outcomes.append(receiving.recv()[1])
        except EOFError:
            outcomes.append(Outcome("crash", "the process ended"))
        process.kill()
        process.join()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=FEW)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--each", action="store_true", help="print what came of every case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("layouts", nargs="*", default=list(LAYOUTS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kinds = ("works", "refused", "raw", "lines", "pictures", "memory", "slow", "crash")
    print(f"{'layout':13} {'cases':>5} " + " ".join(f"{kind:>8}" for kind in kinds) + f" {'slowest':>8}")
    total, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as place:
        for name in asked.layouts:
            folder = Path(place) / name.replace("/", "-")
            folder.mkdir()
            LAYOUTS[name](folder)
            cases = cases_of(folder, asked.seed)
            cases = cases if asked.all else few_of(cases, asked.cases, asked.seed)
            outcomes = run_cases(name, folder, cases)
            count = Counter(outcome.kind for outcome in outcomes)
            total += count
            slowest = max(outcome.seconds for outcome in outcomes)
            numbers = " ".join(f"{count[kind]:8}" for kind in kinds)
            print(f"{name:13} {len(cases):5} {numbers} {slowest:6.1f} s", flush=True)
            odd = [
                (case, outcome)
                for case, outcome in zip(cases, outcomes, strict=True)
                if outcome.kind not in ("works", "refused")
            ]
            wrong += [f"{name} {case.file} {case.what}: {out.kind} {out.said[:200]!r}" for case, out in odd]
            for case, outcome in zip(cases, outcomes, strict=True) if asked.each else ():
                print(f"  {case.file} {case.what}: {outcome.kind} {outcome.said}")
    print(f"{'all':13} {total.total():5} " + " ".join(f"{total[kind]:8}" for kind in kinds))
    print("\n".join(wrong) if wrong else "every case works or is refused in one line")


if __name__ == "__main__":
    main()
