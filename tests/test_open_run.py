"""A run is read, scored, compared and drawn again from what its folder holds."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.experiment.built_in import KNOWN, token_entropy
from divlens.lab.attributes import Attribute
from divlens.models.toy import RULES, ToyModel
from divlens.statistics import change_of_share, paired_change
from divlens.store import views
from divlens.store.again import draw_again
from divlens.store.folder import writing_run
from divlens.store.shards import Shard

PROMPTS = ("red heart", "a cat", "snow")
N = 5
CONDITIONS = {"baseline": [], "argmax": divlens.Argmax("tokens"), "hot": divlens.Temperature(1.5)}

pytestmark = pytest.mark.usefixtures("colours_for_lpips")


def probed(folder: Path, model: object = "toy/mim", prompts=PROMPTS, n=N, **others):
    return divlens.probe(model, prompts, n, conditions=CONDITIONS, out=folder, **others)  # type: ignore[arg-type]


def opened(folder: Path | str) -> Any:
    """For the type checker, to which a row or a column of a table may be anything."""
    return divlens.open_run(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_of_the_session):
    """A finished run, and its result; LPIPS is on colours alone."""
    from divlens.experiment import comparison
    from oracles.colour_network import colour_network

    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "load_network", lambda name: colour_network())
        return folder, probed(folder)


@pytest.fixture
def own(whole, tmp_path):
    """A copy of the run, which a test may change."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


def first_shard(folder: Path, name: str = "samples") -> Path:
    return sorted((folder / name).glob("*.parquet"))[0]


# Reading


def test_tables_samples_and_figures_are_those_of_the_result(whole):
    folder, result = whole
    run = opened(folder)
    pd.testing.assert_frame_equal(run.table, result.table, check_dtype=False)
    pd.testing.assert_frame_equal(run.per_prompt, result.per_prompt, check_dtype=False)
    samples = run.samples
    assert [tuple(one) for one in samples["tokens"]] == [one.tokens for one in result.samples]
    for column in ("model", "condition", "prompt", "sample", "wording"):
        assert samples[column].tolist() == [getattr(one, column) for one in result.samples]
    assert samples["judged"].isna().all() and {one.judged for one in result.samples} == {None}
    assert len(run.verdicts) == len(samples) == 3 * 3 * N
    wide = run.scores.pivot(index=["condition", "prompt"], columns="name", values="value")
    for row in result.per_prompt.to_dict("records"):
        assert wide.loc[(row["condition"], row["prompt"])]["diversity"] == row["diversity"]
    assert run.request["n"] == N and run.is_complete


class FirstAndLastColour:
    """A judge that says which colours the first token and the last one have."""

    attributes = (Attribute("concept", ("red", "green", "blue")), Attribute("style", ("warm", "mild", "cold")))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, :, 0, place].argmax(1) for place in (0, -1)], dim=1)


@pytest.fixture
def judged(monkeypatch):
    monkeypatch.setattr("divlens.experiment.comparison.judge_of", lambda model: FirstAndLastColour())


def test_the_judges_verdicts_stand_beside_the_samples(judged, tmp_path):
    result = probed(tmp_path / "run", prompts=["red", "green"])
    probed(tmp_path / "run", prompts=["red", "green", "blue"])
    samples = opened(tmp_path / "run").samples
    mine = samples[samples["prompt"] != "blue"]
    assert list(map(tuple, mine["judged"])) == [one.judged for one in result.samples]
    first, last = (attribute.values for attribute in FirstAndLastColour.attributes)
    read = [(first[tokens[0]], last[tokens[-1]]) for tokens in samples["tokens"]]
    assert list(map(tuple, samples["judged"])) == read
    assert [len(set(words)) for words in zip(*read, strict=True)] == [3, 3]


def test_sql_answers_over_the_same_files(whole):
    run = opened(whole[0])
    found = run.sql("SELECT condition, count(*) AS n FROM samples GROUP BY condition ORDER BY condition")
    assert found.to_dict("list") == {"condition": ["argmax", "baseline", "hot"], "n": [3 * N] * 3}
    mean = run.sql("SELECT avg(value) AS mean FROM Scores WHERE name = 'diversity' AND condition = 'hot'")["mean"][0]
    assert mean == pytest.approx(whole[1].table.set_index("condition")["diversity"]["hot"])
    assert run.sql('SELECT count(*) AS rows FROM "probe_per_prompt"')["rows"][0] == 9


