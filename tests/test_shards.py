"""A run that several machines draw, each a shard that knows nothing of the others, and that is merged."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import divlens
from divlens.errors import DivlensError
from divlens.experiment.comparison import compared
from divlens.experiment.shares import pieces_of
from divlens.models.registry import load
from divlens.store.share import Share, share_from

PROMPTS = ("red heart", "a cat", "blue sky over the sea")
REQUEST = ("toy/ar", "toy/mim", "--prompts", "prompts.txt", "--condition", "cold=Temperature(0.5)")

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


@pytest.fixture
def probe(run, tmp_path):
    """The command line's probe of two toys and three prompts under two conditions: 12 units."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def call(*arguments, n=6, code=0):
        found, out, err = run("probe", *REQUEST, "-n", n, "--batch-size", 4, *arguments)
        assert found == code, err
        return out if code == 0 else err

    return call


@pytest.fixture(scope="module")
def drawn_before(tmp_path_factory):
    return tmp_path_factory.mktemp("shards")


@pytest.fixture
def shards(probe, drawn_before):
    """The shards of it, in the folders part1, part2, ...; each is drawn once for all tests."""

    def call(count, n=6):
        parts = [f"part{number}" for number in range(1, count + 1)]
        for number, part in enumerate(parts, 1):
            if not (kept := drawn_before / f"{number} of {count}, {n}").exists():
                probe("--shard", f"{number}/{count}", "--out", kept, n=n)
            shutil.copytree(kept, part)
        return parts

    return call


