"""Calibration: measured once and kept, never taken from another model, and never in the way of a run."""

import errno
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from torch import Tensor

from divlens import calibration, models, probe
from divlens.calibration import cache_folder, cache_name, frequencies_of, keep, read
from divlens.cli import main
from divlens.errors import DivlensWarning
from divlens.interventions import DisableTop, Subset
from divlens.models.fingerprint import fingerprint_of
from divlens.models.llamagen.adapter import load as load_llamagen
from divlens.models.loading import Options
from divlens.models.protocol import Model
from divlens.models.wrap import wrap
from divlens.paths import Raster
from divlens.planning import Reading
from divlens.sampler import sample
from oracles import tiny_llamagen, tiny_transformers

PROMPTS = ["red heart", "a cat"]
SHARE = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
NAME = "0123.npy"


def kept() -> list[Path]:
    return sorted(cache_folder().iterdir()) if cache_folder().is_dir() else []


def file_name(model: Model) -> str:
    fingerprint = fingerprint_of(model)
    assert fingerprint is not None
    return cache_name(fingerprint, model.calibration_prompts())


def allowed_codes(model: Model, *interventions) -> set[int]:
    allowed = Reading(model).settings(interventions).allowed
    assert allowed is not None
    return set(allowed.nonzero().flatten().tolist())


# Measured once


def test_frequencies_are_measured_once_and_sum_to_one():
    runs = []

    def generate():
        runs.append(1)
        return torch.tensor([[0, 0, 2], [0, 1, 2]])

    def measured(name):
        model = models.load(name)
        return frequencies_of(model, lambda: fingerprint_of(model), generate)

    first, second = measured("toy/ar"), measured("toy/ar")
    assert len(runs) == 1 and torch.equal(first, second)
    torch.testing.assert_close(first, torch.tensor([3, 1, 2], dtype=torch.float64) / 6)
    measured("toy/mim")
    assert len(runs) == 2  # another model is another measurement
    assert [path.suffix for path in kept()] == [".npy"] * 2  # nothing half-written is left


def test_sampling_with_subset_leaves_one_measurement_behind():
    model = models.load("toy/diffusion")
    sample(model, PROMPTS, n=1, interventions=[Subset(0.7), DisableTop(0.3)])
    (path,) = kept()
    share = np.load(path)
    assert share.shape == (3,) and abs(share.sum() - 1) < 1e-12 and (share > 0).all()
    before = path.stat().st_mtime_ns
    sample(model, PROMPTS, n=1, interventions=[Subset(0.7)])
    assert path.stat().st_mtime_ns == before
    sample(models.load("toy/ar"), PROMPTS, n=1)
    assert len(kept()) == 1  # no measurement that nobody asked for


# Of this model and of no other


@dataclass(frozen=True)
class Outside:
    """A model from elsewhere: autoregressive, the logits of each position fixed. It says nothing of what it is."""

    logits: Tensor  # positions, codes
    calls: list[int]  # rows of each batch
    name: str = "studio/tables"
    guidance: float = 1.0

    @property
    def codes(self) -> int:
        return self.logits.shape[1]

    @property
    def mask(self) -> int:
        return self.codes

    @property
    def grid(self) -> tuple[int, int]:
        return 1, len(self.logits)

    @property
    def rule(self) -> Raster:
        return Raster(len(self.logits))

    def encode(self, wordings: Sequence[str]) -> Tensor:
        return torch.zeros(len(wordings), 1)

    def predictor(self, conditions: Tensor, guided: bool):
        self.calls.append(len(conditions))
        return lambda view: (self.logits[view.first].expand(len(conditions), 1, -1), None)

    def decode(self, tokens: Tensor) -> Tensor:
        return (tokens[:, :, :1, None] / self.codes).expand(-1, 3, 32, 32)

    def frequencies(self) -> None:
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return "a", "b", "c", "d", "e"


@dataclass(frozen=True)
class Declared(Outside):
    def identity(self) -> Mapping[str, object]:
        return {"logits": self.logits, "guidance": self.guidance}


@dataclass(frozen=True)
class Sharper(Declared):
    """Inherits what it says of itself, and is something else."""

    def predictor(self, conditions: Tensor, guided: bool):
        return Outside(-self.logits, self.calls).predictor(conditions, guided)


def tables(favourite: int) -> Tensor:
    """Code 0 at position 0; from there on, most of all the favourite."""
    logits = torch.zeros(6, 3)
    logits[0, 0] = 9
    logits[1:, favourite] = 4
    return logits


@pytest.mark.parametrize("kind", [Outside, Declared])
def test_models_that_differ_from_the_second_draw_on_are_each_measured(kind):
    first, second = kind(tables(0), []), kind(tables(2), [])
    assert allowed_codes(first, Subset(1 / 3)) == {0}
    assert allowed_codes(second, Subset(1 / 3)) == {2}
    assert len(kept()) == (2 if kind is Declared else 0)