@pytest.mark.parametrize("query", ["SELECT * FROM nowhere", "SELEKT", "SELECT nothing FROM samples"])
def test_a_query_that_cannot_be_answered_is_refused_in_a_line(whole, query):
    with pytest.raises(DivlensError, match="tables: samples, scores, verdicts, probe_per_prompt, probe_table") as error:
        opened(whole[0]).sql(query)
    assert "\n" not in str(error.value)


def test_figures_of_fewer_samples_no_longer_count_when_a_run_has_grown(own):
    assert set(opened(own).scores["n"]) == {N}
    probed(own, n=N + 1)
    grown = opened(own)
    assert set(grown.scores["n"]) == {N + 1} and len(grown.samples) == 9 * (N + 1)
    assert grown.sql("SELECT count(*) AS n FROM verdicts")["n"][0] == 9 * (N + 1)
    assert len(list((own / "scores" / "prompts").glob("*.parquet"))) == 6  # of both are there


def test_a_run_is_read_while_another_process_writes_it(own):
    with writing_run(own):
        run = opened(own)
        assert len(run.samples) == 9 * N and len(run.table) == 3
        with pytest.raises(DivlensError, match="is being written by process"):
            divlens.score(own, "token_entropy")  # the control: the lock is held


def test_files_that_another_process_folds_meanwhile_are_looked_up_again(own, monkeypatch):
    one = first_shard(own)
    usual = views.source_of

    def gone_before_it_is_read(*arguments: Any) -> str:
        found = usual(*arguments)
        if one.exists():
            one.rename(own / "hidden")
        else:
            (own / "hidden").rename(one)
        return found

    def back_before_it_is_listed(files: views.CheckedFiles, folder: str) -> list[Shard]:
        if not one.exists():
            (own / "hidden").rename(one)
            monkeypatch.setattr(views, "source_of", usual)
        return usual_of(files, folder)

    usual_of = views.CheckedFiles.of
    monkeypatch.setattr(views, "source_of", gone_before_it_is_read)
    monkeypatch.setattr(views.CheckedFiles, "of", back_before_it_is_listed)
    assert len(opened(own).sql("SELECT * FROM samples")) == 9 * N
    monkeypatch.setattr(views, "source_of", gone_before_it_is_read)
    monkeypatch.setattr(views, "TRIES", 1)
    with pytest.raises(DivlensError, match="cannot read"):
        opened(own).sql("SELECT * FROM samples")  # the control


def test_a_damaged_file_is_named_in_a_line_by_what_reads_it(own):
    path = first_shard(own)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run = opened(own)
    assert len(run.scores) and len(run.table)  # they are whole
    for read in (lambda: run.samples, lambda: run.sql("SELECT 1 FROM samples"), lambda: run.images(0, "hot")):
        with pytest.raises(DivlensError, match=path.name) as error:
            read()
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(DivlensError, match="samples/000000 is missing"):
        opened(own).sql("SELECT 1 FROM samples")


def test_images_are_decoded_again_from_tokens(whole):
    run = opened(whole[0])
    drawn = divlens.sample("toy/mim", PROMPTS, N, interventions=[divlens.Temperature(1.5)]).images
    for prompt in ("a cat", 1, "1"):
        torch.testing.assert_close(run.images(prompt, "hot"), drawn[1])
    torch.testing.assert_close(run.images("a cat", "hot", "toy/mim:0", samples=[3, 1]), drawn[1, [3, 1]])
    assert not torch.equal(run.images("a cat", "baseline"), drawn[1])  # the control


def test_images_beside_a_crossed_design_are_those_of_the_numbered_samples(own):
    before = opened(own).images("a cat", "baseline")
    divlens.decompose("toy/mim", PROMPTS, wordings=2, paths=3, executions=2, out=own)
    run = opened(own)
    where = "prompt = 'a cat' AND condition = 'baseline'"
    both = run.sql(f"SELECT sample FROM samples WHERE {where}")["sample"].tolist()
    assert len(both) > N and len(set(both)) < len(both)  # the control: numbers come twice
    assert torch.equal(run.images("a cat", "baseline"), before)
    assert torch.equal(divlens.calibrate("toy/mim", run=own).share, calibrated_without_crossing(own, run))


