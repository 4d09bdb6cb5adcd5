"""The command line on the zoo's packaged weights: prompts that are too long, files that are damaged."""

import shutil
import subprocess
import sys

import pytest

import divlens
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.models.zoo.assets import packaged_folder
from divlens.models.zoo.networks import WORDS

TOO_LONG = " ".join(["rocket"] * (WORDS + 1))


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def weights(tmp_path):
    """A copy of what `zoo/ar` reads."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("ar.safetensors", "tokenizer.safetensors", "checksums.json"):
        shutil.copy(packaged_folder() / name, folder)
    return folder


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def refusal(capsys, *arguments):
    """The one line on stderr of a command that must exit with code 2 and print nothing else."""
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    captured = capsys.readouterr()
    assert (leaving.value.code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n") and "Traceback" not in captured.err
    return captured.err


def test_a_prompt_longer_than_the_zoo_reads(capsys, empty_folder):
    assert WORDS == 24
    said = refusal(capsys, "enhance", "zoo/ar", TOO_LONG, "-n", "2", "--out", "out")
    assert "up to 24 words, got 25" in said
    (empty_folder / "long.txt").write_text(f"heart\n{TOO_LONG}\n")
    assert "up to 24 words" in refusal(capsys, "probe", "zoo/ar", "--prompts", "long.txt", "-n", "2", "--out", "out")
    assert [path.name for path in empty_folder.iterdir()] == ["long.txt"]
    model = divlens.load("zoo/ar")
    assert len(model.encode([" ".join(["rocket"] * WORDS)])) == 1  # the control: one word less is read


@pytest.mark.parametrize("command", ["information", "decompose"])
def test_a_prompt_that_one_of_several_models_cannot_read_is_told_before_any_draws(
    command, capsys, empty_folder, monkeypatch
):
    (empty_folder / "long.txt").write_text(f"heart\n{TOO_LONG}\n")
    drawn = []
    monkeypatch.setattr("divlens.run.steps", lambda *arguments: drawn.append(arguments))
    assert len(divlens.load("toy/mim").encode([TOO_LONG])) == 1  # the control: the first could draw
    said = refusal(capsys, command, "toy/mim", "zoo/ar", "--prompts", "long.txt")
    assert "up to 24 words" in said and not drawn


@pytest.mark.parametrize("name", ["ar", "tokenizer"])
def test_a_weight_file_whose_checksum_is_wrong(name, weights, capsys, empty_folder):
    flip_a_byte(weights / f"{name}.safetensors")
    for command in (("enhance", f"zoo/ar:{weights}", "heart"), ("probe", f"zoo/ar:{weights}")):
        assert f"{name}.safetensors is damaged" in refusal(capsys, *command, "-n", "2", "--out", "out")
    assert list(empty_folder.iterdir()) == []


def test_an_undamaged_copy_of_the_weights_loads(weights):
    assert divlens.load(f"zoo/ar:{weights}").name == f"zoo/ar:{weights}"


def test_a_file_of_weights_that_is_missing(weights, capsys, empty_folder):
    (weights / "tokenizer.safetensors").unlink()
    said = refusal(capsys, "enhance", f"zoo/ar:{weights}", "heart", "--out", "out")
    assert "expected tokenizer.safetensors" in said
    assert list(empty_folder.iterdir()) == []


def test_a_good_run_after_a_refused_one_is_not_disturbed(weights, tmp_path):
    flip_a_byte(weights / "ar.safetensors")
    with pytest.raises(DivlensError, match="damaged"):
        divlens.load(f"zoo/ar:{weights}")
    shutil.copy(packaged_folder() / "ar.safetensors", weights)
    assert divlens.load(f"zoo/ar:{weights}").codes == divlens.load("zoo/ar").codes


@pytest.mark.parametrize("statement", ["import divlens", "import divlens.cli; divlens.cli.main(['--help'])"])
def test_importing_and_asking_for_help_load_no_torch(statement):
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    if "--help" in statement:
        assert "zoo" in [line.split()[0] for line in done.stdout.splitlines() if line.split()]


def test_what_needs_torch_loads_it():  # the control
    code = "import sys, divlens; divlens.sample; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
