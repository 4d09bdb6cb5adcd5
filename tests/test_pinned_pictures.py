"""The table of docs/measures.md is true: LPIPS of five fixed pictures, by divlens and by its peers."""

from pathlib import Path

import pytest

from oracles.pinned_pictures import COLUMNS, NETWORKS, NOT_ASKED, REFUSED, cells, models, rows

# Of float32 networks that add in other orders, and of torchmetrics, whose guard against a zero vector is another one.
AGREE = 2e-4
# Another version of a JPEG coder may round a grey level in another way.
AS_WRITTEN = 1e-3


@pytest.fixture(scope="module")
def found():
    known = models()
    return {row.name: cells(row, known) for row in rows()}


def written():
    page = (Path(__file__).parent.parent / "docs" / "measures.md").read_text()
    lines = page[page.index("| pictures |") :].split("\n\n")[0].splitlines()[2:]
    parted = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: [float(cell) if cell[:1].isdigit() else cell for cell in others] for name, *others in parted}


def test_the_page_has_what_is_measured(found):
    page = written()
    assert list(page) == list(found)
    for name, values in found.items():
        assert page[name] == pytest.approx(values, abs=AS_WRITTEN) if all(map(is_number, values)) else True
        for shown, value in zip(page[name], values, strict=True):
            assert shown == (pytest.approx(value, abs=AS_WRITTEN) if is_number(value) else value)


def is_number(value):
    return not isinstance(value, str)


def test_peers_agree_on_each_network(found):
    for name, values in found.items():
        if "taken for" in name:
            continue
        for network in set(NETWORKS):
            same = [value for value, of in zip(values, NETWORKS, strict=True) if of == network and value != NOT_ASKED]
            assert same == [REFUSED] * len(same) or same == pytest.approx([same[0]] * len(same), abs=AGREE), name


def test_a_mistake_shows(found):
    """The control: every peer that answers to a mistaken range answers with another number, and divlens does not."""
    right = found["files of 8 bits (PNG)"]
    for name in ("[0, 1] taken for [-1, 1]", "[-1, 1] taken for [0, 1]", "0 to 255 taken for [0, 1]"):
        for value, expected, column in zip(found[name], right, COLUMNS, strict=True):
            assert column != "divlens" or value in (REFUSED, NOT_ASKED)
            assert not is_number(value) or abs(value - expected) > 50 * AGREE


def test_what_a_file_changes(found):
    """8 bits are next to nothing, transparency is not, and to forget it gives the whole picture back."""
    ours = {name: values[0] for name, values in found.items()}
    rounded = ours["the same, rounded to 8 bits"] - ours["floats between grey levels"]
    assert 0 < abs(rounded) < 1e-4 < 0.05 < ours["files of 8 bits (PNG)"] - ours["grey (PNG, one channel)"]
    assert ours["the same, transparency forgotten"] == ours["files of 8 bits (PNG)"]
    assert ours["transparent outside of a disc, on white"] < ours["files of 8 bits (PNG)"] - 0.05
