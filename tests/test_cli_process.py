"""The command line as a process of its own: exit codes, pipes that close, and how quickly it starts."""

import os
import subprocess
import sys
import time

import pytest

import divlens


def process(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_a_process_refuses_without_a_traceback(tmp_path):
    done = process("-m", "divlens", "probe", "toy/none", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("divlens: error: no model is called 'toy/none'")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stdout", ["/dev/full", "|"])
def test_a_process_whose_stdout_takes_nothing_leaves_its_results(stdout, tmp_path):
    """Buffered, as a shell starts it: what cannot be written is still there when Python ends."""
    command = [sys.executable, "-m", "divlens", "enhance", "toy/ar", "red heart", "-n", "2", "--out", "out"]
    reader, writer = os.pipe() if stdout == "|" else (None, os.open(stdout, os.O_WRONLY))
    if reader is not None:
        os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(writer)
    assert (tmp_path / "out" / "run.json").exists()
    if stdout == "|":
        assert (done.returncode, done.stderr) == (141, "")
    else:
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "the results are in out" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["probe", "--help"], ["models"], ["paint"]])
def test_what_needs_no_torch_loads_none(arguments):
    code = f"import sys, divlens.cli\ntry: divlens.cli.main({arguments})\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'diffusers', 'pandas') if name in sys.modules])"
    assert process("-c", code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "seconds"), [(["-c", "import divlens"], 0.5), (["-m", "divlens", "--help"], 0.7)]
)
def test_it_starts_quickly(arguments, seconds):
    def once():
        begun = time.perf_counter()
        assert process(*arguments).returncode == 0
        return time.perf_counter() - begun

    assert min(once() for _ in range(5)) < seconds  # the best of five: the machine may be busy


def test_public_names_are_all_there():

    assert all(getattr(divlens, name) is not None for name in divlens.__all__)
    assert set(divlens.__all__) <= set(dir(divlens))
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = divlens.paint
