"""`divlens report`: what goes into the page, that any text in it is text, and how large it is."""

import itertools
import json
import math
import re
import shlex
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import divlens
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.fidelity.breakage import fidelity_change
from divlens.fidelity.judge import load_judge
from divlens.fidelity.notes import fall_text, fall_warnings
from divlens.lab.attributes import Attribute
from divlens.pages import embedding, honesty, law, page, stored
from divlens.pages.charted import frontier_figures
from divlens.pages.distances import (
    changed_distance,
    mean_distance,
    mean_over_pairs,
    nearest_and_farthest,
    squared_distances,
)
from divlens.pages.embedding import Extent, columns_within, extent_of
from divlens.pages.figures import bit_rows, frontier_rows, plane_rows, share_rows
from divlens.pages.replay import last_of_each
from divlens.pages.texts import command_line, file_name, shell_word, shown
from divlens.plots.rows import PARETO
from oracles.colour_network import colour_network
from oracles.embedded import picture

replay_module: Any = import_module("divlens.pages.replay")
report_module: Any = import_module("divlens.pages.report")  # divlens.report is the function
MODELS = ["toy/ar", "toy/mim"]
HOSTILE = "<script>alert(1)</script> \"q\" 'r' &amp; </textarea>"
TURNED = "\u202eright \u05e9\u05dc\u05d5\u05dd to left"
PROMPTS = ["red heart", HOSTILE, TURNED, "=1+1"]
ODD = "<img src=x onerror=alert(2)> 'odd'"
CONDITIONS = {"argmax": divlens.Argmax(), "baseline": (), ODD: divlens.Temperature(1.5), "half": divlens.Subset(0.5)}
N = 5


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, cache_of_the_session):
    folder = tmp_path_factory.mktemp("runs") / "it's <b>"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("divlens.experiment.comparison"), "load_network", lambda name: colour_network())
        divlens.probe(MODELS, PROMPTS, N, conditions=CONDITIONS, out=folder)
    return folder


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """LPIPS on colours, and no chart library: it takes seconds to make, and only the browser reads it."""
    monkeypatch.setattr(stored, "load_network", lambda name: colour_network())
    monkeypatch.setattr(page, "chart_library", lambda: "// charts")


@pytest.fixture
def made(run_folder):
    return report_module.contents(divlens.open_run(run_folder), 1000, None)


# Distances


def distances_of(n: int, size: int = 4, seed: int = 0) -> np.ndarray:
    return squared_distances(np.random.default_rng(seed).normal(size=(n, size)))


def test_distances_are_those_of_every_pair():
    features = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    brute = ((features[:, None].astype(float) - features[None]) ** 2).sum(-1)
    assert squared_distances(features) == pytest.approx(brute, abs=1e-12)


def test_the_nearest_pair_is_no_pair_of_duplicates():
    distances = distances_of(6)
    distances[0, 1] = distances[1, 0] = 0
    found = nearest_and_farthest(distances)
    assert found is not None
    pairs = {pair: distances[pair] for pair in itertools.combinations(range(6), 2) if distances[pair] > 0}
    assert found[0][:2] == min(pairs, key=pairs.__getitem__) != (0, 1)
    assert found[1][:2] == max(pairs, key=pairs.__getitem__)
    assert nearest_and_farthest(np.zeros((4, 4))) is None


def test_intervals_leave_out_one_picture_at_a_time():
    after, before = distances_of(5, seed=1), distances_of(5, seed=2)
    found = changed_distance(after, before)
    kept = [[j for j in range(5) if j != i] for i in range(5)]
    values = [mean_over_pairs(after[np.ix_(k, k)]) - mean_over_pairs(before[np.ix_(k, k)]) for k in kept]
    error = math.sqrt(4 / 5 * sum((value - np.mean(values)) ** 2 for value in values))
    assert found.value == pytest.approx(mean_over_pairs(after) - mean_over_pairs(before))
    assert (found.high - found.low) / 2 == pytest.approx(2.776445 * error)  # Student's t, 4 degrees of freedom
    assert math.isnan(mean_distance(distances_of(2)).low)


