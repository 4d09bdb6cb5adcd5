"""The probe on the toys: its figures by hand, its pairing, and its table."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import divlens
from divlens.conditions import BASELINE, default_conditions
from divlens.diversity import load_network, lpips_diversity
from divlens.errors import DivlensError
from divlens.experiment.measure import IMAGES_PER_PASS, count_duplicates, noise_floor
from divlens.experiment.probe import probe
from divlens.fidelity import Judge, confusion_of, named_by, respects
from divlens.fidelity.openness import distance_from_law, openness
from divlens.fidelity.readings import ReadingCounts
from divlens.interventions import Argmax, DisableTop, Paraphrase, Subset, Temperature
from divlens.lab.attributes import Attribute
from divlens.lab.correction import corrected_entropies, distance_of_prompt
from divlens.models.toy import RULES, ToyModel
from divlens.types import Prompt
from oracles.colour_network import colour_network
from oracles.screen import printed, words_of

PROMPTS = ("red heart", "a cat", "blue sky", "three green apples", "a fox", "a red boat")
JUDGED_PROMPTS = (Prompt("a red boat", concept="red"), Prompt("green"), Prompt("a cat"))
N = 4


@dataclass(frozen=True)
class ColourJudge:
    """A toy's picture shows the colour of its first token, in the style of its last."""

    attributes: tuple[Attribute, ...] = (
        Attribute("concept", ("Red", "green", "blue")),
        Attribute("style", ("red", "green", "blue")),
    )

    def __call__(self, images):
        return torch.stack([images[:, :, 0, place].argmax(1) for place in (0, -1)], dim=1)


@dataclass(frozen=True)
class Reader(ColourJudge):
    """It reads "red on blue" in a prompt, too, and takes two of ten pictures for the next colour."""

    @property
    def confusions(self):
        table = 0.8 * np.eye(3) + 0.2 * np.roll(np.eye(3), 1, axis=1)
        return {"style": table}

    def named(self, prompt):
        words = [
            attribute.values.index(word)
            for attribute, word in zip(self.attributes, prompt.text.split(" on "), strict=False)
        ]
        return (words[0], words[1] if len(words) > 1 else None)


@pytest.fixture(scope="module", autouse=True)
def colours_alone():
    """LPIPS on the colours alone, for speed; what uses the real network says so."""
    network = colour_network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "divlens.experiment.comparison.load_network",
            lambda name: network if name == "stlpips" else load_network(name),
        )
        yield network


@pytest.fixture
def judged(monkeypatch):
    monkeypatch.setattr("divlens.experiment.comparison.judge_of", lambda model: ColourJudge())


@pytest.fixture(scope="module")
def three_families():
    return probe(["toy/ar", "toy/mim", "toy/diffusion"], PROMPTS, N)


def row_of(result, condition, model="toy/ar:0"):
    table = result.table
    return table[(table["model"] == model) & (table["condition"] == condition)].iloc[0]


# The figures


def test_the_table_has_a_row_per_model_and_condition(three_families):
    table = three_families.table
    expected = [(f"toy/{f}:0", c) for f in ("ar", "mim", "diffusion") for c in default_conditions()]
    assert list(zip(table["model"], table["condition"], strict=True)) == expected
    assert set(table["prompts"]) == {len(PROMPTS)}
    assert len(three_families.per_prompt) == len(expected) * len(PROMPTS)
    assert len(three_families.samples) == len(expected) * len(PROMPTS) * N
    assert (table["diversity_low"] <= table["diversity"]).all()
    assert (table["diversity"] <= table["diversity_high"]).all()


def test_the_default_conditions_are_those_of_the_paper():
    assert default_conditions() == {
        "baseline": (),
        "subset": (Subset(0.5),),
        "argmax": (Argmax(),),
        "paraphrase": (Paraphrase(lengths="similar"),),
        "enhanced": (Paraphrase(lengths="mixed"), DisableTop(0.05)),
    }