def calibrated_without_crossing(folder: Path, run: Any) -> torch.Tensor:
    """By counting the tokens of the numbered samples."""
    rows = run.sql(
        "SELECT tokens FROM samples WHERE condition = 'baseline' AND path = execution AND path = sample "
        "AND wording = prompt"
    )
    tokens = torch.from_numpy(np.concatenate(rows["tokens"].to_list()))
    return torch.bincount(tokens, minlength=3).double() / len(tokens)


def test_images_of_a_crossed_design_alone_are_all_of_its_own(tmp_path):
    divlens.decompose("toy/mim", PROMPTS, wordings=2, paths=3, executions=2, out=tmp_path / "run")
    assert len(opened(tmp_path / "run").images("a cat", "baseline")) == 12


@pytest.mark.parametrize(
    "interventions", [[divlens.Freeze("path")], [divlens.Paraphrase(), divlens.Freeze("execution")]]
)
def test_images_of_frozen_noise_and_of_other_wordings_are_found(tmp_path, interventions):
    asked = {"baseline": [], "frozen": interventions}
    divlens.probe("toy/mim", PROMPTS, N, conditions=asked, out=tmp_path / "run")
    drawn = divlens.sample("toy/mim", PROMPTS, N, interventions=interventions).images
    assert torch.equal(opened(tmp_path / "run").images("a cat", "frozen"), drawn[1])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a dog", "hot"), "has 3 prompts, 0 to 2, got 'a dog'"),
        ((3, "hot"), "got 3"),
        ((-1, "hot"), "got -1"),
        ((0, "cold"), "a condition among baseline, argmax, hot, got 'cold'"),
        ((0, "hot", "toy/ar"), "a model among toy/mim:0, got 'toy/ar'"),
    ],
)
def test_names_that_are_not_there_are_refused(whole, names, said):
    with pytest.raises(DivlensError, match=said):
        opened(whole[0]).images(*names)


def test_images_of_a_model_that_is_another_now_are_refused(own):
    about = json.loads((own / "run.json").read_text())
    about["models"]["toy/mim:0"]["content"] = "0" * 32
    (own / "run.json").write_text(json.dumps(about))
    with pytest.raises(DivlensError, match="its weights or settings are others"):
        opened(own).images(0, "hot")


def test_a_run_says_what_it_holds(own):
    assert repr(opened(own)).startswith(f"<StoredRun {own}: probe, complete, 45 samples in ")
    about = json.loads((own / "run.json").read_text())
    (own / "run.json").write_text(json.dumps(about | {"complete": []}))
    run = opened(own)
    assert "not complete" in repr(run) and not run.is_complete
    assert f"divlens resume {own}".replace(" ", "") in "".join(str(run).split()) and "toy/mim:0" in str(run)
    assert max(map(len, str(run).splitlines()[2:])) <= 80


def test_several_commands_share_a_folder(own):
    divlens.decompose("toy/mim", PROMPTS, wordings=1, paths=2, executions=2, out=own)
    run = opened(own)
    assert set(run.tables("decompose")) == {"table", "per_prompt"} and len(run.tables("probe")["table"]) == 3
    assert {"probe_table", "decompose_table"} <= set(run.view_names)
    for read in (lambda: run.table, lambda: run.request):
        with pytest.raises(DivlensError, match="expected a run of one command"):
            read()
    with pytest.raises(DivlensError, match="has no tables of enhance, only of probe, decompose"):
        run.tables("enhance")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DivlensError, match="expected the folder of a run, got"):
        opened(tmp_path / "nothing")


def test_a_run_is_read_at_an_address_of_fsspec():
    result = probed("memory://read/run")  # type: ignore[arg-type]
    run = opened("memory://read/run")
    assert [tuple(one) for one in run.samples["tokens"]] == [one.tokens for one in result.samples]
    assert "45 samples in" in repr(run) and len(run.table) == 3


# Scoring


def by_hand(samples: Any, condition: str, prompt: str) -> float:
    """The entropy of the tokens at each position, from their shares."""
    mine = samples[(samples["condition"] == condition) & (samples["prompt"] == prompt)]
    columns = np.stack(mine["tokens"].to_list()).T
    shares = [np.unique(column, return_counts=True)[1] / len(column) for column in columns]
    return float(np.mean([-(share * np.log2(share)).sum() for share in shares]))


def test_token_entropy_is_its_closed_form():
    tokens = torch.tensor([[0, 5], [1, 5], [0, 5], [1, 5]], dtype=torch.int16)
    assert token_entropy(tokens) == pytest.approx(0.5)  # one bit, and none
    assert token_entropy(torch.arange(8)[:, None]) == pytest.approx(3.0)
    assert token_entropy(tokens[:1]) == 0.0 and math.isnan(token_entropy(tokens[:0]))