def test_a_model_that_says_what_it_is_is_measured_once_whatever_its_name():
    one = Declared(tables(1), [])
    same = Declared(tables(1), [], name="studio/other")
    assert allowed_codes(one, Subset(1 / 3)) == allowed_codes(same, Subset(1 / 3)) == {1}
    assert (one.calls, same.calls) == ([40], [])
    other = replace(same, guidance=2.0)
    assert file_name(one) == file_name(same) != file_name(other)


def test_a_class_that_inherits_what_it_says_of_itself_is_measured_anew():
    declared, inherits = Declared(tables(1), []), Sharper(tables(1), [])
    assert allowed_codes(declared, Subset(1 / 3)) == {1}
    assert allowed_codes(inherits, Subset(1 / 3)) != {1} and len(inherits.calls) == 1


def test_what_cannot_be_kept_is_drawn_once_in_a_run():
    model, declared = Outside(tables(1), []), Declared(tables(2), [], name="declared")
    conditions = {"baseline": (), "subset": (Subset(),), "disabled": (DisableTop(),)}
    probe([model, declared], PROMPTS[:1], n=1, conditions=conditions)
    assert (model.calls.count(40), declared.calls.count(40)) == (1, 1)
    for one in (model, declared):
        Reading(one).settings([Subset()])  # of another run
    assert (model.calls.count(40), declared.calls.count(40)) == (2, 1)
    assert len(kept()) == 1


def test_other_prompts_and_another_version_are_another_measurement(monkeypatch):
    model = models.load("toy/ar")
    prompts = model.calibration_prompts()
    known = fingerprint_of(model)
    assert known is not None
    names = {cache_name(known, prompts), cache_name(known, prompts[1:]), cache_name(known[::-1], prompts)}
    monkeypatch.setattr("divlens.__version__", "another")
    assert len({*names, cache_name(known, prompts)}) == 4


def test_another_negative_prompt_is_another_measurement(one_thread):
    model = replace(wrap(*tiny_transformers.emu3()), grid=(2, 2))  # type: ignore[type-var]
    for negative in ("zzzz", "zzzz", "yyyy"):
        Reading(replace(model, negative=negative)).settings([Subset(0.5)])  # type: ignore[call-arg]
    assert len(kept()) == 2
    files = {file_name(replace(model, **changes)) for changes in ({}, {"suffix": ""}, {"top_k": 3}, {"grid": (1, 4)})}
    assert len(files) == 4


def test_folders_share_a_measurement_when_their_content_is_the_same(tmp_path, one_thread):
    def changed(name: str, part: str | None = None) -> Path:
        folder = tiny_llamagen.save(tmp_path / name, side=2)
        if part is not None:
            content = torch.load(folder / tiny_llamagen.GPT_FILE, weights_only=True)
            content["model"][part].view(-1)[0] += 0.01
            torch.save(content, folder / tiny_llamagen.GPT_FILE)
        return folder

    folders = [changed("one"), changed("two")]
    folders += [changed(name, name) for name in ("cls_embedding.uncond_embedding", "layers.1.attention.wqkv.weight")]
    for folder in folders:
        Reading(load_llamagen(str(folder), Options())).settings([Subset(0.5)])
    assert len(kept()) == 3


def test_frequencies_that_a_model_ships_are_used_as_they_are():
    class Shipping(Declared):
        def frequencies(self):
            return torch.tensor([0.5, 0.25, 0.25])

    def never():
        raise AssertionError("expected neither a fingerprint nor a calibration run")

    got = calibration.frequencies_of(Shipping(tables(0), []), never, never)
    assert got.dtype == torch.float64 and got.tolist() == [0.5, 0.25, 0.25]
    assert kept() == []


# What is read


def stored(array: np.ndarray, **options) -> bytes:
    path = cache_folder() / "any.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, **options)
    return path.read_bytes()


def bad_contents() -> dict[str, bytes]:
    whole = stored(SHARE.numpy())
    objects = np.empty(3, dtype=object)
    objects[:] = [0.5, 0.25, 0.25]
    return {
        "empty": b"",
        "cut": whole[:-3],
        "only a header": whole[:128],
        "too long": whole + b"\0",
        "no header": bytes(len(whole)),
        "text": b"half a half".ljust(len(whole), b" "),
        "a zip file": b"PK\3\4".ljust(len(whole), b"\0"),
        "not a number": stored(np.array([0.5, np.nan, 0.5])),
        "infinite": stored(np.array([np.inf, 0.0, 0.0])),
        "negative": stored(np.array([0.75, -0.25, 0.5])),
        "whole numbers": stored(np.array([1, 0, 0])),
        "two dimensions": stored(np.array([[0.5, 0.25, 0.25]])),
        "no dimension": stored(np.array(1.0)),
        "half precision": stored(np.array([0.5, 0.25, 0.25], dtype=np.float16)),
        "the other byte order": stored(SHARE.numpy().astype(SHARE.numpy().dtype.newbyteorder())),
        "complex": stored(np.array([0.5, 0.25, 0.25], dtype=complex)),
        "other codes": stored(np.array([0.5, 0.25, 0.125, 0.125])),
        "no distribution": stored(np.array([0.5, 0.25, 0.2])),
        "counts": stored(np.array([12.0, 6.0, 6.0])),
        "objects": stored(objects, allow_pickle=True),
    }


