"""`divlens models NAME`: what is known of a model before it is loaded."""

import subprocess
import sys

import pytest

from divlens.errors import DivlensError
from divlens.lab.captions import vocabulary
from divlens.models import registry
from divlens.models.zoo.lexicon import concepts
from divlens.report.known import described, in_columns


def test_the_zoos_concepts_and_words_are_listed_in_80_columns():
    for words, listed, other in ((False, concepts(), vocabulary()), (True, vocabulary(), concepts())):
        lines = described("zoo/ar", words).splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].startswith(f"zoo/ar knows {len(concepts())} concepts and {len(vocabulary())} words.")
        table = [line for line in lines[2:] if line][: lines[2:].index("")]
        found = [cell.strip() for line in table for cell in line.split("  ") if cell.strip()]
        assert sorted(found) == sorted(listed) != sorted(other)
    assert "divlens models zoo/ar --words" in described("zoo/ar")


def test_a_folder_without_weights_of_the_zoo_is_refused(tmp_path):
    with pytest.raises(DivlensError, match=r"expected checksums\.json in"):
        described(f"zoo/mim:{tmp_path}")
    (tmp_path / "checksums.json").write_text("{}")
    assert described(f"zoo/mim:{tmp_path}").startswith(f"zoo/mim:{tmp_path} knows")  # the control


def test_other_models_are_described_without_importing_them():
    code = "import sys; from divlens.report.known import described as d; print(d('amused'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("amused: aMUSEd") and done.stdout.endswith(" False\n")
    for name in registry.known():
        assert described(name).startswith(name) and max(map(len, described(name).splitlines())) <= 80


def test_a_model_of_ones_own_is_described_by_its_module(monkeypatch):
    monkeypatch.setitem(registry.TABLE, "studio/own", registry.Registered(lambda *_: None))  # type: ignore[arg-type, return-value]
    assert "what is known of a model" in described("studio/own")
    monkeypatch.setitem(registry.TABLE, "studio/gone", registry.Registered("no_such_package.models:load"))
    assert described("studio/gone") == "studio/gone: nothing is said of it"


def test_unknown_names_and_words_of_other_models_are_refused_in_one_line():
    with pytest.raises(DivlensError, match="did you mean 'zoo/ar'"):
        described("zoo/a")
    with pytest.raises(DivlensError, match="expects a model of the zoo, such as zoo/ar, got toy/ar"):
        described("toy/ar", words=True)


@pytest.mark.parametrize("sizes", [[1] * 100, [80], [90, 3], [30, 30, 30], [5, 70, 5, 5]])
def test_columns_are_as_many_as_fit_and_lose_nothing(sizes):
    texts = [chr(97 + i % 26) * size for i, size in enumerate(sizes)]
    lines = in_columns(texts)
    assert sorted(" ".join(lines).split()) == sorted(texts)
    assert max(map(len, lines)) <= max(80, max(sizes))
    if sizes == [1] * 100:
        assert len(lines) == 4  # 27 columns of one letter and two spaces
