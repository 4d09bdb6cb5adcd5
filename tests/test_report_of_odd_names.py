"""Names and places that are unusual but right, or that would do harm."""

import io

import pytest
from rich.console import Console

from divlens.cli import main
from divlens.progress import followed
from divlens.report.tables import fitted


@pytest.mark.parametrize("name", ["zoo/ar:weights", "zoo/ar:[best]", "zoo/ar:[/x]", "zoo/ar:[red]y"])
def test_a_models_name_is_printed_as_it_is(name):
    written = io.StringIO()
    console = Console(width=80, file=written)
    console.print(fitted(name, ("condition", "LPIPS diversity"), [("baseline", ".1")]))
    assert written.getvalue().splitlines()[0].rstrip() == name


@pytest.mark.parametrize("name", ["zoo/ar", "zoo/ar:[best]", "zoo/ar:[/x]"])
def test_a_progress_bar_says_a_models_name_as_it_is(name, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with followed(True, None, 3, "") as told:
        told.describe(name)
        told.advance(3)
    assert name in capsys.readouterr().err


def test_the_current_folder_is_not_replaced_under_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(["enhance", "toy/ar", "a cat", "-n", "2", "--out", "."])
    assert leaving.value.code == 2
    assert "is the current one: add a name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    main(["enhance", "toy/ar", "a cat", "-n", "2", "--out", "out"])  # the control
    assert (tmp_path / "out" / "run.json").exists()