def test_intervals_cover_the_true_mean():
    """Features of 16 dimensions and unit variance are 2 x 16 apart on average. Of 400 intervals at n = 6 at least 91%
    cover it; if they covered 95%, fewer would by chance of 1 in 1000 (the standard error is 1.1%)."""
    found = [mean_distance(distances_of(6, 16, seed)) for seed in range(400)]
    assert 0.91 < np.mean([one.low <= 32 <= one.high for one in found]) < 0.99


# The gallery


def test_pictures_are_those_of_the_run_in_the_columns_of_their_samples(made, run_folder):
    run = divlens.open_run(run_folder)
    rows = made.data["rows"]
    assert len(rows) == len(MODELS) * len(PROMPTS) * len(CONDITIONS)
    different = set()
    for row in rows[:: len(CONDITIONS) + 1]:
        place = run.prompts.index(next(text for text in PROMPTS if text == row["prompt"]))
        images = run.images(place, row["condition"], row["model"])
        assert [one["sample"] for one in row["pictures"]] == list(range(N))
        for one, image in zip(row["pictures"], images, strict=True):
            expected = (image * 255).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(picture(made.data["images"][one["image"]]), expected)
            different.add(expected.tobytes())
    assert len(different) > 5


def test_the_figures_of_rows_are_those_of_the_table_and_of_the_pictures(made, run_folder):
    table = divlens.open_run(run_folder).per_prompt.set_index(["model", "condition", "prompt"])["diversity"]
    gallery = stored.gallery_of(divlens.open_run(run_folder), divlens.open_run(run_folder).request, 1000, None)
    for row in gallery.rows:
        assert row.mean.value == pytest.approx(table[row.model, row.condition, row.prompt], abs=1e-6)
    means = {row.mean.value for row in gallery.rows}
    assert len(means) > 5
    (figure,) = (one for one in made.figures if one.key == "prompts")
    for row in figure.rows:
        before, after = (gallery.rows[row[side]] for side in ("before", "row"))
        assert (before.condition, after.condition) == ("baseline", row["condition"])
        assert row["change"] == pytest.approx(after.change.value, abs=1e-5)
        assert row["change_low"] <= row["change"] <= row["change_high"]


def test_duplicates_are_twins_and_others_are_not(made, run_folder):
    tokens = divlens.open_run(run_folder).samples.set_index(["model", "condition", "prompt", "sample"])["tokens"]
    twins = 0
    for row in made.data["rows"]:
        grids = [tuple(tokens[row["model"], row["condition"], row["prompt"], i]) for i in range(N)]
        for i, one in enumerate(row["pictures"]):
            assert one["twin"] == (grids.index(grids[i]) if grids.count(grids[i]) > 1 else None)
            twins += one["twin"] is not None
        assert row["distinct"] == len(set(grids))
    assert 0 < twins < len(made.data["rows"]) * N


def test_the_command_of_a_picture_draws_it_again(made, capsys):
    row = made.data["rows"][len(CONDITIONS) * len(PROMPTS) + 2]  # of the second model, under the odd name
    words = shlex.split(f"{row['command']} --index 3")
    assert words[0] == "divlens" and ODD in words
    main(words[1:])
    assert "the tokens are equal" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("prompts", "n", "most", "expected"),
    [
        (12, 8, 4000, Extent(12, 8)),
        (12, 64, 1920, Extent(12, 16)),
        (100, 64, 1000, Extent(25, 4)),
        (100, 2, 100, Extent(5, 2)),
        (3, 8, 1, Extent(1, 4)),
        (3, 8, 0, Extent(0, 0)),
    ],
)
def test_rows_are_shortened_before_prompts_are_left_out(prompts, n, most, expected):
    assert extent_of(prompts, n, 10, most) == expected


def test_columns_within_a_number_of_bytes():
    assert columns_within([[5, 5, 5], [5, 0, 5]], 15) == 2
    assert columns_within([[5, 5, 5], [5, 0, 5]], 25) == 3
    assert columns_within([[50]], 15) == 1