def files(folder):
    """All of a folder: the content of every file by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def record(folder):
    return json.loads((Path(folder) / "run.json").read_text())


def change_record(folder, change):
    about = record(folder)
    change(about)
    (Path(folder) / "run.json").write_text(json.dumps(about))


def drawn(folder):
    return sum(session["samples_drawn"] for session in record(folder)["sessions"])


def stored_samples(folder):
    return sum(pq.read_metadata(path).num_rows for path in Path(folder, "samples").glob("*.parquet"))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_merged_shards_have_the_tables_of_the_undivided_run(probe, shards, run, count):
    probe("--out", "whole")
    parts = shards(count)
    before = {part: files(part) for part in parts}
    code, out, err = run("merge", *parts, "--out", "merged")
    assert code == 0, err
    assert out.endswith("written: merged\n")
    assert files("merged/tables") == files("whole/tables")
    assert before == {part: files(part) for part in parts}
    assert drawn("merged") == drawn("whole") == 2 * 2 * 3 * 6  # by the shards, and none by the merge
    assert {bool(record(part)["sessions"][0]["samples_drawn"]) for part in parts} == {True}


def test_other_samples_have_other_tables(probe):
    probe("--out", "whole")
    probe("--out", "other", "--seed", 1)
    assert files("whole/tables") != files("other/tables")


def test_prompts_are_parted_where_there_are_fewer_than_shards(probe, shards, run):
    probe("--out", "whole", n=10)
    parts = shards(13, n=10)
    assert all(drawn(part) in (4, 6, 8, 10) for part in parts)  # whole batches, but for the last of a prompt
    code, _, err = run("merge", *parts, "--out", "merged")
    assert code == 0, err
    assert files("merged/tables") == files("whole/tables")
    assert drawn("merged") == drawn("whole")


@pytest.mark.parametrize("of", [1, 2, 7, 12, 13, 30, 1000])
def test_every_sample_is_of_one_shard(of):
    models = [load("toy/ar"), load("toy/mim")]
    comparison = compared(models, PROMPTS, 10, 0, {"baseline": (), "again": ()}, (), "stlpips", 4)
    found = [
        (piece.run.model.name, piece.condition, row)
        for number in range(1, of + 1)
        for piece in pieces_of(comparison.runs, Share(number, of))
        for row in piece.run.rows[piece.place]
    ]
    assert len(found) == len(set(found)) == 2 * 2 * 3 * 10


def test_a_shard_writes_no_tables_and_says_what_comes_next(probe, run):
    out = probe("--shard", "2/3", "--out", "part2")
    assert out == (
        "written: part2 has shard 2/3, 24 samples drawn now; the tables come of all 3: "
        "divlens merge SHARD... --out RUN\n"
    )
    assert record("part2")["shard"] == [2, 3]
    assert "shard" not in record("part2")["requests"]["probe"]
    assert not Path("part2/tables").exists()
    assert run("resume", "part2")[:2] == (0, "complete: part2 has all that was asked for\n")


def test_a_shard_that_was_stopped_goes_on(probe, shards, run):
    probe("--out", "whole")
    parts = shards(2)
    change_record("part2", lambda about: about["complete"].clear())
    for path in sorted(Path("part2/samples").iterdir())[-3:]:  # what was drawn last is not there
        path.unlink()
    change_record("part2", lambda about: about["stored"].clear())
    assert "not finished" in run("merge", *parts, "--out", "merged")[2]
    assert not Path("merged").exists()
    assert run("resume", "part2")[0] == 0
    assert record("part2")["shard"] == [2, 2]
    assert run("merge", *parts, "--out", "merged")[0] == 0
    assert files("merged/tables") == files("whole/tables")


def test_a_merge_adds_to_a_run_of_the_same_request(probe, shards, run):
    probe("--out", "whole", n=12)
    probe("--out", "run")  # 6 of the 12 samples are there before
    parts = shards(3, n=12)
    assert run("merge", *parts, "--out", "run")[0] == 0
    assert files("run/tables") == files("whole/tables")
    assert record("run")["sessions"][-1]["samples_drawn"] == 0
    assert stored_samples("run") == 2 * 2 * 3 * 12  # each once


def test_merge_in_python_returns_the_results(shards, probe):
    probe("--out", "whole")
    (result,) = divlens.merge(shards(2), "merged")
    assert result.request["n"] == 6
    assert files("merged/tables") == files("whole/tables")


def test_enhance_has_shards(run):
    request = ("enhance", "toy/ar", "red heart", "a cat", "-n", 4)
    assert run(*request, "--out", "whole")[0] == 0
    for number in (1, 2, 3):
        assert run(*request, "--shard", f"{number}/3", "--out", f"part{number}")[0] == 0
    assert run("merge", "part1", "part2", "part3", "--out", "merged")[0] == 0
    assert files("merged/tables") == files("whole/tables")


@pytest.mark.parametrize("text", ["17/16", "0/4", "a/b", "3", "1/0", "-1/2", "1/2/3", "", "1 / 2"])
def test_what_is_no_shard_is_refused(probe, text):
    err = probe("--shard", text, "--out", "part", code=2)
    assert err == f"divlens: error: --shard expects K/N, such as 3/16, with K from 1 to N, got {text!r}\n"
    assert not Path("part").exists()


def test_a_shard_is_read():
    assert share_from("3/16") == Share(3, 16)


def test_a_shard_needs_a_folder_of_its_own(probe):
    assert "--shard expects --out FOLDER" in probe("--shard", "1/2", code=2)
    probe("--shard", "1/2", "--out", "part1")
    probe("--out", "whole")
    before = files("part1")
    for arguments, message in [
        (("--shard", "2/2", "--out", "part1"), "part1 holds shard 1/2, asked for is shard 2/2"),
        (("--out", "part1"), "part1 holds shard 1/2 of a run: go on with --shard 1/2"),
        (("--shard", "1/2", "--out", "whole"), "whole holds a whole run, asked for is shard 1/2"),
    ]:
        err = probe(*arguments, code=2)
        assert message in err and err.count("\n") == 1
    assert files("part1") == before
    with pytest.raises(DivlensError, match="holds shard 1/2"):
        divlens.probe(["toy/ar", "toy/mim"], PROMPTS, 6, conditions={"baseline": ()}, out="part1")


def other_seed(parts):
    change_record(parts[1], lambda about: about["requests"]["probe"].update(seed=1, n=9))


def other_dtype(parts):
    change_record(parts[1], lambda about: about["requests"]["probe"]["setup"]["toy/ar:0"].update(dtype="float16"))


def other_model(parts):
    change_record(parts[1], lambda about: about["models"]["toy/ar:0"].update(content="0"))


def unfinished(parts):
    change_record(parts[2], lambda about: about["complete"].clear())


def cut(parts):
    path = sorted(Path(parts[1], "samples").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-1])


def lost(parts):
    sorted(Path(parts[1], "scores/samples").iterdir())[0].unlink()


def none_missing(parts):
    del parts[1]


def twice(parts):
    shutil.copytree(parts[1], "copy")
    parts[2] = "copy"


def of_another_number(parts):
    change_record(parts[1], lambda about: about.update(shard=[2, 4]))


def undivided(parts):
    change_record(parts[1], lambda about: about.pop("shard"))


def no_run(parts):
    parts[1] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_seed, "shards of one request, got other seed, n in part2 beside part1"),
        (other_dtype, "shards of one request, got other setup in part2 beside part1"),
        (other_model, "shards of the same models, got another content of toy/ar:0 in part2 beside part1"),
        (unfinished, "part3 is not finished: go on with `divlens resume part3`"),
        (cut, "part2 has files that are not what was written: samples/000000-000000-"),
        (lost, "part2 has files that are not what was written: scores/samples/000000 (missing)"),
        (none_missing, "merge expects all of the shards 1 to 3, missing: 2"),
        (twice, "merge expects each shard once, got 2/3 in part2 and copy"),
        (of_another_number, "merge expects the shards of one run, got 2/4 in part2 beside 1/3 in part1"),
        (undivided, "merge expects folders of shards, which --shard makes; part2 holds a whole run"),
        (no_run, "expected the folder of a run, got nowhere, which is empty or not there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_parts_that_do_not_fit_are_refused_and_named(shards, run, spoil, message):
    parts = shards(3)
    spoil(parts)
    code, out, err = run("merge", *parts, "--out", "merged")
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert not Path("merged").exists()


def test_shards_drawn_on_other_devices_and_batches_fit(shards, run, probe):
    parts = shards(3)
    change_record(parts[1], lambda about: about["requests"]["probe"]["setup"]["toy/ar:0"].update(batch_size=9))
    assert run("merge", *parts, "--out", "merged")[0] == 0


def test_a_run_of_another_request_is_not_merged_into(shards, probe, run):
    parts = shards(2)
    probe("--out", "other", "--seed", 1)
    before = files("other")
    code, _, err = run("merge", *parts, "--out", "other")
    assert code == 2 and "seed was 1, now 0" in err
    assert files("other") == before
    assert run("merge", *parts, "--out", "part1")[0] == 2  # a shard is no place for a whole run