def test_a_new_measure_draws_nothing_and_decodes_nothing_that_it_does_not_need(own, monkeypatch):
    def refused(*arguments):
        raise AssertionError("nothing is drawn or decoded")

    before = sorted((own / "samples").iterdir())
    monkeypatch.setattr(ToyModel, "predictor", refused)
    with monkeypatch.context() as patch:
        patch.setattr(ToyModel, "decode", refused)
        found = divlens.score(own, ["token_entropy"])
        with pytest.raises(AssertionError, match="nothing is drawn or decoded"):
            divlens.score(own, "lpips:stlpips")  # the control
    run = opened(own)
    assert sorted((own / "samples").iterdir()) == before
    values = run.scores[run.scores["name"] == "token_entropy"]
    assert len(values) == 9
    for row in values.to_dict("records"):
        assert row["value"] == pytest.approx(by_hand(run.samples, row["condition"], row["prompt"]))
    entropies = {name: values[values["condition"] == name]["value"].to_numpy() for name in ("baseline", "hot")}
    row = found.table.set_index("condition").loc["hot"]
    change = paired_change(entropies["hot"], entropies["baseline"])
    assert (row["change"], row["change_low"], row["change_high"]) == (change.value, change.low, change.high)
    assert math.isnan(found.table.set_index("condition").loc["baseline"]["change"])
    pd.testing.assert_frame_equal(run.tables("score")["table"], found.table, check_dtype=False)
    assert max(map(len, str(found).splitlines())) <= 80 and "token entropy bits" in str(found)


def test_what_is_stored_is_not_measured_again(own):
    calls = []

    def counted(look: divlens.Look) -> torch.Tensor:
        calls.append(len(look.pictures))
        return look.pictures.mean((1, 2, 3)) + look.features.sum() * 0

    own_measure = divlens.Measure("brightness", counted)
    first = divlens.score(own, [own_measure])
    assert sum(calls) == 9 * N
    again = divlens.score(own, [own_measure, "token_entropy"])
    assert sum(calls) == 9 * N
    assert again.per_prompt["brightness"].tolist() == first.per_prompt["brightness"].tolist()
    pictures = opened(own).images("a cat", "hot").mean()
    mine: Any = first.per_prompt.set_index(["condition", "prompt"])["brightness"]
    assert mine[("hot", "a cat")] == pytest.approx(float(pictures), abs=1e-6)  # a mean of float32


def test_lpips_by_a_network_of_its_own(own, monkeypatch):
    monkeypatch.undo()  # the run's diversity is on colours; the packaged network gives something else
    found: Any = divlens.score(own, ["lpips:stlpips", "diversity"]).per_prompt
    drawn = divlens.sample("toy/mim", PROMPTS, N).images
    expected = divlens.lpips_diversity(drawn)
    baseline = found[found["condition"] == "baseline"]
    np.testing.assert_allclose(baseline["lpips:stlpips"], expected, rtol=1e-5)  # float32 features
    assert not np.allclose(baseline["lpips:stlpips"], baseline["diversity"])


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        (["sharpness"], f"no measure is called 'sharpness'; known: {', '.join(KNOWN)}"),
        (["token_entropi"], "did you mean token_entropy"),
        ([], "expected a measure, got none"),
        ([3], "measures expects a list of names and divlens.Measure, got 3"),
    ],
)
def test_a_measure_that_is_not_known_is_refused(own, measures, said):
    before = (own / "run.json").read_text()
    with pytest.raises(DivlensError, match=said):
        divlens.score(own, measures)
    assert (own / "run.json").read_text() == before


def test_what_cannot_be_scored_is_refused(own, tmp_path):
    about = json.loads((own / "run.json").read_text())
    (own / "run.json").write_text(json.dumps(about | {"complete": []}))
    with pytest.raises(DivlensError, match="is not complete, probe is unfinished: divlens resume"):
        divlens.score(own, "token_entropy")
    divlens.decompose("toy/mim", PROMPTS, wordings=1, paths=2, executions=2, out=tmp_path / "crossed")
    with pytest.raises(DivlensError, match=r"has no samples to score: .* got decompose"):
        divlens.score(tmp_path / "crossed", "token_entropy")
    with pytest.raises(DivlensError, match="expected the folder of a run"):
        divlens.score(tmp_path / "nothing", "token_entropy")