def test_a_page_keeps_to_its_bytes_and_says_what_is_left_out(run_folder, tmp_path, monkeypatch):
    whole = divlens.report(run_folder, tmp_path / "whole.html").stat().st_size
    monkeypatch.setattr(embedding, "SMALL", 0)  # with loss: each picture takes more
    monkeypatch.setattr("divlens.pages.gallery.BYTES", 3000)
    cut = divlens.report(run_folder, tmp_path / "cut.html")
    text = cut.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert sum(map(len, data["images"])) < 3000 and "Shown are the first" in text
    assert whole < 300_000 and "Shown are the first" not in (tmp_path / "whole.html").read_text()


# Text that would do something


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_text_shows_as_text(run_folder, tmp_path):
    text = divlens.report(run_folder, tmp_path / "page.html").read_text()
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 3  # the data, the charts, the page's own
    assert not [tag for tag, attributes in elements.found if any(name.startswith("on") for name in attributes)]
    assert [attributes for tag, attributes in elements.found if tag == "img"] == [{"id": "picture-image", "alt": ""}]
    options = "".join(elements.texts)
    assert HOSTILE in options and ODD in options and "it's <b>" in options
    assert "\u202e" not in text and r"\u202eright" in options  # written out
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert {row["prompt"] for row in data["rows"]} == {shown(prompt) for prompt in PROMPTS}
    assert {row["prompt"] for row in data["figures"]["prompts"]["rows"]} == {shown(prompt) for prompt in PROMPTS}
    specs = json.dumps([one["spec"] for one in data["figures"].values()])
    assert "alert" not in specs  # charts get it as data only


def test_nothing_in_a_page_names_another_place(run_folder, tmp_path):
    elements = Elements(divlens.report(run_folder, tmp_path / "page.html").read_text()).found
    policy = next(attributes["content"] for _, attributes in elements if "http-equiv" in attributes)
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    places = [attributes.get(name) for _, attributes in elements for name in ("src", "href") if attributes.get(name)]
    assert all(place and place.startswith("#") for place in places) and len(places) > 3


@pytest.mark.parametrize("word", ["plain", "it's", "a b", "\x1b[31m", "x\u202ey'\\", "$HOME `id` !"])
def test_a_word_of_a_command_is_what_the_shell_reads(word):
    written = command_line(["printf", "%s", word])
    assert written.isprintable()
    read = subprocess.run(["bash", "-c", written], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True)
    assert read.stdout.decode() == word and shell_word("plain") == "plain"


@pytest.mark.parametrize(
    ("text", "name"),
    [("<script>/../x", "script-..-x"), ("..", "run"), ("", "run"), ("a\x00b\u202ec", "a-b-c"), ("x" * 99, "x" * 60)],
)
def test_names_of_files_are_harmless(text, name):
    assert file_name(text) == name


# What is missing, and what is refused


def test_without_pictures_the_rest_is_shown(run_folder, tmp_path):
    text = divlens.report(run_folder, tmp_path / "page.html", pictures=0).read_text()
    assert "No pictures: none were asked for." in text and 'id="gallery"' not in text and 'id="prompts"' in text


def test_a_model_that_is_another_now_leaves_its_pictures_out(run_folder, monkeypatch):
    monkeypatch.setattr("divlens.models.fingerprint.fingerprint_of", lambda model: "other")
    run = divlens.open_run(run_folder)
    made = report_module.contents(run, 1000, None)
    assert (
        len(made.missing) == 2
        and "toy/ar" in made.missing[0]
        and "its weights or settings are others" in made.missing[0]
    )
    assert not made.models and made.tables and made.figures
    with pytest.raises(DivlensError, match="weights or settings are others"):
        report_module.contents(run, 1000, "cpu")