def test_good_content_is_read():
    keep(SHARE, NAME)
    assert (cache_folder() / NAME).read_bytes() == stored(SHARE.numpy())
    found = read(NAME, 3)
    assert found is not None and torch.equal(found, SHARE)
    assert read(NAME, 4) is None and read("4567.npy", 3) is None


def test_bad_content_is_drawn_again():
    model = models.load("toy/ar")
    Reading(model).settings([Subset(0.4)])
    path = cache_folder() / file_name(model)
    good = path.read_bytes()
    for name, content in bad_contents().items():
        path.write_bytes(content)
        assert read(path.name, 3) is None, name
        if name in ("empty", "cut", "not a number"):
            Reading(model).settings([Subset(0.4)])
            assert path.read_bytes() == good, name


def test_a_pipe_is_not_waited_for():
    cache_folder().mkdir(parents=True)
    os.mkfifo(cache_folder() / NAME)
    assert read(NAME, 3) is None


# Where it is


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    usual = Path(platformdirs.user_cache_dir("divlens")) / "calibration"
    monkeypatch.setenv("HOME", str(tmp_path))
    for said, folder in {"~/x": tmp_path / "x", str(tmp_path / "y"): tmp_path / "y"}.items():
        monkeypatch.setenv("DIVLENS_CACHE", said)
        assert cache_folder() == folder / "calibration"
    monkeypatch.undo()
    for said in ("", " "):
        monkeypatch.setenv("DIVLENS_CACHE", said)
        assert cache_folder() == usual
    monkeypatch.delenv("DIVLENS_CACHE")
    assert cache_folder() == usual and usual.is_absolute()


def file_for_folder(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file"


def loop(tmp_path: Path) -> Path:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    return tmp_path / "a"


def folder_for_file(tmp_path: Path) -> Path:
    for model in ("toy/ar", "toy/mim"):
        (tmp_path / "calibration" / file_name(models.load(model))).mkdir(parents=True)
    return tmp_path


def nobody(tmp_path: Path) -> Path:
    return Path("~no-such-user/cache")


@pytest.mark.parametrize("place", [file_for_folder, loop, folder_for_file, nobody])
def test_a_folder_that_cannot_be_written_costs_one_warning(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = allowed_codes(models.load("toy/ar"), Subset(0.4))
    monkeypatch.setenv("DIVLENS_CACHE", str(place(tmp_path)))
    before = sorted(tmp_path.rglob("*"))
    reading = Reading(models.load("toy/ar"))
    with pytest.warns(DivlensWarning, match=r"^the calibration is not kept, .*; DIVLENS_CACHE can name") as said:
        for _ in range(2):
            allowed = reading.settings([Subset(0.4)]).allowed
            assert allowed is not None and set(allowed.nonzero().flatten().tolist()) == expected
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written, nothing in the current folder


def test_a_full_disk_costs_one_warning_and_leaves_nothing(monkeypatch):
    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(DivlensWarning, match="cannot write to .*: No space left on device"):
        Reading(models.load("toy/ar")).settings([Subset(0.4)])
    assert kept() == []


def test_a_file_that_may_not_be_changed_is_replaced():
    keep(SHARE, NAME)
    (cache_folder() / NAME).chmod(0o400)
    keep(SHARE.flip(0), NAME)
    found = read(NAME, 3)
    assert found is not None and torch.equal(found, SHARE.flip(0))


def test_whoever_reads_while_others_write_finds_one_of_theirs():
    written = [torch.nn.functional.one_hot(torch.tensor(code), 3000).double() for code in range(4)]
    keep(written[0], NAME)
    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(lambda share=share: [keep(share, NAME) for _ in range(25)]) for share in written]
        found = [read(NAME, 3000) for _ in range(100)]
        for writer in writers:
            writer.result()
    assert all(any(torch.equal(share, one) for one in written) for share in found if share is not None)
    assert None not in found and [path.name for path in kept()] == [NAME]


# On the command line


def account_for(*names: str) -> None:
    main(["information", *names, "--under", "subset", "-n", "2", "--limit", "1", "--paths", "0"])


@pytest.mark.filterwarnings("always::divlens.errors.DivlensWarning")
def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIVLENS_CACHE", str(file_for_folder(tmp_path)))
    account_for("toy/ar", "toy/ar:1")
    said = capsys.readouterr()
    assert "H(Z|X)" in said.out and said.err.count("\n") == 1
    assert said.err.startswith("divlens: warning: the calibration is not kept")


def test_the_command_line_reads_over_an_empty_file(capsys):
    path = cache_folder() / file_name(models.load("toy/ar"))
    path.parent.mkdir(parents=True)
    path.touch()
    account_for("toy/ar")
    said = capsys.readouterr()
    assert "H(Z|X)" in said.out and said.err == "" and read(path.name, 3) is not None