def test_figures_are_those_of_the_same_samples_drawn_by_hand(monkeypatch):
    monkeypatch.setattr("divlens.experiment.comparison.load_network", load_network)  # the real one
    result = probe(["toy/mim"], PROMPTS[:3], 3)
    for condition, interventions in default_conditions().items():
        drawn = divlens.sample(divlens.load("toy/mim"), PROMPTS[:3], 3, interventions=interventions)
        by_hand = divlens.lpips_diversity(drawn.images)
        rows = result.per_prompt.query("condition == @condition")
        assert list(rows["diversity"]) == pytest.approx(by_hand.tolist(), abs=1e-6)
        assert row_of(result, condition, "toy/mim:0")["diversity"] == pytest.approx(float(by_hand.mean()))
        kept = [sample for sample in result.samples if sample.condition == condition]
        assert [s.tokens for s in kept] == [tuple(grid) for grid in drawn.tokens.flatten(2).flatten(0, 1).tolist()]
        assert [s.wording for s in kept] == [wording for wordings in drawn.wordings for wording in wordings]


def test_a_deterministic_model_has_no_diversity_and_only_duplicates(three_families):
    row = row_of(three_families, "argmax")
    assert (row["diversity"], row["relative_change"], row["relative_change_high"]) == (0.0, -1.0, -1.0)
    assert row["duplicates"] == N * len(PROMPTS)
    assert row_of(three_families, "argmax", "toy/mim:0")["diversity"] > 0  # the path still varies: the control


def test_identical_conditions_change_exactly_nothing_and_others_something():
    conditions = {BASELINE: (), "same": (), "hot": (Temperature(3.0),)}
    result = probe(["toy/ar"], PROMPTS, N, conditions=conditions)
    names = [f"{name}{end}" for name in ("change", "relative_change") for end in ("", "_low", "_high")]
    for condition in (BASELINE, "same"):
        assert list(row_of(result, condition)[names]) == [0.0] * 6
    hot = row_of(result, "hot")
    assert hot["change"] != 0
    assert hot["change"] == pytest.approx(hot["diversity"] - row_of(result, BASELINE)["diversity"])
    assert hot["relative_change"] == pytest.approx(hot["change"] / row_of(result, BASELINE)["diversity"])


def test_the_seed_changes_the_samples_and_nothing_else_does():
    conditions = {BASELINE: ()}
    first, again, other = (probe(["toy/ar"], PROMPTS, N, seed, conditions=conditions) for seed in (1, 1, 2))
    assert first.table.equals(again.table)
    assert list(first.samples) == list(again.samples)
    assert [s.tokens for s in first.samples] != [s.tokens for s in other.samples]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_how_many_samples_are_drawn_together_changes_nothing(batch_size, judged):
    whole = probe("toy/diffusion", JUDGED_PROMPTS, N)
    sizes: list[int] = []
    parts = probe("toy/diffusion", JUDGED_PROMPTS, N, batch_size=batch_size, on_batch=sizes.append)
    assert max(sizes) == min(batch_size, len(JUDGED_PROMPTS) * N)
    assert list(parts.samples) == list(whole.samples)
    figures = ["diversity", "openness", "fidelity", "noise_floor", "duplicates"]
    assert parts.per_prompt[figures].to_numpy(float) == pytest.approx(
        whole.per_prompt[figures].to_numpy(float), abs=1e-6, nan_ok=True
    )
    assert list(parts.samples) != list(probe("toy/diffusion", JUDGED_PROMPTS, N, seed=1).samples)  # the control


@dataclass(frozen=True)
class WatchingJudge(ColourJudge):
    """Keeps the pictures that it is asked about, pass by pass."""

    passes: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, images):
        self.passes.append(images)
        return super().__call__(images)


@pytest.mark.parametrize("batch_size", [5, IMAGES_PER_PASS, 1000])
def test_a_prompt_is_looked_at_in_passes_that_depend_on_nothing_else(batch_size, monkeypatch):
    """So that its figures, down to the rounding, do not depend on what was drawn together or beside it."""
    n = IMAGES_PER_PASS + 6

    def looked_at(prompts, batch_size, seed=0):
        judge = WatchingJudge()
        monkeypatch.setattr("divlens.experiment.comparison.judge_of", lambda model: judge)
        found = probe("toy/diffusion", prompts, n, seed, conditions={BASELINE: ()}, batch_size=batch_size)
        return judge.passes, found.per_prompt

    passes, figures = looked_at(JUDGED_PROMPTS, batch_size)
    assert [len(images) for images in passes] == [IMAGES_PER_PASS, 6] * len(JUDGED_PROMPTS)
    for place, prompt in enumerate(JUDGED_PROMPTS):
        alone, row = looked_at([prompt], 96)
        assert all(torch.equal(one, other) for one, other in zip(alone, passes[2 * place :][:2], strict=True))
        assert figures.iloc[place].equals(row.iloc[0])
    other, row = looked_at(JUDGED_PROMPTS[:1], 96, seed=1)  # the control
    assert not torch.equal(other[0], passes[0]) and not figures.iloc[0].equals(row.iloc[0])


