"""The notebooks in examples/: they run, and what is written in them is what they give."""

import copy
import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from oracles.documentation import ROOT, script

PATHS = sorted((ROOT / "examples").glob("*.ipynb"))
NOTEBOOKS = script("notebooks")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def without_numbers(text):
    """Text whose last digits another processor may round in another way, and whose columns then move."""
    return re.sub(r"[-+\d.]+", "#", re.sub(r"[ \n]+", " ", text))


def shown(notebook):
    """What each cell shows: kinds of output, and the text of it without numbers."""
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            text = without_numbers(output.get("text", "") + data.get("text/plain", ""))
            found.append((cell.execution_count, output.output_type, output.get("name", ""), sorted(data), text))
    return found


def test_the_three_notebooks_are_there():
    assert len(PATHS) == 3


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_names_nothing_of_the_machine_that_ran_it(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert not [kind for _, kind, name, _, _ in shown(notebook) if kind == "error" or name == "stderr"]
    assert not re.search(r"site-packages|/home/|/root/|/tmp/", path.read_text())
    assert not [cell for cell in notebook.cells if cell.metadata]
    assert path.stat().st_size < 250_000


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_gives_what_is_written_in_it(path):
    notebook = read(path)
    assert shown(NOTEBOOKS.executed(copy.deepcopy(notebook))) == shown(notebook)


def test_a_notebook_that_gives_something_else_or_fails_is_found():
    def of(code):
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])

    written = NOTEBOOKS.executed(of("print('one', 1.25)"))
    assert shown(NOTEBOOKS.executed(of("print('one', 1.26)"))) == shown(written)
    assert shown(NOTEBOOKS.executed(of("print('two', 1.25)"))) != shown(written)
    with pytest.raises(CellExecutionError, match="no such name"):
        NOTEBOOKS.executed(of("raise NameError('no such name')"))
