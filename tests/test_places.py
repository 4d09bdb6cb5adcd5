"""A run at an address that fsspec knows: in the memory of this process, and in an object store."""

import json
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

import divlens
from divlens.errors import DivlensError
from divlens.store.place import Place

PROMPTS = ("red heart", "a cat", "blue sky over the sea")
NAMES = ("table.csv", "table.parquet", "per_prompt.csv", "per_prompt.parquet")

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


@pytest.fixture(scope="module")
def s3():
    """A bucket of a server on this machine; where it is stands in the environment."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        yield
        type(files).clear_instance_cache()
    server.stop()


@pytest.fixture(params=["memory", "s3", "file"])
def address(request, tmp_path):
    """A new one of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    within = {"memory": "memory://", "s3": "s3://bucket/", "file": f"file://{tmp_path}/"}
    return f"{within[request.param]}{uuid.uuid4().hex}/run"


def probe(out, n=5, **options):
    return divlens.probe("toy/mim", PROMPTS, n, conditions={"baseline": ()}, batch_size=4, out=out, **options)


def tables(out):
    return {name: Place(out).read(f"tables/probe/{name}") for name in NAMES}


def sessions(out):
    return json.loads(Place(out).read("run.json"))["sessions"]


def test_a_run_is_the_same_at_any_address(address, tmp_path):
    probe(tmp_path / "here")
    probe(address)
    assert tables(address) == tables(tmp_path / "here")
    assert Place(address).names("samples") == Place(tmp_path / "here").names("samples")
    probe(tmp_path / "other", seed=1)
    assert tables(address) != tables(tmp_path / "other")


def test_a_run_goes_on_and_grows_at_any_address(address, tmp_path):
    probe(tmp_path / "here", n=9)

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(address, on_batch=stop)
    assert Place(address).names("tables") == []
    (result,) = divlens.resume(address)
    assert [session["samples_drawn"] for session in sessions(address)] == [4, 11]
    assert len(result.blocks) == 1
    probe(address, n=9)
    assert sessions(address)[-1]["samples_drawn"] == 3 * 4
    assert tables(address) == tables(tmp_path / "here")
    assert divlens.resume(address) == []


def test_a_damaged_file_is_named_at_any_address(address, tmp_path):
    probe(address)
    place, before = Place(address), tables(address)
    first, second, *_ = place.names("samples")
    place.write(f"samples/{first}", place.read(f"samples/{first}")[:-1])
    place.remove(f"samples/{second}")
    with pytest.raises(DivlensError, match=r"samples/000000-000000-\w+\.parquet, samples/000001 \(missing\)"):
        probe(address)
    divlens.resume(address, repair=True)
    assert sessions(address)[-1]["samples_drawn"] == 8
    assert tables(address) == before


def test_shards_are_merged_at_any_address(address, run, tmp_path):
    request = ("probe", "toy/mim", "--prompts", "prompts.txt", "-n", 5, "--condition", "hot=Temperature(1.5)")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    assert run(*request, "--out", "whole")[0] == 0
    parts = [f"{address}{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert run(*request, "--shard", f"{number}/2", "--out", part)[0] == 0
    code, out, err = run("merge", *parts, "--out", address)
    assert code == 0, err
    assert out.endswith(f"written: {address}\n")
    assert tables(address) == tables("whole")


def test_a_place_knows_its_files(address):
    place = Place(address)
    assert place.names() == [] and not place.has("a")
    with pytest.raises(FileNotFoundError):
        place.read("a")
    place.write("folder/a", b"1")
    place.write("folder/b", b"2")
    place.write("folder/a", b"3")
    assert place.names() == ["folder"] and place.names("folder") == ["a", "b"]
    assert place.has("folder/a") and place.has("folder") and not place.has("folder/c")
    assert place.read("folder/a") == b"3"
    place.remove("folder/a")
    place.remove("folder/a")
    assert place.names("folder") == ["b"]


def test_a_folder_takes_the_place_of_another(address, tmp_path):
    place = Place(address)
    for name in ("old", "new"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / f"{name}.txt").write_text(name)
        place.put_folder(tmp_path / name, "tables")
    assert place.names("tables/inner") == ["new.txt"]
    assert place.read("tables/inner/new.txt") == b"new"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://run", "a run needs a folder or an address, such as s3://...; nothing://run: Protocol not known"),
        ("github://run", "a run needs a folder or an address, such as s3://...; github://run: "),
    ],
)
def test_what_is_no_address_is_refused(run, address, message):
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", address)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_an_address_without_its_package_is_refused(run, monkeypatch):
    about = {"class": "no_such_package.S4", "err": "Install s4fs to access S4"}
    monkeypatch.setitem(known_implementations, "s4", about)
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", "s4://bucket/run")
    assert (code, out) == (2, "")
    assert err == "divlens: error: a run at s4:// needs a package that is not there: Install s4fs to access S4\n"


@pytest.fixture
def no_server(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    yield
    kind.clear_instance_cache()


def refusal(run, out):
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", out)
    assert code == 2 and err.count("\n") == 1
    assert not Path("s3:").exists()
    return err


def test_a_bucket_that_is_not_there_is_one_line(s3, run):
    message = "cannot write to s3://no-such-bucket/run: The specified bucket does not exist"
    assert refusal(run, "s3://no-such-bucket/run") == f"divlens: error: {message}\n"


def test_a_store_that_cannot_be_reached_is_one_line(no_server, run):
    err = refusal(run, "s3://bucket/run")
    assert err.startswith("divlens: error: cannot read s3://bucket/run") and "127.0.0.1:1" in err
