"""What the command line refuses: exit code 2, one line on stderr, nothing on stdout, nothing written."""

import warnings

import pytest

from divlens.errors import DivlensError
from oracles.run_folders import files_in, record_of, samples_of, snapshot
from oracles.screen import but_for_the_note

LONG = " ".join(["word"] * 40)
BAD = {
    "unknown model": (("probe", "toy/none", "--out", "out"), "no model is called 'toy/none'; .*known: .*zoo/mim"),
    "unknown model of enhance": (("enhance", "toy/none", "a cat", "--out", "out"), "known: .*zoo/mim"),
    "missing prompt file": (("probe", "toy/ar", "--prompts", "none.txt", "--out", "out"), "not found: none.txt"),
    "empty prompt file": (("probe", "toy/ar", "--prompts", "empty.txt", "--out", "out"), "at least one prompt"),
    "bytes that are no text": (("enhance", "toy/ar", "a \udcff"), r"Unicode text \(UTF-8\), got 'a \\udcff'"),
    "a model of such bytes": (("probe", "toy/ar:\udcff"), r"model's name expects Unicode text"),
    "a prompt file of such bytes": (("probe", "toy/ar", "--prompts", "latin.txt"), "cannot read the prompt file"),
    "a number without end": (("probe", "toy/ar", "--prompts", "digits.jsonl"), "line 1: .*too many digits"),
    "a seed without end": (("probe", f"toy/ar:{'9' * 5000}"), "expects a seed of up to 20 digits"),
    "paths without end": (("information", "toy/mim", "--paths", "9" * 12), "at most 1,000,000 paths"),
    "prompts where models stand": (("probe", "toy/ar", "red heart"), "no model is called 'red heart'.*--prompts FILE"),
    "a prompt alone": (("information", "red heart"), "prompts go into a file.*--prompts FILE"),
    "an unknown model after a long one": (("decompose", "zoo/ar", "toy/none"), "no model is called 'toy/none'"),
    "a name that is too long": (
        ("probe", "toy/ar", "--out", "x" * 300),
        "a folder that can be made, .*too long",
    ),
    "a link to itself": (
        ("probe", "toy/ar", "--out", "loop"),
        "results need a folder that can be made, .*symbolic links",
    ),
    "a prompt of both kinds": (
        ("enhance", "toy/ar", "a cat", "--prompts", "long.txt"),
        "different prompts, got 'a cat'",
    ),
    "bad JSONL": (("probe", "toy/ar", "--prompts", "bad.jsonl", "--out", "out"), "bad.jsonl, line 2: .*bad JSON"),
    "empty prompt in a file": (("probe", "toy/ar", "--prompts", "blank.jsonl", "--out", "out"), "line 3: .*is empty"),
    "empty prompt": (("enhance", "toy/ar", "", "--out", "out"), "a prompt is empty"),
    "repeated prompt": (("enhance", "toy/ar", "a cat", "a cat", "--out", "out"), "different prompts"),
    "repeated but for a space": (("enhance", "toy/ar", "a cat", "a cat "), "different prompts"),
    "long prompt": (("enhance", "toy/ar", LONG, "--out", "out"), "reads at most 32 words, got 40"),
    "long prompt in a file": (("probe", "toy/ar", "--prompts", "long.txt", "--out", "out"), "at most 32 words"),
    "subset of nothing": (("probe", "toy/ar", "--subset", "0", "--out", "out"), r"Subset .*\(0, 1\], got 0"),
    "subset above 1": (("probe", "toy/ar", "--subset", "1.5", "--out", "out"), r"Subset .*\(0, 1\], got 1.5"),
    "subset NaN": (("probe", "toy/ar", "--subset", "nan", "--out", "out"), r"Subset .*\(0, 1\], got nan"),
    "disable-top below 0": (("enhance", "toy/ar", "a cat", "--disable-top", "-1"), r"DisableTop .*\[0, 1\], got -1"),
    "nothing left": (("probe", "toy/ar", "--disable-top", "1", "--out", "out"), "leaves no code to draw"),
    "nothing left to enhance": (("enhance", "toy/ar", "a cat", "--disable-top", "1", "--out", "out"), "leaves no code"),
    "n of 1": (("probe", "toy/ar", "-n", "1", "--out", "out"), "at least 2 samples.*there is no LPIPS diversity"),
    "one sample to account for": (("information", "toy/ar", "-n", "1"), "at least 2 samples.*no Monte-Carlo error"),
    "nothing to vary": (("decompose", "toy/ar", "--wordings", "1", "--executions", "1"), "finds nothing to vary"),
    "no level": (("decompose", "toy/ar", "--paths", "0"), "paths expects a whole number of at least 1, got 0"),
    "batch size": (("probe", "toy/ar", "--batch-size", "some"), "'some' is not a valid integer"),
    "device": (("probe", "toy/ar", "--device", "abacus"), "device expects one that torch can use here, got 'abacus'"),
    "an option it has not": (("probe", "toy/ar", "--compile"), "toy/ar has no option compile"),
    "no such folder": (("probe", "llamagen:nowhere"), "cannot load 'nowhere'|expected"),
    "n of 0": (
        ("enhance", "toy/ar", "a cat", "-n", "0", "--out", "out"),
        "at least 2 samples.*there is no LPIPS diversity",
    ),
    "n no number": (("probe", "toy/ar", "-n", "many", "--out", "out"), "'many' is not a valid integer"),
    "negative seed": (("probe", "toy/ar", "--seed", "-1", "--out", "out"), "seed expects"),
    "the same model twice": (("probe", "toy/ar", "toy/ar", "--out", "out"), "different models"),
    "limit of 0": (("probe", "toy/ar", "--limit", "0", "--out", "out"), "limit"),
    "unknown network": (("probe", "toy/ar", "--lpips", "squeeze", "--out", "out"), "squeeze"),
    "something else there": (("probe", "toy/ar", "--out", "full"), "full holds thesis.txt"),
    "something else there for enhance": (("enhance", "toy/ar", "a cat", "--out", "full"), "full holds thesis.txt"),
    "a file there": (("probe", "toy/ar", "--out", "long.txt"), "a run needs a folder, got the file"),
    "no model": (("probe",), "Missing argument"),
    "no prompt": (("enhance", "toy/ar"), "Missing argument 'PROMPTS...': .*--prompts FILE"),
    "unknown option": (("probe", "toy/ar", "--colour"), "No such option"),
    "unknown command": (("paint",), "No such command"),
    "unknown zoo command": (("zoo", "paint"), "No such command"),
}