def test_duplicates_are_samples_that_have_a_twin():
    grids = torch.tensor([[1, 2], [3, 4], [1, 2], [1, 2], [5, 6], [3, 4]]).view(6, 1, 2)
    assert count_duplicates(grids) == 5
    assert count_duplicates(grids[[0, 1, 4]]) == 0


def test_the_noise_floor_is_the_diversity_of_one_picture_with_one_grey_level_of_noise(three_families):
    network = load_network()
    images = torch.rand(N, 3, 64, 64)
    floor = noise_floor(images, network)
    assert floor == noise_floor(images[:1], network)  # the first picture alone
    louder = (images[:1] + 0.1 * torch.randn(N, 3, 64, 64)).clamp(0, 1)
    assert 0 < floor < 0.01 * float(lpips_diversity(louder[None])[0])
    table = three_families.table
    assert (table["noise_floor"] > 0).all()
    assert (table.query("condition == 'baseline'")["diversity"] > 10 * table["noise_floor"].max()).all()


def test_progress_is_told_sample_by_sample():
    done: list[int] = []
    probe(["toy/ar"], PROMPTS[:2], 3, on_batch=done.append, batch_size=4)
    assert done == [4, 2] * 5


# Undefined


def test_one_sample_leaves_diversity_undefined_and_says_so():
    result = probe(["toy/ar"], PROMPTS[:2], 1)
    table = result.table
    assert table[["diversity", "diversity_low", "change", "relative_change"]].isna().to_numpy().all()
    assert set(table["duplicates"]) == {0}
    text = printed(result)
    assert "undefined (NaN) for fewer than 2 samples" in text
    assert "nan" not in text.replace("NaN", "")


def test_one_prompt_leaves_intervals_undefined_and_says_so(three_families):
    result = probe(["toy/ar"], PROMPTS[:1], N)
    table = result.table
    assert table[["diversity_low", "diversity_high", "change_low"]].isna().to_numpy().all()
    assert table["diversity"].notna().to_numpy().all()
    assert "No intervals: they need at least 2 prompts." in printed(result)
    assert "No intervals" not in printed(three_families)  # the control


# The judge


def test_without_a_judge_openness_and_fidelity_are_nan(three_families):
    table = three_families.table
    assert table[["openness", "fidelity", "fidelity_low"]].isna().to_numpy().all()
    assert {sample.judged for sample in three_families.samples} == {None}
    assert "no judge knows what is asked for" in words_of(three_families)


def test_openness_and_fidelity_are_the_judges(judged):
    prompts = [Prompt("a red boat", concept="red"), Prompt("Green"), Prompt("a cat")]
    result = probe(["toy/ar"], prompts, 8, conditions={BASELINE: ()})
    tokens = np.array([sample.tokens for sample in result.samples]).reshape(3, 8, 3)
    right, openness = (result.per_prompt[name].to_numpy(float) for name in ("fidelity", "openness"))
    for prompt in (0, 1):
        assert right[prompt] == (tokens[prompt, :, 0] == prompt).mean()
        counts = np.bincount(tokens[prompt, :, 2], minlength=3).astype(float)
        assert openness[prompt] == pytest.approx(corrected_entropies(counts[None], np.eye(3))[0] / math.log2(3))
    assert math.isnan(right[2]) and math.isnan(openness[2])
    assert result.table["fidelity"].iloc[0] == pytest.approx(right[:2].mean())
    assert result.table["fidelity_prompts"].iloc[0] == 2 == result.table["openness_prompts"].iloc[0]
    colours = [attribute.values for attribute in ColourJudge().attributes]
    assert [sample.judged for sample in result.samples[:8]] == [(colours[0][a], colours[1][b]) for a, _, b in tokens[0]]
    assert "fidelity: over the 2 of 3 prompts that the judge can read" in words_of(result)
    assert "openness: over 2 of 3 prompts." in words_of(result)


