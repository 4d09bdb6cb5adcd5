"""`divlens report --format`: the figures of a run for papers and programs, in which text of any origin stays text."""

import csv
import io
import json
from importlib import import_module

import pytest
from markdown_it import MarkdownIt

import divlens
from divlens.cli import main
from divlens.cli.report import FORMATS
from divlens.errors import DivlensError
from divlens.pages.formats import SUFFIXES, in_latex, in_markdown
from oracles.colour_network import colour_network

PROMPTS = ["a cat", "snow", "sea"]
ODD = "[a](b) 50% <i>_x_ & | $y$"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, cache_of_the_session):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("divlens.experiment.comparison"), "load_network", lambda name: colour_network())
        conditions = {"baseline": (), "argmax": divlens.Argmax(), ODD: divlens.Temperature(1.5)}
        divlens.probe("toy/mim", PROMPTS, 3, conditions=conditions, out=folder)
    divlens.information("toy/mim", PROMPTS, n=2, out=folder)
    return folder


@pytest.fixture
def written(run_folder, tmp_path):
    return {form: divlens.report(run_folder, tmp_path / form, format=form).read_text() for form in FORMATS[1:]}


def test_every_number_is_that_of_the_tables(written, run_folder):
    run = divlens.open_run(run_folder)
    rows = list(csv.DictReader(io.StringIO(written["csv"])))
    found = {(row["command"], row["condition"], row["figure"]): row for row in rows}
    assert len(found) == len(rows) > 30
    for record in run.tables("probe")["table"].to_dict("records"):
        for name in ("diversity", "relative_change"):
            row = found["probe", record["condition"], name]
            for column, end in {"value": "", "low": "_low", "high": "_high"}.items():
                stored = record[name + end]
                assert row[column] == "" if stored != stored else float(row[column]) == pytest.approx(stored, abs=1e-6)
    bits = run.tables("information")["table"].set_index("quantity")
    row = found["information", "baseline", "path bits_per_image"]
    for column, name in {"value": "bits_per_image", "low": "image_low", "high": "image_high"}.items():
        assert float(row[column]) == pytest.approx(bits.loc["path", name], abs=1e-6)
    listed = json.loads(written["json"])["figures"]
    assert [one["figure"] for one in listed] == [row["figure"] for row in rows]


def test_odd_names_stay_text_in_markdown(written):
    html = MarkdownIt("commonmark").enable("table").render(written["md"])
    assert "<i>" not in html and "href" not in html and "<em>" not in html
    assert ">[a](b) 50% &lt;i&gt;_x_ &amp; | $y$</td>" in html
    assert MarkdownIt().render("[a](b) _x_") == '<p><a href="b">a</a> <em>x</em></p>\n'  # it would be, unescaped
    assert in_markdown("plain, 1.5 [1, 2]") == "plain, 1.5 [1, 2]"


def test_latex_is_escaped_and_in_the_rules_of_booktabs(written):
    text = written["latex"]
    assert r"{[a](b) 50\% \textless{}i\textgreater{}\_x\_ \& \textbar{} \$y\$} & " in text
    tables = text.split(r"\begin{table}")[1:]
    assert tables and all(
        table.index(r"\toprule") < table.index(r"\midrule") < table.index(r"\bottomrule") for table in tables
    )
    for table in tables:
        body = table.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
        columns = len(table.partition(r"\begin{tabular}{")[2].partition("}")[0])
        assert all(line.replace(r"\&", "").count("&") == columns - 1 for line in body)
    assert in_latex("-5 [-10, +2], all-in 3-4") == "$-$5 [$-$10, +2], all-in 3-4"


@pytest.mark.parametrize("form", FORMATS[1:3])
def test_other_formats_load_no_model(run_folder, tmp_path, monkeypatch, form):
    monkeypatch.setattr(divlens.open_run(run_folder).__class__, "model", None)
    divlens.report(run_folder, tmp_path / "file", format=form)
    with pytest.raises(TypeError):
        divlens.report(run_folder, tmp_path / "page.html")


def test_methods_name_every_setting_and_version(written, run_folder):
    methods = json.loads(written["json"])["methods"]
    record = divlens.open_run(run_folder).record
    for name, version in record["sessions"][-1]["versions"].items():
        assert f"{name} {version}" in methods
    for request in record["requests"].values():
        assert f"seed {request['seed']}" in methods
        assert all(
            name in methods and (what in methods or what == "none") for name, what in request["conditions"].items()
        )
        assert all(f"{key} " in methods for key in request if key in ("lpips", "measures", "effort"))
    assert record["models"]["toy/mim:0"]["content"] in methods and "device cpu" in methods


def test_names_of_formats(run_folder, tmp_path, monkeypatch, capsys):
    assert list(SUFFIXES) == list(FORMATS)
    monkeypatch.chdir(tmp_path)
    main(["report", str(run_folder), "--format", "latex"])
    assert "written: run.tex" in capsys.readouterr().out and (tmp_path / "run.tex").exists()
    with pytest.raises(DivlensError, match="a format among html, md, csv, json, latex, got 'pdf'"):
        divlens.report(run_folder, tmp_path / "x", format="pdf")
