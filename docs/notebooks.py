"""Runs the notebooks in examples/ and writes what they print into them.

python docs/notebooks.py [NAME.ipynb ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[1] / "examples"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(notebook: NotebookNode) -> NotebookNode:
    """The notebook with what its cells give when they are run in order, in an empty folder: without times, and with
    each picture once. Raises CellExecutionError where a cell raises."""
    fresh = nbformat.v4.new_notebook(cells=notebook.cells, metadata={"kernelspec": KERNEL})
    with tempfile.TemporaryDirectory() as folder:
        settings = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
        NotebookClient(fresh, **settings, resources={"metadata": {"path": folder}}).execute()
    fresh.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    for cell in fresh.cells:
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow offers a picture as PNG, too
    return fresh


def main(names: list[str]) -> None:
    for path in [EXAMPLES / name for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        path.write_text(nbformat.writes(executed(notebook)) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