def test_the_distance_to_the_law_is_a_measure_by_name(judged):
    prompts = [Prompt("red"), Prompt("a cat")]
    found = probe(["toy/ar"], prompts, 8, conditions={BASELINE: ()}, measures=["law_distance"])
    tokens = np.array([sample.tokens for sample in found.samples]).reshape(2, 8, 3)
    counts = np.bincount(tokens[0, :, 2], minlength=3).astype(float)
    expected = ((tokens[0, :, 0] != 0).mean() + distance_of_prompt(np.full(3, 1 / 3), counts, np.eye(3))) / 2
    distances = found.per_prompt["law_distance"].to_numpy(float)
    assert distances[0] == pytest.approx(expected) and math.isnan(distances[1])
    assert "law distance: over 1 of 2 prompts, too few for an interval." in found.notes
    assert "law_distance" not in probe(["toy/ar"], prompts, 2, conditions={BASELINE: ()}).table  # the control
    with pytest.raises(DivlensError, match="no other column has, got 'fidelity'"):
        probe(["toy/ar"], prompts, 2, measures=["fidelity"])


def test_one_sample_has_fidelity_and_no_openness(judged):
    table = probe(["toy/ar"], JUDGED_PROMPTS[:2], 1, conditions={BASELINE: ()}).table
    assert list(table["openness"].isna()) == [True] and list(table["fidelity"].isna()) == [False]


def test_the_thing_that_is_shown_is_found_by_name_then_by_text_or_not_at_all():
    judge = ColourJudge()
    assert named_by(judge, Prompt("green", concept="red")) == (0, None)
    assert named_by(judge, Prompt("Blue")) == (2, None)
    assert named_by(judge, Prompt("red", concept="teal")) is None
    assert isinstance(judge, Judge) and not isinstance(ToyModel("ar", RULES["ar"]), Judge)


def test_a_judge_may_read_prompts_and_know_its_errors():
    judge, certain = Reader(), ColourJudge()
    assert named_by(judge, Prompt("Red on blue")) == (0, 2)
    assert confusion_of(judge, judge.attributes[1])[0].tolist() == [0.8, 0.2, 0]
    assert confusion_of(judge, judge.attributes[0]).tolist() == np.eye(3).tolist()
    assert confusion_of(certain, certain.attributes[1]).tolist() == np.eye(3).tolist()


def test_a_picture_respects_a_prompt_where_all_that_is_named_is_read():
    readings = torch.tensor([[0, 2], [0, 1], [1, 2]])
    assert respects(readings, (0, 2)).tolist() == [True, False, False]
    assert respects(readings, (0, None)).tolist() == [True, True, False]
    assert respects(readings, (None, None)).all()


def counted(judge, named, *parts):
    found = ReadingCounts.of(judge, named)
    for part in parts:
        found.add(torch.tensor(part))
    return found


def read_by(judge, named, *parts):
    return openness(counted(judge, named, *parts))


def test_openness_is_0_for_one_value_and_1_for_all_evenly_whatever_is_named():
    judge = ColourJudge()
    even, one = [[0, i % 3] for i in range(300)], [[0, 1]] * 300
    # Of a random sample of three values the entropy is too low by 1 / n nats. This one is perfectly even, and is taken
    # for as much more: by 1 / 300 / log(3) = 0.003.
    assert read_by(judge, (0, None), even) == pytest.approx(1, abs=4e-3)
    assert read_by(judge, (0, None), one) == pytest.approx(0, abs=4e-3)
    assert read_by(judge, (0, None), even[:120], even[120:]) == read_by(judge, (0, None), even)
    assert read_by(judge, (None, None), even) == pytest.approx(0.5, abs=4e-3)  # the mean over what is open
    assert math.isnan(read_by(judge, (0, 1), even)) and math.isnan(read_by(judge, (0, None), even[:1]))


def test_what_a_judge_misreads_is_no_openness():
    """Two of ten pictures of one style are read as another: 300 of them as the confusion says."""
    one = [[0, 1]] * 240 + [[0, 2]] * 60
    assert read_by(Reader(), (0, None), one) == pytest.approx(0, abs=0.02)
    assert read_by(ColourJudge(), (0, None), one) > 0.4  # the control