def test_one_condition_only_and_a_run_that_is_not_finished(tmp_path, colours_for_lpips):
    divlens.probe("toy/ar", ["a cat", "snow"], 3, conditions={"baseline": ()}, out=tmp_path / "run")
    found = report_module.contents(divlens.open_run(tmp_path / "run"), 100, None)
    assert any("One condition only" in line for line in found.missing)
    assert "No verdict" in found.verdict_notes[0] and len(found.data["rows"]) == 2
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["complete"] = []
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    for table in (tmp_path / "run" / "tables" / "probe").iterdir():
        table.unlink()
    found = report_module.contents(divlens.open_run(tmp_path / "run"), 100, None)
    assert any("No figures of probe" in line and "divlens resume" in line for line in found.missing)
    assert len(found.data["rows"]) == 2 and [one.key for one in found.figures] == ["replay", "codes-0"]
    divlens.report(tmp_path / "run", tmp_path / "page.html")


def test_without_the_network_pairs_are_left_out(run_folder, monkeypatch):
    def missing(name):
        raise DivlensError("lpips is not installed")

    monkeypatch.setattr(stored, "load_network", missing)
    found = report_module.contents(divlens.open_run(run_folder), 1000, None)
    assert found.missing == ("No pairs of pictures and no intervals of single prompts: lpips is not installed.",)
    assert all(row["nearest"] is None for row in found.data["rows"]) and len(found.data["images"]) > 5
    assert all(
        row["change"] is not None and row["change_low"] is None
        for one in found.figures
        for row in one.rows
        if one.key == "prompts"
    )


def test_falls_of_fidelity_are_those_of_the_probe():
    shares = {"baseline": [1.0, 1.0, 0.75, 1.0], "broken": [0.25, 0.0, 0.25, 0.5], "same": [1.0, 0.75, 1.0, 1.0]}
    rows = [("m", name, str(i), share) for name, of in shares.items() for i, share in enumerate(of)]
    table = pd.DataFrame(rows, columns=["model", "condition", "prompt", "fidelity"])
    fall = fidelity_change(np.array(shares["baseline"]), np.array(shares["broken"]), 4)
    said = fall_warnings([f"under broken {fall_text(fall, 4)}"])
    assert honesty.warnings_of(table, 4, 0, list(shares)) == {"m": said} and "from 94 to 25 %" in said[0]
    assert honesty.warnings_of(table, 4, 0, ["same"]) == {"m": []}
    unbroken: Any = table[table["condition"] != "broken"]
    assert honesty.warnings_of(unbroken, 4, 0, list(shares)) == {"m": []}


def test_the_first_screen_of_many_conditions_has_those_of_the_verdict_and_leads_to_the_others(
    tmp_path, colours_for_lpips
):
    doses = {f"t={t}": divlens.Temperature(t) for t in (0.3, 0.5, 2.0, 3.0)}
    asked = {**doses, "baseline": (), "half": divlens.Subset(0.5), "best": divlens.Argmax()}
    divlens.probe("toy/mim", PROMPTS[:2], 2, conditions=asked, out=tmp_path / "many")
    many = report_module.contents(divlens.open_run(tmp_path / "many"), 1000, None, 0)
    assert many.data["first"] == ["baseline", "half", "best"] and many.later == tuple(doses)
    assert '"reverse": false' in json.dumps(many.of_kind("doses")[0].spec)  # doses go both ways from 1
    (changes,) = many.of_kind("changes")
    assert {row["condition"] for row in changes.rows} == {"half", "best"}
    for below in (many.data["conditions"], [row[0] for row in many.tables[0].rows]):
        assert set(below) == set(asked)
    fallen = replace(many, later_warnings={"toy/mim:0": ["Warning: fidelity falls <there>."]})
    text, without = page.html_of(fallen), page.html_of(many)
    assert "The other 4 are in" in text and 'href="#falls"' in text and 'href="#falls"' not in without
    first, _, below = text.partition('<section id="limits"')
    assert "falls &lt;there&gt;" in below and "falls &lt;there&gt;" not in first
    for place in re.findall(r'href="#(\w+)"', text):
        assert f'id="{place}"' in text
    few = {name: done for name, done in asked.items() if name not in ("t=0.3", "t=3.0")}
    divlens.probe("toy/mim", PROMPTS[:2], 2, conditions=few, out=tmp_path / "few")
    whole = report_module.contents(divlens.open_run(tmp_path / "few"), 1000, None, 0)
    assert set(whole.data["first"]) == set(few) and not whole.later and "are in <a" not in page.html_of(whole)