# Comparing


def test_runs_are_compared_prompt_by_prompt(own, tmp_path):
    other = tmp_path / "other"
    probed(other, prompts=(*PROMPTS[1:], "a fox"), seed=1)
    for folder in (own, other):
        divlens.score(folder, "token_entropy")
    found = divlens.compare(own, other)
    assert set(found.per_prompt["prompt"]) == {"a cat", "snow"} and found.prompts == 2
    row = found.table.set_index(["figure", "condition"]).loc[("token_entropy", "hot")]
    both = [opened(folder).scores.set_index(["name", "condition", "prompt"])["value"] for folder in (own, other)]
    values = [np.array([one[("token_entropy", "hot", prompt)] for prompt in ("a cat", "snow")]) for one in both]
    change = paired_change(values[1], values[0])
    assert (row["a"], row["b"]) == pytest.approx((values[0].mean(), values[1].mean()))
    assert (row["change"], row["change_low"], row["change_high"]) == (change.value, change.low, change.high)
    assert {"diversity", "duplicates", "noise_floor"} <= set(found.table["figure"])
    assert found.settings.set_index("setting").loc["seed"].tolist() == ["0", "1"]
    assert max(map(len, str(found).splitlines()[2:])) <= 80
    same = divlens.compare(own, own)
    assert set(same.table["change"]) == {0.0} != set(found.table["change"])


def test_shares_are_compared_as_shares(judged, tmp_path):
    for seed in (0, 1):
        probed(tmp_path / str(seed), "toy/ar", ["red", "green", "blue"], seed=seed)
    found = divlens.compare(tmp_path / "0", tmp_path / "1")
    rows = [row for row in found.per_prompt.to_dict("records") if row["figure"] == "fidelity"]
    for condition in CONDITIONS:
        before, after = np.array([(row["a"], row["b"]) for row in rows if row["condition"] == condition]).T
        change = change_of_share(after, before, N)
        shown = found.table.set_index(["figure", "condition"]).loc[("fidelity", condition)]
        assert (shown["change_low"], shown["change_high"]) == (change.low, change.high)
    # The control: nothing changes under argmax, which is not certain of a share.
    assert paired_change(np.zeros(3), np.zeros(3)).high == 0 < change_of_share(np.zeros(3), np.zeros(3), N).high
    assert found.table.set_index(["figure", "condition"]).loc[("fidelity", "argmax")]["change_high"] > 0


def test_two_models_are_compared_though_their_names_differ(own, tmp_path):
    probed(tmp_path / "other", "toy/mim:1")
    found = divlens.compare(own, tmp_path / "other")
    assert set(zip(found.table["model_a"], found.table["model_b"], strict=True)) == {("toy/mim:0", "toy/mim:1")}
    assert "toy/mim:0 and toy/mim:1" in str(found)


def test_runs_that_cannot_be_compared_are_refused(own, tmp_path):
    probed(tmp_path / "other", prompts=["a fox"])
    with pytest.raises(DivlensError, match="have no prompt in common: 'red heart', 'a cat', 'snow', and 'a fox'"):
        divlens.compare(own, tmp_path / "other")
    divlens.enhance("toy/mim", PROMPTS, 2, out=tmp_path / "enhanced")
    with pytest.raises(DivlensError, match="have no command in common: 'probe', and 'enhance'"):
        divlens.compare(own, tmp_path / "enhanced")
    with pytest.raises(DivlensError, match="expected the folder of a run"):
        divlens.compare(own, tmp_path / "nothing")
    about = json.loads((own / "run.json").read_text())
    (own / "run.json").write_text(json.dumps(about | {"complete": []}))
    with pytest.raises(DivlensError, match="is not complete: divlens resume"):
        divlens.compare(own, own)


# Drawing one sample again


@pytest.mark.parametrize("model", ["toy/ar", "toy/mim", "toy/diffusion"])
def test_named_samples_are_those_of_the_whole_call(model):
    hot = [divlens.Temperature(1.5), divlens.Paraphrase()]
    whole = divlens.sample(model, PROMPTS, 8, 3, hot)
    some = divlens.sample(model, PROMPTS, seed=3, interventions=hot, indices=[5, 2])
    assert torch.equal(some.tokens, whole.tokens[:, [5, 2]]) and torch.equal(some.images, whole.images[:, [5, 2]])
    assert some.samples == (5, 2) and some.per_sample["sample"].tolist() == [5, 2] * 3
    assert some.wordings == tuple((one[5], one[2]) for one in whole.wordings)
    assert not torch.equal(some.tokens, whole.tokens[:, :2])  # the control
    twice = divlens.sample(model, ["a cat", "a cat"], seed=3, indices=[1])  # samples may be asked for twice
    assert torch.equal(twice.tokens[0], twice.tokens[1])