def test_the_distance_to_the_law_counts_what_is_named_and_what_is_open():
    judge = ColourJudge()
    even, one = [[0, i % 3] for i in range(300)], [[0, 1]] * 300
    # Perfectly even shares are nearer to the law than samples of it are, by 0.03 of 300, of which a mean takes half.
    assert distance_from_law(counted(judge, (0, None), even)) == pytest.approx(0, abs=0.02)
    assert distance_from_law(counted(judge, (0, None), one)) == pytest.approx(2 / 3 / 2)
    assert distance_from_law(counted(judge, (1, None), one)) == pytest.approx((1 + 2 / 3) / 2)
    assert distance_from_law(counted(judge, (0, 1), one)) == 0
    assert distance_from_law(counted(judge, (0, 1), one[:1])) == 0  # what is named is seen in a single picture
    assert math.isnan(distance_from_law(counted(judge, (0, None), one[:1])))
    assert math.isnan(distance_from_law(counted(judge, (0, 1))))


@dataclass(frozen=True)
class Counting(ToyModel):
    """A toy that remembers what it was asked to encode."""

    asked: list[str] = field(default_factory=list)

    def encode(self, wordings):
        self.asked.extend(wordings)
        return super().encode(wordings)


def test_a_probe_encodes_every_wording_once_whatever_the_number_of_conditions():
    model = Counting("mim", RULES["mim"])
    probe([model], PROMPTS, n=N)
    assert set(model.calibration_prompts()) <= set(model.asked)  # the calibration run shares them
    assert len(model.asked) == len(set(model.asked)) > len(PROMPTS)
    before = len(model.asked)
    probe([model], PROMPTS, n=N, conditions={BASELINE: ()})
    assert model.asked[before:] == list(PROMPTS)  # the control: another run encodes anew


# The printed table


def test_the_table_fits_80_columns_and_cuts_no_number(three_families):
    table = three_families.table.query("model == 'toy/ar:0'").copy()
    for name in ("openness", "fidelity", "relative_change"):
        table[[name, f"{name}_low", f"{name}_high"]] = [1.0, 1.0, 1.0]
    table["relative_change_low"] = -1.0
    table[["diversity", "diversity_low", "diversity_high"]] = [0.5, 0.25, 0.75]
    table["duplicates"] = 768
    text = printed(replace(three_families, table=table))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = "paraphrase .500 [.250, .750] +100 [-100, +100] 100 [100, 100] 100 [100, 100] 768"
    assert words in [" ".join(line.split()) for line in text.splitlines()]


# Bad input


@pytest.mark.parametrize(
    ("models", "prompts", "changes", "said"),
    [
        ([], PROMPTS, {}, "at least one model"),
        (["toy/ar"], [], {}, "at least one prompt"),
        (["toy/ar"], ["a fox", "a fox"], {}, "different prompts"),
        (["toy/ar", "toy/ar:0"], PROMPTS, {}, "different models, got toy/ar:0, toy/ar:0"),
        (["toy/none"], PROMPTS, {}, "known: .*toy/ar"),
        (["toy/ar"], PROMPTS, {"conditions": {"hot": ()}}, 'expect a "baseline", got hot'),
        (["toy/ar"], PROMPTS, {"conditions": {BASELINE: (), "none": (DisableTop(1.0),)}}, "leaves no code to draw"),
        (["toy/ar"], [*PROMPTS, "word " * 40], {}, "at most 32 words"),
        (["toy/ar"], [*PROMPTS, Prompt("a dog", ("word " * 40,))], {}, "at most 32 words"),
        (["toy/ar"], PROMPTS, {"n": 0}, "n expects a whole number of at least 1"),
        (["toy/ar"], PROMPTS, {"seed": -1}, "seed expects"),
        (["toy/ar"], PROMPTS, {"lpips": "squeeze"}, "networks stlpips, alex, vgg"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(models, prompts, changes, said):
    drawn = []
    with pytest.raises(DivlensError, match=said):
        probe(models, prompts, **{"n": 3, "on_batch": drawn.append, **changes})
    assert not drawn


def test_a_prompt_that_fits_is_taken_though_a_neutral_template_around_it_would_not_fit():
    longest = " ".join(["word"] * 32)  # what a toy reads; "a picture of ..." would be 35
    result = probe(["toy/ar"], [longest], 12)
    assert {sample.wording for sample in result.samples} == {longest}
    with pytest.raises(DivlensError, match="at most 32 words"):  # the control
        probe(["toy/ar"], [f"{longest} word"], 12)
    own = Prompt("a fox", paraphrases=(f"{longest} word",))  # a user's own wording is never left out in silence
    with pytest.raises(DivlensError, match="at most 32 words"):
        probe(["toy/ar"], [own], 12)
