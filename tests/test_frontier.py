"""The frontier: choices against brute force, decisions on planted tables of known truth, and runs of toy models."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import divlens
from divlens import Detailed, Guidance, Measure, Prompt
from divlens.conditions import BASELINE
from divlens.errors import DivlensError
from divlens.experiment.measures import DIVERSITY, FIDELITY, LAW_DISTANCE, OPENNESS
from divlens.frontier import Frontier, frontier
from divlens.frontier.analysis import MOST_LOSS, SAME_FIDELITY, analysed
from divlens.frontier.api import planned
from divlens.frontier.choices import Choice, choice_of, pareto_set, shares_of
from divlens.frontier.figures import Half, choosing, halves_of, mixture
from divlens.frontier.methods import GUIDANCE, METHODS, SETTINGS, by_method, conditions_of, passes_of
from divlens.frontier.standing import goal_of, standings_of, word_for
from divlens.interventions import described
from divlens.lab.captions import NAMING
from divlens.lab.reading import all_read, read
from divlens.models.toy import ToyPredictor
from divlens.notation import interventions_described
from divlens.resume import resume
from divlens.settings import Settings
from divlens.verdict.contrasts import LEVEL
from oracles.colour_network import colour_network
from oracles.run_folders import files_in, record_of

PROMPTS = tuple(f"{size} {thing}" for size in ("small", "large") for thing in ("fox", "heart", "rocket", "crown"))
BRIGHTNESS = Measure("brightness", lambda look: look.pictures.mean((1, 2, 3)))


# Which prompts choose


def test_half_of_the_prompts_choose_whatever_their_order():
    for count in (2, 3, 10, 11):
        texts = [f"prompt {i}" for i in range(count)]
        first = choosing(texts)
        assert first.sum() == count // 2
        backwards = choosing(texts[::-1])
        assert backwards[::-1].tolist() == first.tolist()
    assert choosing([f"prompt {i}" for i in range(10)]).tolist() != choosing([f"text {i}" for i in range(10)]).tolist()


def test_what_alternates_in_a_list_of_prompts_does_not_decide_the_half():
    """Bare names stand at every second place of the zoo's prompts: all in one half would come by chance once in a
    million."""
    first = choosing([prompt.text for prompt in divlens.default_prompts()])
    assert 0 < first[::2].sum() < 12 and first.sum() == 12


def test_a_prompt_that_lacks_a_figure_is_left_out_of_both_halves():
    texts = [f"prompt {i}" for i in range(8)]
    whole = np.arange(8.0)
    gap = np.where(np.arange(8) == 3, np.nan, whole)
    values = {("baseline", "d"): whole, ("hot", "d"): gap, ("baseline", "f"): whole, ("hot", "f"): whole}
    found = halves_of(texts, ["baseline", "hot"], lambda *key: values[key], "d", "f", None)
    assert found.left_out == 1 and found.chooses.prompts + found.reports.prompts == 7
    both = np.concatenate([found.chooses.fidelity["baseline"], found.reports.fidelity["baseline"]])
    assert sorted(both) == [0, 1, 2, 4, 5, 6, 7]
    blind = halves_of(texts, ["baseline", "hot"], lambda *key: values[key], "d", None, None)
    assert not blind.reports.fidelity["hot"].any() and blind.reports.distance is None


# Which settings are chosen


def test_the_area_is_that_of_the_staircase_by_quadrature():
    """Against the best of all settings within a loss, taken at 20,000 losses: each step is off by one of them at most,
    and there are 6."""
    random = np.random.default_rng(0)
    for _ in range(20):
        names = [BASELINE, *"abcde"]
        diversity = dict(zip(names, random.uniform(0.2, 1, 6), strict=True))
        fidelity = dict(zip(names, random.uniform(0.5, 0.9, 6), strict=True))
        shares = shares_of(names, diversity, fidelity, 0.2)
        losses = (np.arange(20_000) + 0.5) / 20_000 * 0.2
        best = [
            max(diversity[name] for name in names if fidelity[BASELINE] - fidelity[name] <= loss) for loss in losses
        ]
        assert sum(shares.values()) == pytest.approx(1)
        assert sum(share * diversity[name] for name, share in shares.items()) == pytest.approx(
            np.mean(best), abs=6 / 2e4
        )


def test_the_area_of_a_staircase_that_is_known():
    diversity, fidelity = {BASELINE: 1.0, "a": 2.0, "b": 3.0, "c": 9.0}, {BASELINE: 0.9, "a": 0.85, "b": 0.75, "c": 0.6}
    assert shares_of(list(diversity), diversity, fidelity, 0.2) == pytest.approx({BASELINE: 0.25, "a": 0.5, "b": 0.25})
    assert shares_of(["a"], diversity, {**fidelity, "a": 0.95}, 0.2) == {"a": 1.0}  # faithful: at every loss


def half(**settings: tuple[Any, ...]) -> Half:
    """Of each setting diversity, fidelity and maybe the distance, one prompt after the other."""
    columns = {name: np.atleast_2d(np.array(values, float).T).T for name, values in settings.items()}
    parts = [{name: values[i] for name, values in columns.items()} for i in range(len(next(iter(columns.values()))))]
    return Half(*parts)


def test_settings_are_chosen_at_no_loss_of_the_other():
    found = half(
        baseline=([5], [0.8], [0.3]), broken=([9], [0.5], [0.1]), better=([7], [0.8], [0.2]), sharp=([5], [0.9], [0.25])
    )
    choice = choice_of(found, ["broken", "better", "sharp"], MOST_LOSS)
    assert (choice.most_diverse, choice.most_faithful, choice.nearest) == ("better", "sharp", "better")
    alone = choice_of(found, ["broken"], MOST_LOSS)  # baseline is a setting of every method
    assert (alone.most_diverse, alone.most_faithful, alone.nearest) == (BASELINE, BASELINE, BASELINE)
    assert alone.shares == {BASELINE: 1.0}


def test_the_planted_pareto_set_comes_out_and_is_that_of_brute_force():
    planted = half(baseline=([5], [0.8]), dull=([4], [0.9]), worse=([4], [0.7]), wild=([9], [0.2]), same=([5], [0.8]))
    assert pareto_set(planted) == ["dull", BASELINE, "same", "wild"]
    random = np.random.default_rng(1)
    for _ in range(20):
        points = {str(i): random.integers(0, 5, (2, 1)) for i in range(9)}
        got = set(pareto_set(half(**{name: tuple(point) for name, point in points.items()})))
        beaten = {
            one
            for one, other in itertools.permutations(points, 2)
            if (points[other] >= points[one]).all() and (points[other] > points[one]).any()
        }
        assert got == set(points) - beaten


def test_a_mixture_is_the_mean_of_its_settings():
    values = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 8.0])}
    assert mixture(values, {"a": 0.25, "b": 0.75}).tolist() == [2.5, 6.5]


# Where methods stand


def planted(changes: dict[str, tuple[float, float]], prompts: int = 40, scatter: float = 0.03, seed: int = 0) -> Half:
    """Diversity 0.5 and fidelity 0.8 on average; of each method, how much of either it adds. Prompts differ from each
    other by much more than methods do, and methods by `scatter` from prompt to prompt."""
    random = np.random.default_rng(seed)
    diversity, fidelity = random.uniform(0.3, 0.7, prompts), random.uniform(0.7, 0.9, prompts)

    def around(values: np.ndarray, change: float) -> np.ndarray:
        return values + change + scatter * random.standard_normal(prompts)

    both = {name: (around(diversity, more), around(fidelity, right)) for name, (more, right) in changes.items()}
    return Half({name: pair[0] for name, pair in both.items()}, {name: pair[1] for name, pair in both.items()})


def only(setting: str) -> Choice:
    return Choice(setting, setting, {setting: 1.0}, setting)


def test_methods_that_are_ahead_level_and_behind_come_out_as_such():
    """Changes of six and more standard errors (0.03 * sqrt(2 / 40) = 0.007); the level one has none, and 0.05, the
    margin, is seven of them away. That any comes out otherwise has a chance below one in a thousand."""
    table = planted(
        {
            GUIDANCE: (0, 0),
            "ahead": (0.08, 0),
            "level": (0, 0),
            "behind": (-0.08, 0),
            "broken": (0.08, -0.15),
            "careful": (-0.08, 0.15),
            "blurred": (0, -0.15),
        }
    )
    table = replace(table, diversity={**table.diversity, BASELINE: table.diversity[GUIDANCE]})
    table = replace(table, fidelity={**table.fidelity, BASELINE: table.fidelity[GUIDANCE]})
    methods = {name: only(name) for name in table.diversity if name != BASELINE}
    found = standings_of(table, methods, MOST_LOSS, 0)
    words = {name: one.word for name, one in found.items()}
    assert words == {
        "ahead": "ahead",
        "level": "level",
        "behind": "behind",
        "broken": "undecided",  # more diverse, but at more than the 0.1 of fidelity that are allowed on average
        "careful": "behind",
        "blurred": "undecided",
    }
    noisy = planted({BASELINE: (0, 0), GUIDANCE: (0, 0), "ahead": (0.08, 0)}, prompts=8, scatter=0.5)
    assert standings_of(noisy, {name: only(name) for name in (GUIDANCE, "ahead")}, 0.2, 0)["ahead"].word == "undecided"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [  # nobody lost more than was allowed, the method did, guidance did
        ("rise", ["ahead", "undecided", "ahead"]),
        ("drop", ["behind", "behind", "undecided"]),
        ("zero", ["behind", "behind", "undecided"]),
        ("equivalent", ["level", "undecided", "undecided"]),
        ("undecided", ["undecided"] * 3),
    ],
)
def test_who_lost_more_than_was_allowed_is_not_the_better_one(outcome, words):
    assert [word_for(outcome, *lost) for lost in ((False, False), (True, False), (False, True))] == words


def of_one_law(repetitions: int, halves: bool) -> tuple[int, float]:
    """Two methods, of 64 settings each, against guidance of one setting; all settings have one law. In how many
    repetitions any of the two stands ahead or behind; and their mean change against guidance, a share. halves: whether
    the prompts that choose are others than those that report."""
    decided, changes = 0, []
    for seed in range(repetitions):
        random = np.random.default_rng(seed)
        names = [BASELINE, "guidance=1", *(f"{method}={i}" for method in "ab" for i in range(64))]
        level = random.uniform(0.3, 0.7, 24)
        values = {name: level + 0.1 * random.standard_normal(24) for name in names}
        whole, first = Half(values, dict.fromkeys(names, np.zeros(24))), np.arange(24) < 12
        chooses, reports = whole.of(first), whole.of(~first if halves else first)
        tried = by_method(names)
        choices = {method: choice_of(chooses, settings, MOST_LOSS) for method, settings in tried.items()}
        standings = standings_of(reports, choices, MOST_LOSS, seed)
        decided += any(one.word in ("ahead", "behind") for one in standings.values())
        changes += [one.diversity.change.value for one in standings.values()]
    return decided, float(np.mean(changes))


def test_methods_of_one_law_seldom_stand_ahead_or_behind():
    """At 5%, 5 of 100; more than 12 would come by chance once in 700. A change has a standard error of
    0.1 * sqrt(2 / 12) / 0.5 = 8%, two of them share guidance, so their mean over 100 has one of at most 0.8%. Where the
    prompts that choose report, too, the best of 64 seems better than one of the same law: by 2.4 - 0.6 standard errors
    of a mean, 5.8% each."""
    decided, change = of_one_law(100, halves=True)
    assert decided <= 12 and abs(change) < 4 * 0.008
    assert of_one_law(20, halves=False)[1] > 0.06


# The goal


def goal_table(changes: dict[str, tuple[float, float]], prompts: int = 60, seed: int = 0) -> Half:
    """Of each setting, how much it adds to a distance of 0.2 and to a fidelity of 0.8."""
    random = np.random.default_rng(seed)
    found = planted({name: (0, right) for name, (_, right) in changes.items()}, prompts, seed=seed)
    distance = {name: 0.2 + more + 0.02 * random.standard_normal(prompts) for name, (more, _) in changes.items()}
    return replace(found, distance=distance)


def goal_in(changes: dict[str, tuple[float, float]]) -> Any:
    chooses, reports = goal_table(changes), goal_table(changes, seed=1)
    tried = by_method(changes)
    choices = {method: choice_of(chooses, settings, MOST_LOSS) for method, settings in tried.items()}
    return goal_of(chooses, reports, choices, tried[GUIDANCE], SAME_FIDELITY, 0)


RIVALS = {BASELINE: (0.0, 0.0), "guidance=1": (-0.03, -0.1), "guidance=2": (0.01, 0.0)}


def test_the_goal_is_reached_by_what_is_nearer_than_baseline_and_the_best_of_guidance():
    """Differences of 0.04 and more are 10 standard errors (0.02 * sqrt(2 / 60) = 0.004)."""
    goal = goal_in({**RIVALS, "near=1": (-0.08, 0.05), "near=2": (-0.1, -0.2), "far=1": (-0.01, 0.05)})
    assert goal.guidance == "guidance=1"  # the nearest, whatever it loses of fidelity
    (found,) = goal.candidates  # "far" is no nearer than guidance, and costs the other nothing
    assert (found.method, found.setting, found.reaches) == ("near", "near=1", True)  # near=2 loses fidelity
    assert found.from_baseline.high < 0 and found.from_guidance.high < 0 and found.fidelity.value > 0
    assert found.p == max(found.p_baseline, found.p_guidance, found.p_fidelity)
    assert goal.reached_by == [found]


def test_the_goal_is_not_reached_at_a_loss_or_beside_guidance():
    """That the prompts that choose find no loss, where others find one, is what the test of fidelity is for."""
    changes = {**RIVALS, "near=1": (-0.08, 0.0)}
    chooses, reports = goal_table(changes), goal_table({**changes, "near=1": (-0.08, -0.05)}, seed=1)
    choices = {"guidance": only("guidance=1"), "near": only("near=1")}
    goal = goal_of(chooses, reports, choices, ["guidance=1"], SAME_FIDELITY, 0)
    assert goal is not None and not goal.reached_by
    (found,) = goal.candidates
    assert found.p_baseline < LEVEL and found.p_guidance < LEVEL and found.p_fidelity > LEVEL
    kept = goal_of(chooses, goal_table(changes, seed=1), choices, ["guidance=1"], SAME_FIDELITY, 0)
    assert kept is not None and kept.candidates[0].p_fidelity < found.p_fidelity  # the control
    assert not goal_in({**RIVALS, "near=1": (-0.03, 0.05)}).reached_by  # as near as guidance is not nearer
    assert goal_in({**RIVALS, "far=1": (0.1, 0.05)}).candidates == ()


def test_a_method_of_the_law_of_baseline_seldom_reaches_the_goal():
    """A candidate must be nearer than both: less than 5% of 60, which 9 exceed once in 1,000."""
    reached = 0
    for seed in range(60):
        names = {BASELINE: (0.0, 0.0), "guidance=1": (0.0, 0.0), "a=1": (0.0, 0.05), "b=1": (0.0, 0.05)}
        chooses, reports = goal_table(names, 12, 2 * seed), goal_table(names, 12, 2 * seed + 1)
        choices = {method: choice_of(chooses, tried, MOST_LOSS) for method, tried in by_method(names).items()}
        goal = goal_of(chooses, reports, choices, ["guidance=1"], SAME_FIDELITY, 0)
        reached += bool(goal is not None and goal.reached_by)
    assert reached <= 9


# Methods


def test_every_method_has_as_many_settings_as_any_other():
    for model in (SimpleNamespace(guidance=1.5, codes=512), SimpleNamespace(guidance=1.0, codes=16384)):
        for method in METHODS:
            settings = method.settings(model)  # type: ignore[arg-type]
            assert len(settings) == SETTINGS and len({described(done) for done in settings.values()}) == SETTINGS
            for done in settings.values():
                assert interventions_described(described(done)) == tuple(done)
        conditions = conditions_of(METHODS, model)  # type: ignore[arg-type]
        assert len(conditions) == 1 + SETTINGS * len(METHODS)
        assert by_method(conditions).keys() == {method.name for method in METHODS}
        scales = [part.scale for done in list(conditions.values())[1:5] for part in done if isinstance(part, Guidance)]
        assert scales == sorted(scales, reverse=True) and max(scales) < model.guidance


def test_passes_are_counted_as_the_network_is_asked(monkeypatch):
    asked = 0
    usual = ToyPredictor.__call__

    def counting(self, view):
        nonlocal asked
        asked += (1 + self.guided) * len(view.tokens)
        return usual(self, view)

    monkeypatch.setattr(ToyPredictor, "__call__", counting)
    model = divlens.load("toy/mim")
    for scale in (1.0, 0.8, 2.0):
        asked = 0
        divlens.sample(model, ["a cat"], n=3, interventions=[Guidance(scale)])
        assert asked == 3 * passes_of(Settings(rule=model.rule, guidance=scale))


# Detailed wordings


def test_detailed_wordings_name_what_the_prompt_names_and_as_much_more_as_asked():
    prompt = Prompt("small fox, blue background")
    meaning = read(prompt.text)
    for details in (1, 2, None):
        found = Detailed(details, n=40).wordings(prompt, lambda one: ())
        assert len(found) == 40
        for wording in map(read, found):
            assert all(wording.values[place] == meaning.values[place] for place in meaning.named)
            assert len(wording.named) == len(meaning.named) + (details or 2)
    assert Detailed(4).wordings(prompt, lambda one: ()) == Detailed().wordings(prompt, lambda one: ())  # at most
    assert Detailed(seed=1).wordings(prompt, lambda one: ()) != Detailed().wordings(prompt, lambda one: ())


def test_detailed_wordings_fill_in_values_evenly():
    """Of 1,000, each of K values comes out within five standard errors: a false alarm in 50,000 runs of the 30."""
    named = np.array([read(one).values for one in Detailed(n=1000).wordings(Prompt("fox"), lambda one: ())], float)
    for place in set(NAMING) - {0}:
        counts = np.unique(named[:, place], return_counts=True)[1]
        share = 1 / len(counts)
        assert (abs(counts / 1000 - share) < 5 * math.sqrt(share * (1 - share) / 1000)).all()


def test_detailed_wordings_of_a_prompt_that_says_all_and_of_one_that_no_laboratory_reads():
    everything = "small fox, left, blue background, flat style"
    assert Detailed().wordings(Prompt(everything), lambda one: ()) == (everything,)
    assert read(Detailed().wordings(Prompt("🦊", ("a picture of a fox",)), lambda one: ())[0]).values[0] is not None
    with pytest.raises(
        DivlensError,
        match=r"^Detailed expects prompts that the laboratory can read, got 'a shiny fox'; words='everyday'",
    ):
        Detailed().wordings(Prompt("a shiny fox"), lambda one: ())


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module", autouse=True)
def quick_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name=None: colour_network())
        yield


CHOSEN = ["temperature", "detailed"]


@pytest.fixture(scope="module")
def found(folder):
    return frontier("toy/mim", PROMPTS, n=4, methods=CHOSEN, out=folder)


def test_a_frontier_of_a_toy_is_of_lpips_diversity_alone_and_says_so(found):
    assert found.analysis.diversity.name == DIVERSITY and found.analysis.fidelity is None
    assert list(found.table["method"]) == [GUIDANCE, *CHOSEN]
    text = str(found)
    assert "No figure of fidelity exists" in text and max(map(len, text.splitlines())) <= 80
    assert "Passes of the network for a sample: 6, but 3 under guidance=1." in text
    assert "No method can stand ahead or behind on 4 prompts: that takes 7 that report." in text


def test_the_figures_are_plain_means_over_the_prompts_that_report(found):
    table = found.per_prompt.set_index("condition")
    reports = ~choosing(PROMPTS)
    of = {name: table.loc[name][DIVERSITY].to_numpy() for name in found.probed.conditions}
    for row in found.table.to_dict("records"):
        settings = [name for name in of if name.startswith(f"{row['method']}=")]
        best = max([BASELINE, *settings], key=lambda name: of[name][~reports].mean())  # no setting loses fidelity
        assert row["most_diverse"] == best
        assert row["area"] == pytest.approx(of[best][reports].mean())
        base = of[BASELINE][reports].mean()
        assert row["diversity_gained"] == pytest.approx(row["area"] / base - 1)
        rival = found.table.iloc[0]["area"]
        if row["method"] != GUIDANCE:
            assert row["change_against_guidance"] == pytest.approx(row["area"] / rival - 1)
    shown = found.settings.set_index("condition")
    assert shown.loc["temperature=2", "diversity"] == pytest.approx(of["temperature=2"][reports].mean())
    assert shown.loc["temperature=2", "diversity_chosen_by"] == pytest.approx(of["temperature=2"][~reports].mean())
    assert shown["passes"].to_dict()["guidance=1"] == 3


def test_a_measure_stands_for_fidelity_where_it_is_asked_for():
    result = frontier("toy/mim", PROMPTS, n=2, methods=[], fidelity=BRIGHTNESS)
    assert result.analysis.fidelity is not None and result.analysis.fidelity.name == "brightness"
    assert "No figure of fidelity" not in str(result) and "20 % of it" in str(result).replace("\n", " ")
    shown: Any = result.settings.set_index("condition")["fidelity"]
    table: Any = result.per_prompt
    values = table.loc[table["condition"] == "guidance=1", "brightness"].to_numpy()
    assert shown["guidance=1"] == pytest.approx(values[~choosing(PROMPTS)].mean())


def test_a_measure_that_nobody_can_take_is_no_fidelity():
    """law_distance needs a judge, which toys have none of."""
    result = frontier("toy/mim", PROMPTS, n=2, methods=[], fidelity="law_distance")
    assert result.analysis.fidelity is None and "No figure of fidelity exists" in str(result)


def test_the_command_writes_what_the_call_does(run, tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    line = ["frontier", "toy/ar", "--prompts", "p.txt", "-n", 2, "--method", "subset", "--out", "command"]
    code, out, _ = run(*line)
    assert code == 0 and "Pareto set" in out and "guidance=1" in out
    result = frontier("toy/ar", PROMPTS, n=2, methods=["subset"], out=tmp_path / "library")
    assert files_in(tmp_path / "command") == files_in(tmp_path / "library")
    assert record_of(tmp_path / "command")["requests"] == record_of(tmp_path / "library")["requests"]
    result.save(tmp_path / "saved")
    written, saved = files_in(tmp_path / "command" / "tables" / "frontier"), files_in(tmp_path / "saved")
    assert {name: saved[name] for name in written} == written and "samples.parquet" in saved
    code, out, err = run("frontier", "toy/ar", "--method", "subsets", "--out", "other")
    assert (code, out, err.count("\n")) == (2, "", 1) and "did you mean subset?" in err
    assert not (tmp_path / "other").exists()


def test_the_run_is_resumed_to_the_same_tables_and_shares_its_cells(found, folder, tmp_path, counted):
    stopped = tmp_path / "stopped"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frontier("toy/mim", PROMPTS, n=4, methods=CHOSEN, out=stopped, on_batch=stop)
    assert record_of(stopped)["complete"] == []
    (result,) = resume(stopped)
    assert files_in(stopped / "tables" / "frontier") == files_in(folder / "tables" / "frontier")
    assert isinstance(result, Frontier)
    counted.clear()
    conditions = {BASELINE: (), "hot": divlens.Temperature(2.0), "hotter": divlens.Temperature(3.0)}
    divlens.probe("toy/mim", PROMPTS, n=4, conditions=conditions, out=stopped)
    assert sum(counted) == 4 * len(PROMPTS)  # those that the frontier did not have
    result.save(tmp_path / "saved")
    written = files_in(folder / "tables" / "frontier")
    assert {name: files_in(tmp_path / "saved")[name] for name in written} == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": PROMPTS[:3]}, r"^frontier expects at least 4 prompts, half of which .*, got 3$"),
        ({"n": 1}, r"^n expects a whole number of at least 2, got 1$"),
        ({"methods": ["temprature"]}, r"^no method is called 'temprature'; did you mean temperature\? known: guidance"),
        ({"methods": "temperature"}, r"^methods expects a list of names, got 'temperature'$"),
        ({"methods": ["detailed"], "prompts": ["a", "b", "c", "d"]}, r"^detailed expects prompts that the laboratory"),
        ({"fidelity": "brightnes"}, r"^no measure is called 'brightnes'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(options, message, monkeypatch):
    monkeypatch.setattr("divlens.run.steps", lambda *arguments: pytest.fail("something was drawn"))
    with pytest.raises(DivlensError, match=message) as caught:
        frontier(**{"model": "toy/mim", "prompts": PROMPTS, "n": 2, **options})
    assert "\n" not in str(caught.value)


def test_methods_that_the_prompts_do_not_suit_are_left_out():
    plan = planned(divlens.load("toy/ar"), ["a", "b", "c", "d"], 2, 0, None, None, (), "stlpips", 96)
    suited = [method.name for method in METHODS if method.suits is not all_read]
    assert list(by_method(plan.comparison.conditions)) == suited and plan.fidelity is None
    readable = planned(divlens.load("toy/ar"), PROMPTS, 2, 0, None, None, (), "stlpips", 96)  # the control
    assert "detailed" in by_method(readable.comparison.conditions)


# On the laboratory, by planted tables


def lab_result(found: Any, changes: dict[str, tuple[float, float, float]], prompts: int = 40) -> Any:
    """A result whose tables say what a judge would: openness, fidelity and distance, with these changes by setting."""
    random, texts = np.random.default_rng(3), [f"prompt {i}" for i in range(prompts)]
    level = random.uniform(0.5, 0.7, prompts)
    rows = [
        {"model": found.model, "condition": name, "prompt": text, DIVERSITY: 0.4, "kept_diversity": 0.4}
        | {OPENNESS: level[i] + more + 0.02 * random.standard_normal()}
        | {FIDELITY: 0.8 + right + 0.02 * random.standard_normal()}
        | {LAW_DISTANCE.name: 0.3 + far + 0.02 * random.standard_normal()}
        for name, (more, right, far) in changes.items()
        for i, text in enumerate(texts)
    ]
    conditions = {name: found.probed.conditions[name] for name in changes}
    probed = replace(
        found.probed, per_prompt=pd.DataFrame(rows), prompts=tuple(map(Prompt, texts)), conditions=conditions, n=64
    )
    return replace(found, probed=probed, analysis=analysed(probed))


LAB = {
    BASELINE: (0, 0, 0),
    "guidance=1": (0.1, -0.05, -0.01),
    "guidance=0.8": (0.2, -0.12, 0.05),
    "temperature=2": (-0.2, -0.3, 0.2),
    "temperature=1.1": (-0.1, 0, 0.1),
    "detailed=4": (0.3, 0.05, -0.1),
    "detailed=1": (0.1, 0.0, -0.02),
}


def test_on_the_laboratory_openness_is_held_against_respect_and_the_goal_is_said(found):
    result = lab_result(found, LAB)
    analysis = result.analysis
    assert (analysis.diversity.name, analysis.fidelity.name) == (OPENNESS, FIDELITY)
    words = result.table.set_index("method")["standing"].to_dict()
    assert words == {GUIDANCE: "", "temperature": "behind", "detailed": "ahead"}
    row = result.table.set_index("method").loc["detailed"]
    assert row["most_diverse"] == row["most_faithful"] == "detailed=4"
    assert row["fidelity_change"] == pytest.approx(0.05, abs=0.02) and row["fidelity_gained"] > 0
    assert list(analysis.pareto) == ["detailed=4"]
    text = " ".join(str(result).split())
    assert f"Goal reached by detailed=4 for {result.model}" in text
    assert result.goals["reaches"].tolist() == [True] and max(map(len, str(result).splitlines())) <= 80
    assert "openness: how evenly" in text


def test_a_goal_that_is_not_reached_says_what_is_in_the_way(found):
    lost = {**LAB, "detailed=4": (0.3, 0.05, 0.1), "detailed=1": (0.1, 0.05, 0.1)}
    text = " ".join(str(lab_result(found, lost)).split())
    assert "Goal not reached" in text and "no setting at no loss of fidelity is nearer" in text
    near = {**LAB, "detailed=4": (0.3, 0.05, -0.016), "detailed=1": (0.1, -0.1, -0.1)}
    result = lab_result(found, near)
    text = " ".join(str(result).split())
    assert "detailed=4 comes closest" in text and "not decided: nearer than guidance=1 (p = " in text
    assert result.goals["reaches"].tolist() == [False]


def test_without_a_true_law_there_is_no_goal(found, tmp_path):
    assert found.analysis.goal is None and found.goals.empty and "goal" not in str(found).lower()
    result = lab_result(found, LAB)
    assert {block.title for block in result.blocks} - {block.title for block in found.blocks} >= {"goal"}