def test_the_first_screen_without_a_verdict_has_the_first_conditions_and_says_no_outcome(tmp_path, colours_for_lpips):
    asked = {"baseline": (), **{f"t=.{t}": divlens.Temperature(t / 10) for t in range(9, 1, -1)}}
    divlens.probe("toy/mim", PROMPTS[:2], 2, conditions=asked, out=tmp_path / "run")
    found = report_module.contents(divlens.open_run(tmp_path / "run"), 0, None, 0)
    assert found.data["first"] == list(asked)[:6]
    assert {row["outcome"] for figure in found.of_kind("changes") for row in figure.rows} == {""}
    assert '"reverse": true' in json.dumps(found.of_kind("doses")[0].spec)  # the weakest dose at the left


def test_a_run_of_enhance_says_that_breakage_cannot_be_seen(tmp_path, colours_for_lpips):
    result = divlens.enhance("toy/mim", ["a cat", "snow"], 3, out=tmp_path / "run")
    found = report_module.contents(divlens.open_run(tmp_path / "run"), 100, None)
    assert any("whether pictures break cannot be seen" in note for note in found.notes)
    assert [row["condition"] for row in found.data["rows"]] == ["before", "after"] * 2
    assert found.floors == ()  # enhance does not measure it
    (block,) = found.tables
    assert list(block.rows) == list(result.blocks[0].rows)
    divlens.report(tmp_path / "run", tmp_path / "page.html")


def newer(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"format": 99}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--out", "there.html"], "there.html exists: --force"),
        (["run", "--out", "."], "expects the name of a file, . is a folder"),
        (["run", "--out", "none/x.html"], "expects a folder that exists, none does not"),
        (["new", "--out", "x.html"], "was written by a newer divlens: format 99"),
        (["none", "--out", "x.html"], "expected the folder of a run, got none"),
        (["run", "--out", "x.html", "--device", "abacus"], "expects one that torch can use here, got 'abacus'"),
    ],
)
def test_what_is_refused_in_a_line(run_folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(run_folder)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_bytes((run_folder / "run.json").read_bytes())
    newer(tmp_path / "new")
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["report", *words])
    written = capsys.readouterr()
    assert ended.value.code == 2 and said in written.err and written.err.count("\n") == 1 and not written.out
    assert (tmp_path / "there.html").read_text() == "mine" and not (tmp_path / "x.html").exists()


