"""Files are written whole or not at all."""

import pytest

from divlens.files import written_beside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_put_in_its_place_at_the_end(before, tmp_path):
    path = tmp_path / "numbers.npz"
    if before is not None:
        path.write_text(before)
    with written_beside(path) as partial:
        partial.write_text("new")
        assert partial.name == path.name
        assert (path.read_text() if path.exists() else None) == before
    assert path.read_text() == "new" and names(tmp_path) == ["numbers.npz"]


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_what_was_there(before, tmp_path):
    path = tmp_path / "numbers.npz"
    if before is not None:
        path.write_text(before)
    with pytest.raises(OSError, match="full"), written_beside(path) as partial:
        partial.write_text("half")
        raise OSError("full")
    assert (path.read_text() if path.exists() else None) == before
    assert names(tmp_path) == ([] if before is None else ["numbers.npz"])


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), written_beside(tmp_path / "folder") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["folder"] and (tmp_path / "folder").is_dir()


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "numbers.npz"
    with written_beside(path) as one, written_beside(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and names(tmp_path) == ["numbers.npz"]  # the outer block ends last