def bad_files(folder):
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "digits.jsonl").write_text('{"prompt": ' + "9" * 5000 + "}\n")
    (folder / "loop").symlink_to("loop")
    (folder / "empty.txt").write_text("\n# nothing\n")
    (folder / "bad.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": \n')
    (folder / "blank.jsonl").write_text('{"prompt": "a cat"}\n\n{"prompt": " "}\n')
    (folder / "long.txt").write_text(f"a cat\n{LONG}\n")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(name, run, tmp_path):
    import re

    arguments, said = BAD[name]
    bad_files(tmp_path)
    before = snapshot(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert re.search(said, err)
    assert snapshot(tmp_path) == before


SMALL = ("probe", "toy/ar", "--limit", 3, "-n", 2, "--batch-size", 2)  # 15 batches


def failing_after(writes, error):
    """Stands for `os.fsync`: every file of a run is whole beside its place when it is called. Full from then on."""
    left = iter(range(writes))

    def sync(handle):
        if next(left, None) is None:
            raise error

    return sync


BEFORE_SAMPLES = 2  # files that are written first: who writes, and run.json


@pytest.mark.parametrize("writes", [0, 1, 2, 5, 17])
def test_a_failure_on_the_way_leaves_a_run_that_can_be_resumed(writes, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("divlens.store.place.os.fsync", failing_after(writes, OSError(28, "No space left on device")))
        code, _, err = run(*SMALL, "--out", "out")
    assert (code, but_for_the_note(err)) == (2, "divlens: error: cannot write to out: No space left on device\n")
    left = files_in(tmp_path / "out")
    assert not [name for name in left if ".divlens-" in name]  # no half-written file
    assert len(left) == max(0, writes - BEFORE_SAMPLES)
    if writes < BEFORE_SAMPLES:
        assert run(*SMALL, "--out", "out")[0] == 0
    else:
        assert record_of(tmp_path / "out")["complete"] == []
        assert run("resume", "out")[0] == 0
    assert run(*SMALL, "--out", "undisturbed")[0] == 0
    whole = files_in(tmp_path / "out")
    assert whole == files_in(tmp_path / "undisturbed") and left.items() <= whole.items()


def test_a_bug_is_no_bad_input(run, monkeypatch):
    def bug(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("divlens.experiment.probe.probe_of", bug)
    with pytest.raises(ZeroDivisionError):
        run("probe", "toy/ar")


def stopped_by(kind):
    def stop(*arguments, **options):
        raise kind

    return stop


def test_an_interrupt_is_exit_code_130_and_says_how_to_go_on(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("divlens.store.draw.fill", stopped_by(KeyboardInterrupt))
        code, out, err = run(*SMALL)
        assert (code, out, but_for_the_note(err).strip()) == (130, "", "")
        assert snapshot(tmp_path) == {}
        code, out, err = run(*SMALL, "--out", "my run")
    said = "divlens: stopped; my run keeps what was drawn. To go on: divlens resume 'my run'"
    assert (code, out, but_for_the_note(err).strip()) == (130, "", said)
    record = record_of(tmp_path / "my run")
    assert record["complete"] == [] and record["sessions"][0]["how"] == "stopped"
    assert run("resume", "my run")[0] == 0
    assert record_of(tmp_path / "my run")["complete"] == ["probe"] and len(samples_of(tmp_path / "my run")) == 30


def test_a_file_that_ends_early_is_no_interrupt(run, monkeypatch):
    monkeypatch.setattr("divlens.experiment.probe.probe_of", stopped_by(EOFError))
    with pytest.raises(EOFError):
        run("probe", "toy/ar")


def test_warnings_of_others_are_shown_as_usual(run, monkeypatch):
    def warn(*arguments, **options):
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
        raise DivlensError("stopped")

    monkeypatch.setattr("divlens.experiment.probe.probe_of", warn)
    with pytest.warns(UserWarning, match="from elsewhere"):
        code, _, err = run("probe", "toy/ar")
    assert (code, err) == (2, "divlens: error: stopped\n")