def test_force_writes_over_and_the_name_follows_from_the_run(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "it-s-b.html"
    (tmp_path / name).write_text("old")
    main(["report", str(run_folder), "--force"])
    assert (tmp_path / name).read_text().startswith("<!doctype html>\n<!-- Made by divlens")
    assert f"written: {name}" in capsys.readouterr().out


def test_a_missing_package_names_the_extra(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "find_spec", lambda name: None if name == "altair" else True)
    with pytest.raises(DivlensError, match=r"a report needs altair: pip install 'divlens\[report\]'"):
        divlens.report(run_folder, tmp_path / "page.html")


def test_the_command_line_embeds_as_many_pictures_as_the_library():
    from divlens.cli.report import PICTURES, REPLAY

    assert (PICTURES, REPLAY) == (report_module.MOST_PICTURES, report_module.REPLAY)


# Other commands of a run


def test_shares_and_bits_are_those_of_their_results(tmp_path, colours_for_lpips):
    split = divlens.decompose("toy/mim", ["a cat", "snow"], 2, 2, 2, out=tmp_path / "run")
    bits = divlens.information("toy/mim", ["a cat", "snow"], n=4, out=tmp_path / "run")
    run = divlens.open_run(tmp_path / "run")
    shares = {row["source"]: row for row in share_rows(run.tables("decompose")["table"])}
    assert set(shares) == set(split.sources)
    for source, row in shares.items():
        assert row["share"] == pytest.approx(100 * split.share(source).value, abs=1e-3)
    found = {row["quantity"]: row for row in bit_rows(run.tables("information")["table"])}
    path = found["path H(P||Z|X)"]
    assert path["least"] == path["most"] == pytest.approx(bits.path.value, abs=1e-5)
    bracket = next(row for name, row in found.items() if name.startswith("H(Z|X)"))
    assert bracket["least"] == pytest.approx(bits.conditional_lower.value, abs=1e-5)
    assert bracket["most"] == pytest.approx(bits.conditional_upper.value, abs=1e-5)
    made = report_module.contents(run, 100, None)
    keys = ["replay", "sources", "bits", "codes-0", "steps", "maps-0"]
    assert [one.key for one in made.figures] == keys and len(made.data["rows"]) == 2
    table = run.tables("information")["table"]
    assert plane_rows(table) == []  # nobody knows the thing that a toy is asked for
    table.loc[table["quantity"] == "relevant", ["bits_per_image", "image_low", "image_high"]] = 0.75, 0.5, 1.0
    (point,) = plane_rows(table)
    assert point["least"] == pytest.approx(bits.mutual_lower.value, abs=1e-5) and point["relevant"] == 0.75
    assert point["most"] == pytest.approx(bits.mutual_upper.value, abs=1e-5) and point["relevant_low"] == 0.5
    assert all(row["pictures"][i]["path"] == i for row in made.data["rows"] for i in range(4))


def test_curves_are_those_of_doses(tmp_path, colours_for_lpips):
    sweep = divlens.sweep(divlens.Temperature, [0.5, 0.8, 2.0])
    divlens.probe(["toy/ar", "toy/mim"], ["a cat", "snow", "sea"], 3, conditions=sweep, out=tmp_path / "run")
    run = divlens.open_run(tmp_path / "run")
    table = divlens.doses(run).table
    (figure,) = [one for one in report_module.contents(run, 0, None).figures if one.key.startswith("doses")]
    assert figure.key == "doses-0-diversity" and len(figure.rows) == len(table) == 2 * (3 + 2)  # from 1 down, from 1 up
    for row, (_, wanted) in zip(figure.rows, table.iterrows(), strict=True):
        assert (row["series"], row["dose"], row["condition"]) == (wanted["model"], wanted["dose"], wanted["condition"])
        assert row["left"] == pytest.approx(100 * wanted["diversity_left"], abs=1e-4)
    assert len({row["left"] for row in figure.rows}) > 4


def settings_of_a_frontier(**others: float) -> pd.DataFrame:
    """As `Frontier.settings`, of baseline, two scales of guidance and two settings of another method."""
    rows = [("", "baseline", False), ("guidance", "guidance=2", False), ("guidance", "guidance=1", True)]
    rows += [("top-p", "top-p=0.9", True), ("top-p", "top-p=0.8", False)]
    return pd.DataFrame(
        [
            {"model": "zoo/ar", "method": method, "condition": name, "interventions": "none", "passes": 8}
            | {"in_pareto_set": pareto, "diversity": 0.5 + place / 10, "fidelity": 0.9 - place / 10}
            | {f"{figure}_{end}": 0.4 for figure in ("diversity", "fidelity") for end in ("low", "high")}
            | others
            for place, (method, name, pareto) in enumerate(rows)
        ]
    )


def test_a_frontier_has_guidance_as_its_curve_and_the_pareto_set_marked():
    diversity, fidelity, rows = frontier_rows(settings_of_a_frontier(law_distance=0.1))
    assert (diversity, fidelity) == ("openness, %", "fidelity, %")
    assert [row["condition"] for row in rows if row["curve"]] == ["baseline", "guidance=2", "guidance=1"]
    assert [row["condition"] for row in rows if row["kind"] == PARETO] == ["guidance=1", "top-p=0.9"]
    assert [row["label"] for row in rows] == ["", "", "guidance=1", "", ""]  # the most faithful of the two
    assert rows[3]["diversity"] == pytest.approx(80) and rows[3]["fidelity"] == pytest.approx(60)
    assert frontier_rows(settings_of_a_frontier())[0] == "LPIPS diversity"  # without a true law nothing is in percent
    assert frontier_rows(settings_of_a_frontier())[2][3]["diversity"] == pytest.approx(0.8)


def test_a_frontier_without_fidelity_has_no_chart(tmp_path, colours_for_lpips):
    assert frontier_rows(settings_of_a_frontier().drop(columns="fidelity"))[2] == []
    divlens.frontier("toy/ar", ["a", "b", "c", "d"], 2, methods=["top-p"], out=tmp_path / "run")
    figures = report_module.contents(divlens.open_run(tmp_path / "run"), 0, None).figures
    assert all(one.key != "frontier" for one in figures)
    (found,) = frontier_figures(settings_of_a_frontier(law_distance=0.1))  # the control
    assert found.key == "frontier" and len(found.rows) == 5


def test_crossed_pictures_are_those_of_their_noise(tmp_path, colours_for_lpips):
    """Beside a probe in the same folder, whose samples have other noise, and other wordings under Paraphrase."""
    divlens.decompose("toy/mim", ["a cat", "snow"], 2, 2, 3, out=tmp_path / "run")
    divlens.probe("toy/mim", ["snow", "a cat"], 4, out=tmp_path / "run")
    run = divlens.open_run(tmp_path / "run")
    data = report_module.contents(run, 100, None).data
    (one,) = data["crossed"]
    assert [len(row) for row in one["cells"]] == [3, 3]
    samples = run.samples
    model, seen = run.model("toy/mim:0"), set()
    for path, row in enumerate(one["cells"]):
        for execution, image in enumerate(row):
            named = samples[(samples["prompt"] == one["prompt"]) & (samples["wording"] == one["wording"])]
            of: Any = named[
                (named["path"] == path) & (named["execution"] == execution) & (named["condition"] == "baseline")
            ]
            tokens = torch.from_numpy(np.array(of["tokens"].iloc[0], np.int64)).view(1, *model.grid)
            expected = (model.decode(tokens)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(picture(data["images"][image]), expected)
            seen.add(expected.tobytes())
    assert len(seen) > 3
    assert report_module.contents(run, 0, None).data["crossed"] == []


def test_the_law_is_what_was_read_and_what_an_erring_judge_would_read(run_folder, monkeypatch):
    """A judge of a thing, a colour (two values, the second read as the first in half of the pictures) and a size."""
    words = {"red heart": ["red", "red", "blue"], HOSTILE: ["blue", "blue", "red"], "=1+1": ["red", "red", "red"]}
    judge = ErringJudge()

    def read(run, model, condition, prompt, judge):
        read = [[0, ["red", "blue"].index(word), 0] for word in words.get(prompt, [])]
        return np.array(read, int).reshape(-1, 3)

    monkeypatch.setattr(law, "readings_of", read)
    nowhere: Any = None
    rows = list(law.of_model(nowhere, "m", "baseline", [divlens.Prompt(text) for text in PROMPTS], judge))
    assert [(row["attribute"], row["value"], row["prompts"]) for row in rows] == [
        *(("colour", word, 2) for word in ("red", "blue")),  # "=1+1" names it, and of TURNED nothing was read
        *(("size", word, 3) for word in ("large", "small")),
    ]
    assert [row["read"] for row in rows] == pytest.approx([50, 50, 100, 0])
    assert [row["true"] for row in rows] == pytest.approx([75, 25, 50, 50])
    assert all(row["low"] <= row["read"] <= row["high"] for row in rows)


class ErringJudge:
    attributes = (
        Attribute("thing", ("it",)),
        Attribute("colour", ("red", "blue")),
        Attribute("size", ("large", "small")),
    )
    confusions: ClassVar = {"colour": np.array([[1.0, 0.0], [0.5, 0.5]])}

    def __call__(self, images):
        raise AssertionError("what is stored is not judged again")

    def named(self, prompt):
        return (0, 0 if prompt.text == "=1+1" else None, None)


def test_readings_that_are_stored_are_those_that_the_law_counts(tmp_path, colours_for_lpips):
    divlens.probe("zoo/mim", ["rocket"], 2, conditions={"baseline": ()}, out=tmp_path / "run")
    run = divlens.open_run(tmp_path / "run")
    judge = load_judge()
    found = law.readings_of(run, "zoo/mim", "baseline", "rocket", judge)
    assert sorted(map(tuple, found)) == sorted(map(tuple, judge(run.images(0, "baseline")).numpy()))
    figures = report_module.contents(run, 100, None).figures
    assert [one.key for one in figures] == ["replay", *(f"law-{place}" for place in range(4)), "codes-0"]
    assert [one.title for one in figures[1:-1]] == ["style", "background", "size", "place"]


# How a picture came about


@pytest.mark.parametrize("model", ["toy/ar", "toy/mim", "toy/diffusion"])
def test_a_replay_is_the_trace_of_that_sample_and_its_bits_those_of_information(tmp_path, colours_for_lpips, model):
    divlens.probe(model, ["a cat", "snow"], 3, seed=5, conditions={"baseline": ()}, out=tmp_path / "run")
    run = divlens.open_run(tmp_path / "run")
    data = report_module.contents(run, 100, None, 2).data
    assert [one["sample"] for one in data["replays"]] == [0, 1]
    one = data["replays"][1]
    drawn = divlens.sample(model, ["a cat", "snow"], 3, seed=5, trace=True)
    place = 3 * ["a cat", "snow"].index(one["prompt"]) + 1
    assert one["equal"] and drawn.trace and one["steps"] == len(one["frames"]) == len(drawn.trace.steps)
    mask = run.model(f"{model}:0").mask
    for frame, step in zip(one["frames"], drawn.trace.steps, strict=True):
        assert frame["fixed"] == step.committed[place].nonzero().flatten().tolist()
        assert frame["held"] == int((step.state[place] != mask).sum())
    assert one["frames"][-1]["held"] == len(drawn.trace.steps[0].state[0])
    final = (drawn.images.flatten(0, 1)[place] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(picture(data["images"][one["frames"][-1]["image"]]), final)
    first = picture(data["images"][one["frames"][0]["image"]])
    assert (first == 128).all(-1).any() == (one["frames"][0]["held"] < one["frames"][-1]["held"])
    bits = divlens.information(model, [one["prompt"]], n=2, seed=5)  # these very two samples
    of_prompt = [each for each in data["replays"] if each["prompt"] == one["prompt"]]
    for name in ("path", "execution"):
        sums = [sum(frame[name] for frame in each["frames"]) for each in of_prompt]
        assert np.mean(sums) == pytest.approx(getattr(bits, f"schedule_{name}").value, abs=1e-4)


def test_many_steps_share_pictures_and_no_replay_draws_nothing(run_folder, monkeypatch):
    assert last_of_each(5, 9) == [0, 1, 2, 3, 4] and last_of_each(100, 4) == [24, 49, 74, 99]
    run = divlens.open_run(run_folder)
    whole = report_module.contents(run, 1000, None).data["replays"]
    monkeypatch.setattr(replay_module, "MOST_FRAMES", 2)
    fewer = report_module.contents(run, 1000, None).data["replays"]
    assert len(whole[0]["frames"]) > 2 == len(fewer[0]["frames"])
    for part in ("path", "execution"):
        totals = [sum(frame[part] for frame in one[0]["frames"]) for one in (whole, fewer)]
        assert totals[0] == pytest.approx(totals[1], abs=1e-4) and (totals[0] > 0 or part == "path")
    monkeypatch.setattr(replay_module, "fill", None)
    assert report_module.contents(run, 1000, None, 0).data["replays"] == []
    with pytest.raises(TypeError):
        report_module.contents(run, 1000, None, 1)
