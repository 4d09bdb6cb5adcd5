"""Names and places that are unusual but right, or that would do harm."""

import io
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

import divlens
from divlens.cli import main
from divlens.interventions import Argmax
from divlens.progress import followed
from divlens.report.terminal import put, show
from divlens.showing import fitted, visible


@contextmanager
def redirected(capsys):
    """A function that gives what was printed since."""
    capsys.readouterr()
    yield lambda: capsys.readouterr().out


@pytest.mark.parametrize("name", ["zoo/ar:weights", "zoo/ar:[best]", "zoo/ar:[/x]", "zoo/ar:[red]y", ":smile:"])
def test_names_of_models_conditions_and_columns_are_printed_as_they_are(name):
    written = io.StringIO()
    console = Console(width=80, file=written)
    console.print(fitted(name, (name, "LPIPS diversity"), [(name, ".1")]))
    lines = written.getvalue().splitlines()
    assert lines[0].rstrip() == name
    assert lines[1].startswith(f"{name} ") and lines[2].startswith(f"{name} ")


def test_a_condition_of_a_probe_is_printed_as_it_is(capsys):
    conditions = {"baseline": (), "[bold]x": (Argmax(),)}
    result = divlens.probe(["toy/ar"], ["a cat", "red heart"], n=2, conditions=conditions)
    with redirected(capsys) as printed:
        show(result)
    assert any(line.startswith("[bold]x ") for line in printed().splitlines())


ODD = "a\x1b[31mred\x07\x9b1m\u202etxt\ud800\u2028é 日本 👩\u200d🚀 x"
PLAIN = r"a\x1b[31mred\x07\x9b1m\u202etxt\ud800\u2028" + "é 日本 👩\u200d🚀 x"


def test_what_a_terminal_would_obey_is_escaped_and_other_text_is_not():
    assert visible(ODD) == PLAIN
    assert visible(PLAIN) == PLAIN


def test_a_table_obeys_no_terminal(capsys):
    with redirected(capsys) as printed:
        show(fitted(ODD, ("condition",), [(ODD,)]))
        show(Text(f"a note of {ODD}"))
    text = printed()
    assert text.count(r"a\x1b[31mred") == 3 and text.count(r"\u202etxt\ud800") == 3  # rich itself drops the bell
    assert visible(text.replace("\n", "")) == text.replace("\n", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_an_encoding_lacks_is_escaped(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    put("日 é\n", stream)
    assert raw.getvalue() == "日 é\n".encode(encoding, "backslashreplace")


def test_an_error_is_one_harmless_line_of_bounded_length(capsys):
    for argument in (f"toy/{ODD[:-14]}", "x" * 5000):
        with pytest.raises(SystemExit) as leaving:
            main(["probe", argument])
        said = capsys.readouterr().err
        assert leaving.value.code == 2 and said.count("\n") == 1 and len(said) < 1100
        assert visible(said[:-1]) == said[:-1]


@pytest.mark.parametrize("name", ["zoo/ar", "zoo/ar:[best]", "zoo/ar:[/x]", "zoo/ar:\x1b[35mx"])
def test_a_progress_bar_says_a_models_name_as_it_is(name, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with followed(True, None, 3, "") as told:
        told.describe(name)
        told.advance(3)
    said = capsys.readouterr().err
    assert visible(name) in said and "\x1b[35m" not in said


def test_the_current_folder_can_hold_a_run_and_is_not_replaced_under_the_shell(tmp_path, monkeypatch):
    def folder_after(write):
        write()
        return tmp_path.stat().st_ino

    monkeypatch.chdir(tmp_path)
    first, again = (folder_after(lambda: main(["enhance", "toy/ar", "a cat", "-n", "2", "--out", "."])) for _ in "12")
    assert first == again and {"run.json", "samples", "tables"} <= {path.name for path in Path().iterdir()}

    result, saved = divlens.enhance("toy/ar", ["a cat"], n=2), tmp_path / "saved"  # the control: this one is replaced
    first, again = ((divlens.save(result, saved), saved.stat().st_ino)[1] for _ in "12")
    assert first != again