@pytest.mark.parametrize("indices", [[], [1, 1], [-1], [0.5], "1", 3])
def test_indices_that_are_none_are_refused(indices):
    with pytest.raises(DivlensError, match="indices expects numbers of samples, from 0 and each once, got"):
        divlens.sample("toy/ar", PROMPTS, indices=indices)


def test_a_sample_of_a_run_is_drawn_again(whole):
    run = opened(whole[0])
    for condition in CONDITIONS:
        found = draw_again(run, "a cat", condition, 3)
        assert found.equal and "the tokens are equal" in str(found)
        torch.testing.assert_close(found.picture, run.images("a cat", condition, samples=[3])[0])


def test_what_differs_is_said_where_tokens_do(own, monkeypatch):
    run = opened(own)
    session = run.record["sessions"][0]
    run.record["sessions"][0] = session | {"device": "another one", "versions": session["versions"] | {"torch": "0.1"}}
    run.record["requests"]["probe"]["setup"]["toy/mim:0"]["dtype"] = "float80"
    monkeypatch.setattr("divlens.store.again.tokens_of", lambda run, single: torch.tensor([2, 2, 2]))
    found = draw_again(run, 0, "argmax", 0)
    assert not found.equal and "stored 2, now" in str(found)
    said = " ".join(found.differences)
    assert "torch 0.1, now" in said and "another one, now" in said and "dtype float80, now float64" in said
    assert "numpy" not in said  # the control: it is the same


def test_a_sample_that_is_not_there_is_refused(whole):
    run = opened(whole[0])
    with pytest.raises(DivlensError, match=r"was not asked for sample 5 of 'a cat'.*probe 5"):
        draw_again(run, "a cat", "hot", 5)
    with pytest.raises(DivlensError, match="whole number of at least 0"):
        draw_again(run, "a cat", "hot", -1)


# The command line


def test_the_commands(run, whole, own, tmp_path):
    code, out, _ = run("score", own, "--measures", "token_entropy", "--quiet")
    assert code == 0 and "token entropy bits" in out and f"written: {own}" in out
    code, out, _ = run("compare", own, own)
    assert code == 0 and "token entropy bits" in out and "3 common prompts" in out
    png = tmp_path / "one.png"
    code, out, _ = run("sample", own, "--prompt", "1", "--condition", "hot", "--index", "2", "--png", png)
    assert code == 0 and "the tokens are equal" in out and png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "RUN", "--measures", "vendy"),
        ("score", "nothing", "--measures", "token_entropy"),
        ("score", "RUN"),
        ("compare", "RUN", "nothing"),
        ("sample", "RUN", "--prompt", "a dog", "--condition", "hot", "--index", "0"),
        ("sample", "RUN", "--prompt", "0", "--condition", "hot", "--index", "99"),
        ("sample", "RUN", "--prompt", "0", "--condition", "hot", "--index", "0", "--png", "no/such/folder.png"),
    ],
)
def test_the_commands_refuse_in_a_line(run, whole, arguments):
    code, out, err = run(*(whole[0] if part == "RUN" else part for part in arguments))
    assert code == 2 and not out and len(err.splitlines()) == 1 and err.startswith("divlens: error: ")


def test_a_sample_that_differs_ends_with_1(run, own, monkeypatch):
    monkeypatch.setattr("divlens.store.again.tokens_of", lambda run, single: torch.tensor([2, 2, 2]))
    code, out, _ = run("sample", own, "--prompt", "0", "--condition", "argmax", "--index", "0")
    assert code == 1 and "tokens differ" in out


def test_models_that_names_do_not_load_are_refused(tmp_path):
    probed(tmp_path / "run", ToyModel("mim", RULES["mim"], seed=10**21))
    assert len(opened(tmp_path / "run").samples) == 9 * N  # tokens need no model
    with pytest.raises(DivlensError, match="a seed of up to 20 digits"):
        opened(tmp_path / "run").images(0, "hot")
