"""A run on the workers of a Ray cluster: the same whatever their number, and when one of them dies."""

import json
import logging
import pickle
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import divlens
from divlens import scale
from divlens.errors import DivlensError
from divlens.experiment import workers
from divlens.models import registry
from divlens.models.toy import load_ar
from divlens.scale import MOST_DEATHS, Crew
from oracles.colour_network import colour_network

PROMPTS = ("red heart", "a cat", "blue sky over the sea")
CONDITIONS = {"baseline": (), "subset": divlens.Subset(0.7)}


def probe(out, n=6, models=("toy/ar", "toy/mim"), **options):
    return divlens.probe(models, PROMPTS, n, conditions=CONDITIONS, batch_size=4, out=out, **options)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.*")}


def tables(out, command="probe"):
    return files(Path(out, "tables", command))


def drawn(out):
    return [session["samples_drawn"] for session in json.loads(Path(out, "run.json").read_text())["sessions"]]


# With Ray.


@pytest.fixture(scope="module")
def ray():
    """Ray on three cores of this machine."""
    import ray  # slow to import: not for the tests that need none

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield ray
        ray.shutdown()


@pytest.fixture
def cores():
    """How many cores a worker takes is how many torch takes here."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_one_worker_three_workers_and_one_that_is_killed_give_the_same_tables(ray, cores, tmp_path):
    cores(1)
    probe(tmp_path / "alone")
    probe(tmp_path / "three", ray="auto")
    assert tables(tmp_path / "three") == tables(tmp_path / "alone")
    assert drawn(tmp_path / "three") == drawn(tmp_path / "alone") == [2 * 2 * 3 * 6]

    killed = []

    def kill(count):
        if not killed:
            (name,) = ray.util.list_named_actors()  # with three cores for each there is one
            killed.append(name)
            ray.kill(ray.get_actor(name))

    cores(3)
    probe(tmp_path / "killed", ray="auto", on_batch=kill)
    assert killed
    assert tables(tmp_path / "killed") == tables(tmp_path / "alone")
    assert drawn(tmp_path / "killed") == [2 * 2 * 3 * 6]

    probe(tmp_path / "other", seed=1)
    assert tables(tmp_path / "other") != tables(tmp_path / "alone")


def test_what_a_worker_refuses_is_one_line(ray, cores, tmp_path, monkeypatch):
    cores(3)
    monkeypatch.setitem(registry.TABLE, "studio/mine", registry.Registered(load_ar))
    model = SimpleNamespace(**{name: getattr(load_ar(), name) for name in MEMBERS}, name="studio/mine")
    with pytest.raises(DivlensError, match=r"^no model is called 'studio/mine'") as refused:
        probe(tmp_path / "run", models=[model], ray="auto")
    assert "\n" not in str(refused.value)


MEMBERS = (
    *("rule", "guidance", "codes", "mask", "grid", "encode", "predictor", "decode", "frequencies"),
    "calibration_prompts",
)

# With workers in this process, each task and answer as it is sent.


@pytest.fixture
def near(monkeypatch, colours_for_lpips):
    """The tasks, in the order in which they were answered: the last first."""
    answered = []

    def dealt(tasks, worker, arguments, *, address, gpus, cores):
        one = worker(*pickle.loads(pickle.dumps(arguments)))
        for task in reversed(list(tasks)):
            answered.append(task)
            yield task, pickle.loads(pickle.dumps(one.answer(pickle.loads(pickle.dumps(task)))))

    monkeypatch.setattr(workers, "dealt", dealt)
    monkeypatch.setattr(workers, "check_ray", lambda address: None)
    monkeypatch.setattr(workers, "load_network", lambda name: colour_network())
    return answered


def test_the_order_of_the_answers_does_not_matter(near, tmp_path):
    told = []
    probe(tmp_path / "alone")
    probe(tmp_path / "near", ray="auto", on_batch=told.append)
    assert tables(tmp_path / "near") == tables(tmp_path / "alone")
    assert sum(told) == 2 * 2 * 3 * 6
    assert len(near) == 2 * 2  # a window holds all prompts of a condition
    assert not list(Path(tmp_path, "near").glob("memory*"))


def test_only_what_is_missing_is_drawn_and_measured(near, tmp_path):
    probe(tmp_path / "alone", n=10)
    probe(tmp_path / "near", n=6)
    told = []
    result = probe(tmp_path / "near", n=10, ray="auto", on_batch=told.append)
    assert tables(tmp_path / "near") == tables(tmp_path / "alone")
    assert drawn(tmp_path / "near") == [2 * 2 * 3 * 6, 2 * 2 * 3 * 4]
    assert sum(told) == 2 * 2 * 3 * 10
    near.clear()
    probe(tmp_path / "near", n=10, ray="auto")
    assert near == []
    assert len(result.samples[0].tokens) == 3


def test_what_is_there_under_another_name_is_not_drawn_on_workers(near, tmp_path):
    probe(tmp_path / "near")
    conditions = CONDITIONS | {"again": divlens.Subset(0.7)}
    divlens.probe(
        ("toy/ar", "toy/mim"), PROMPTS, 6, conditions=conditions, batch_size=4, out=tmp_path / "near", ray="auto"
    )
    assert drawn(tmp_path / "near") == [2 * 2 * 3 * 6, 0]
    assert {window.condition for window in near} == {"again"}  # it is measured there
    divlens.probe(("toy/ar", "toy/mim"), PROMPTS, 6, conditions=conditions, batch_size=4, out=tmp_path / "alone")
    assert tables(tmp_path / "near") == tables(tmp_path / "alone")


def test_enhance_and_shards_have_workers(near, run, tmp_path):
    prompts = ("red heart", "a cat")
    divlens.enhance("toy/ar", prompts, 10, batch_size=4, out=tmp_path / "alone")
    divlens.enhance("toy/ar", prompts, 10, batch_size=4, out=tmp_path / "near", ray="auto")
    assert tables(tmp_path / "near", "enhance") == tables(tmp_path / "alone", "enhance")
    request = ("enhance", "toy/ar", *prompts, "-n", 10, "--batch-size", 4, "--ray", "auto")
    for number in range(1, 8):  # more shards than prompts, so that prompts are parted
        code, _, err = run(*request, "--shard", f"{number}/7", "--out", f"part{number}")
        assert code == 0, err
    assert {window.measured for window in near} == {True, False}
    assert run("merge", *(f"part{number}" for number in range(1, 8)), "--out", "merged")[0] == 0
    assert tables("merged", "enhance") == tables(tmp_path / "alone", "enhance")


def test_a_worker_that_loads_another_model_says_so(near, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "fingerprint_of", lambda model: "0")
    with pytest.raises(
        DivlensError, match=r"a worker of Ray loads another toy/\w+:0: its content is 0, that of the run"
    ):
        probe(tmp_path / "run", ray="auto")


# What is refused.


@pytest.mark.parametrize("command", [("probe", "toy/ar", "--limit", 2), ("enhance", "toy/ar", "a cat")])
def test_ray_without_its_package_is_one_line(run, monkeypatch, command):
    monkeypatch.setattr(scale, "find_spec", lambda name: None)
    code, out, err = run(*command, "-n", 2, "--out", "run", "--ray", "auto")
    assert (code, out) == (2, "")
    assert err == ("divlens: error: ray expects the package ray, which is not installed: pip install 'divlens[ray]'\n")
    assert not Path("run").exists()


def test_ray_needs_a_folder_and_an_address(run, monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "find_spec", lambda name: name)
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--ray", "auto")
    assert code == 2 and "ray expects the folder of a run, out= or --out" in err and err.count("\n") == 1
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", "run", "--ray", "127.0.0.1:1")
    assert code == 2 and "ray expects a cluster at 127.0.0.1:1: " in err and err.count("\n") == 1
    assert not Path("run").exists()
    for address in ("", 3, True):
        with pytest.raises(DivlensError, match='ray expects "auto" or the address of a cluster'):
            probe(tmp_path / "run", ray=address)


# Who is dealt what.


class Death(Exception):
    pass


class Fault(Exception):
    pass


class FakeWorker:
    def __init__(self, number):
        self.number, self.dead = number, False
        self.ready = SimpleNamespace(remote=lambda: (self, None))
        self.answer = SimpleNamespace(remote=lambda task: (self, task))


class FakeRay:
    """What `Crew` asks of Ray, one thing after the other. `deadly`: tasks that kill a worker, each so many times."""

    def __init__(self, deadly):
        self.deadly, self.killed = dict(deadly), []
        self.exceptions = SimpleNamespace(RayActorError=Death, RayTaskError=Fault)

    def wait(self, waiting, num_returns):
        return waiting[:num_returns], waiting[num_returns:]

    def get(self, ready):
        worker, task = ready
        if self.deadly.get(task, 0):
            self.deadly[task] -= 1
            worker.dead = True
        if worker.dead:
            raise Death("it died")
        return None if task is None else task * 10

    def kill(self, worker):
        self.killed.append(worker.number)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("deadly", [{}, {3: 1}, {1: 2, 7: 1}, {0: 4}, {None: 2}])
def test_every_task_is_answered_once(size, deadly):
    ray = FakeRay(deadly)
    crew = Crew(ray, FakeWorker, size)
    answers = dict(crew.answers(range(10)))
    assert answers == {task: task * 10 for task in range(10)}
    assert len(crew.workers) == size
    crew.dismiss()
    assert len(ray.killed) == size


@pytest.mark.parametrize("task", [4, None])
def test_a_task_that_kills_every_worker_is_given_up(task):
    ray = FakeRay({task: 100})
    answered = deque()
    with pytest.raises(DivlensError, match=f"{MOST_DEATHS} workers of Ray died one after the other at the same work"):
        answered.extend(Crew(ray, FakeWorker, 1).answers(range(10)))
    assert ray.deadly[task] == 100 - MOST_DEATHS
