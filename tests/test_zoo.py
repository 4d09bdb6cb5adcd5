"""The zoo: text, weights and their checksums, the adapter against a plain forward pass, training that resumes."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from divlens.errors import DivlensError
from divlens.experiment.measures import FIDELITY, LAW_DISTANCE, OPENNESS, Look, usual_measures
from divlens.fidelity import Named, confusion_of, named_by
from divlens.fidelity.judge import ZooJudge, load_judge
from divlens.interventions import Paraphrase
from divlens.lab.attributes import BACKGROUND, STYLE, Attribute
from divlens.lab.evaluation import drawn_from_law
from divlens.lab.reading import read
from divlens.loop import filled
from divlens.models.zoo import adapter
from divlens.models.zoo.assets import CHECKSUMS, packaged_folder, read_tensors, write_tensors
from divlens.models.zoo.lexicon import split_words
from divlens.models.zoo.networks import CODES, MASK, POSITIONS, WORDS, Backbone, Sizes
from divlens.models.zoo.prompts import default_prompts
from divlens.models.zoo.text import UNKNOWN, Vocabulary
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.noise import CounterNoise
from divlens.paths.reverse_step import reverse_step
from divlens.sampler import sample
from divlens.settings import Settings
from divlens.types import Prompt, View
from divlens.zoo.art import slug
from divlens.zoo.objectives import corrupted
from divlens.zoo.scene_measures import held_out_sample
from divlens.zoo.train_tokenizer import pictures_of
from divlens.zoo.training import Recipe, fit
from oracles.colour_network import colour_network

VOCABULARY = Vocabulary(("a", "cat", "heart", "of", "picture", "red"))


def tiny(causal: bool, seed: int = 0) -> Backbone:
    """A small random backbone whose every branch is alive (the real initialisation zeroes the residual outputs)."""
    torch.manual_seed(seed)
    model = Backbone(Sizes(len(VOCABULARY), causal=causal, width=32, layers=2, heads=4, rank=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def zoo_model(family: adapter.Family, steps: int = 8) -> adapter.ZooModel:
    torch.manual_seed(1)
    rules = {**{k: v[0] for k, v in adapter.DEFAULTS.items()}, "diffusion": adapter.diffusion_rule(steps)}
    tokenizer = Tokenizer().eval().requires_grad_(False)
    return adapter.ZooModel(
        family, tiny(family == "ar"), tokenizer, VOCABULARY, rules[family], 2.0, None, name=f"tiny/{family}"
    )


def test_words_are_split_and_unknown_ones_are_marked():
    assert split_words("A  Crème-brûlée, 2nd!") == ["a", "creme", "brulee", "2nd"]
    ids = VOCABULARY.ids(["red zebra heart"])
    assert ids.shape == (1, WORDS)
    assert ids[0, :3].tolist() == [VOCABULARY.words.index("red") + 2, UNKNOWN, VOCABULARY.words.index("heart") + 2]
    assert (ids[0, 3:] == 0).all()


def test_a_wording_that_is_too_long_or_empty_is_an_error():
    assert VOCABULARY.ids(["cat " * WORDS]).all()  # the longest one passes
    with pytest.raises(DivlensError, match=f"up to {WORDS} words, got {WORDS + 1}"):
        VOCABULARY.ids(["cat " * (WORDS + 1)])
    with pytest.raises(DivlensError, match="at least one word"):
        VOCABULARY.ids(["?!"])


def test_unicode_names_become_icon_names():
    assert slug("Japanese “secret” button") == "japanese-secret-button"
    assert slug("rescue worker’s helmet") == "rescue-workers-helmet"


@pytest.mark.parametrize("guided", [False, True])
def test_cached_raster_logits_equal_one_full_pass(guided: bool):
    model = zoo_model("ar")
    conditions = model.encode(["red heart", "a picture of a cat"])
    tokens = torch.randint(CODES, (2, POSITIONS))
    full = model.backbone(tokens[:, :-1], conditions)
    predictor = model.predictor(conditions, guided)
    steps = [predictor(View(s, tokens, s, 1, s)) for s in range(POSITIONS)]
    torch.testing.assert_close(torch.cat([c for c, _ in steps], 1), full, atol=1e-4, rtol=1e-4)
    if guided:
        nothing = model.backbone.condition(torch.zeros(2, WORDS, dtype=torch.long))
        plain = model.backbone(tokens[:, :-1], nothing)
        torch.testing.assert_close(torch.cat([u for _, u in steps if u is not None], 1), plain, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain, full, atol=1e-2)  # the control: the text matters
    else:
        assert all(u is None for _, u in steps)
    shuffled = tokens.roll(1, dims=1)
    assert not torch.allclose(model.backbone(shuffled[:, :-1], conditions), full, atol=1e-2)  # so do the tokens


def test_a_causal_model_does_not_see_the_future_and_a_grid_model_does():
    tokens = torch.randint(CODES, (1, POSITIONS))
    changed = tokens.clone()
    changed[0, 40] = (changed[0, 40] + 1) % CODES
    causal = zoo_model("ar")
    text = causal.encode(["red heart"])
    before, after = (causal.backbone(t[:, :-1], text) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :41], after[:, :41])
    assert not torch.allclose(before[:, 41:], after[:, 41:])
    grid = zoo_model("mim")
    before, after = (grid.backbone(t, grid.encode(["red heart"])) for t in (tokens, changed))
    assert not torch.allclose(before[:, :40], after[:, :40])


@pytest.mark.parametrize("family", ["ar", "mim", "diffusion"])
def test_every_family_fills_the_grid(family: adapter.Family):
    model = zoo_model(family)
    conditions = model.encode(["red heart", "a cat"])
    start = torch.full((2, POSITIONS), MASK)
    settings = Settings(rule=model.rule, guidance=model.guidance)
    noise = CounterNoise.of(0, ["red heart", "a cat"], [0, 0], [0, 0])
    tokens = filled(model.predictor(conditions, True), settings, noise, start, MASK)
    assert tokens.min() >= 0 and tokens.max() < CODES
    images = model.decode(tokens.view(2, 8, 8))
    assert images.shape == (2, 3, 48, 48) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


def test_one_reverse_step_is_a_distribution_together_with_staying_masked():
    rule = adapter.diffusion_rule(6)
    origin = torch.rand(1, 1, CODES, dtype=torch.float64)
    origin /= origin.sum()
    for time in range(2, 7):  # at time 6 everything is masked
        masked = reverse_step(rule, time, torch.tensor([[MASK]]), MASK, origin)
        assert float(masked.sum()) == pytest.approx(1)
        assert float(masked[..., MASK]) == pytest.approx(rule.masked[time - 1] / rule.masked[time])
        if time < 6:
            unmasked = reverse_step(rule, time, torch.tensor([[3]]), MASK, origin)
            assert float(unmasked.sum()) == pytest.approx(1) and float(unmasked[..., MASK]) == 0


def test_weights_survive_and_damage_is_one_clear_line(tmp_path: Path):
    write_tensors("part", {"x": torch.linspace(0, 1, 5), "count": torch.arange(3)}, tmp_path)
    read = read_tensors("part", tmp_path)
    assert read["x"].dtype == torch.float32 and read["count"].dtype == torch.int64
    torch.testing.assert_close(read["x"], torch.linspace(0, 1, 5).half().float())
    content = bytearray((tmp_path / "part.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "part.safetensors").write_bytes(bytes(content))
    with pytest.raises(DivlensError, match="damaged: expected sha256") as error:
        read_tensors("part", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DivlensError, match="weights are missing"):
        read_tensors("other", tmp_path)


def test_packaged_files_are_the_ones_their_checksums_speak_of():
    sums = json.loads((packaged_folder() / CHECKSUMS).read_text())
    stored = {path.name for path in packaged_folder().glob("*.safetensors")}
    assert stored == set(sums)
    for name in stored:
        read_tensors(name.removesuffix(".safetensors"))
    assert sum(path.stat().st_size for path in packaged_folder().iterdir()) < 40e6


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def line_loss(model: Line, stop_at: int | None = None):
    def loss(step: int):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 3)
        return ((x @ model.weight - x.sum(1)) ** 2).mean(), {}

    return loss


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path):
    recipe = Recipe(steps=30, rate=0.05, warmup=2)
    place = torch.device("cpu")
    whole = Line()
    expected = fit("whole", whole, line_loss(whole), recipe, tmp_path, device=place)
    killed = Line()
    with pytest.raises(KeyboardInterrupt):
        fit("killed", killed, line_loss(killed, stop_at=17), recipe, tmp_path, device=place, every_seconds=0)
    resumed = Line()
    seen: list[int] = []

    def counted(step: int):
        seen.append(step)
        return line_loss(resumed)(step)

    found = fit("killed", resumed, counted, recipe, tmp_path, device=place)
    assert seen == list(range(17, 30))  # it went on, it did not start again
    torch.testing.assert_close(found["weight"], expected["weight"], rtol=0, atol=0)
    other = Line()
    control = fit(
        "other", other, line_loss(other), Recipe(steps=30, rate=0.05, warmup=2, seed=1), tmp_path, device=place
    )
    assert not torch.equal(control["weight"], expected["weight"])
    with pytest.raises(DivlensError, match="another recipe"):
        fit("whole", Line(), line_loss(Line()), Recipe(steps=31), tmp_path, device=place)


def test_corruption_follows_the_schedule():
    """Shares of masked and of unchanged tokens; the tolerance is five binomial sigmas (false alarm below 1e-6)."""
    torch.manual_seed(0)
    tokens = torch.randint(CODES, (2000, POSITIONS))
    time = torch.full((2000, 1), 0.4)
    kept, masked = adapter.diffusion_schedule(time)
    noisy = corrupted(tokens, kept, masked, CODES)
    for observed, chance in (
        ((noisy == MASK).double().mean(), 0.4),
        ((noisy == tokens).double().mean(), float(kept[0]) + (1 - 0.4 - float(kept[0])) / CODES),
    ):
        assert abs(float(observed) - chance) < 5 * math.sqrt(chance * (1 - chance) / tokens.numel())
    rule = adapter.diffusion_rule(10)
    assert rule.kept[4] == pytest.approx(float(kept[0])) and rule.masked[4] == pytest.approx(0.4)


def test_a_folder_that_is_not_the_zoos_is_one_clear_line(tmp_path: Path):
    write_tensors("ar", {"x": torch.zeros(1)}, tmp_path)
    with pytest.raises(DivlensError, match=r"missing text\.places"):
        adapter.load_ar(str(tmp_path))
    (tmp_path / CHECKSUMS).write_text("{not json")
    with pytest.raises(DivlensError, match=r"expected checksums\.json in"):
        adapter.load_ar(str(tmp_path))


def test_neutral_wordings_that_do_not_fit_are_left_out():
    model, long = zoo_model("mim"), "cat " * 20
    generation = sample(model, [long.strip()], n=8, interventions=[Paraphrase(lengths="mixed")])
    used = set(generation.wordings[0])
    assert len(used) > 1 and all(len(split_words(wording)) <= WORDS for wording in used)
    short = sample(model, ["cat"], n=8, interventions=[Paraphrase(lengths="mixed")])
    assert len(set(short.wordings[0])) > len(used)  # the control: for a short prompt they all fit
    with pytest.raises(DivlensError, match="got 25"):
        sample(model, ["cat " * 25], n=2, interventions=[Paraphrase()])


@torch.inference_mode()
def test_the_judge_reads_held_out_scenes_as_the_tokenizer_draws_them():
    """On 3,000 of them it reads every attribute right in 99.9% or more; of 64, at most three wrong each are expected
    once in 10^5."""
    judge, scenes = load_judge(), held_out_sample(64)
    tokenizer = adapter.tokenizer_from(None, "cpu")
    read = judge(tokenizer.decode(tokenizer.encode(pictures_of(scenes)))).numpy()
    assert [attribute.name for attribute in judge.attributes] == ["concept", "style", "background", "size", "place"]
    assert ((read != scenes[:, :5]).sum(0) <= 2).all()
    assert ((read != scenes[::-1, :5]).sum(0) > 20).all()  # the control
    for attribute in judge.attributes:
        table = confusion_of(judge, attribute)
        assert table.shape == (len(attribute),) * 2 and (table.diagonal() > 0.9).all() and not (table == 1).all()


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (Prompt("a small fox on a blue background"), {"concept": "fox", "background": "blue", "size": "small"}),
        (Prompt("🦊, top left"), {"concept": "fox", "place": "top left"}),
        (Prompt("fox, flat style", concept="fox"), {"concept": "fox", "style": "flat"}),
        (Prompt("fox, flat style", concept="cat"), {"concept": "cat"}),  # the concept counts for more than the text
        (Prompt("my prompt", concept="🦊"), {"concept": "fox"}),
        (Prompt("a shiny fox on a blue background"), {"concept": "fox"}),  # no caption says "shiny"
    ],
)
def test_what_a_prompt_names_to_the_judge(prompt: Prompt, named: dict[str, str]):
    judge = load_judge()
    found = named_by(judge, prompt)
    assert found is not None
    both = zip(judge.attributes, found, strict=True)
    assert {of.name: of.values[value] for of, value in both if value is not None} == named


@pytest.mark.parametrize("text", ["unicorn", "🦄", "🦊🦄", "fire truck", "a fox and a cat", "blue background"])
def test_of_other_prompts_the_judge_knows_nothing(text: str):
    assert named_by(load_judge(), Prompt(text)) is None
    assert isinstance(load_judge(), ZooJudge)


@dataclass(frozen=True)
class Faultless:
    """The judge, were it to read the values of these scenes in any pictures."""

    scenes: np.ndarray

    @property
    def attributes(self) -> Sequence[Attribute]:
        return load_judge().attributes

    def named(self, prompt: Prompt) -> Named | None:
        return load_judge().named(prompt)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.scenes[:, : len(self.attributes)])


def figures_of(scenes: np.ndarray, prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """Openness, fidelity and the distance to the law, as a probe measures them, of scenes (prompts, n, 6) that are read
    without fault."""
    measures = [measure for measure in usual_measures(load_judge()) if measure.name in (OPENNESS, FIDELITY)]
    measures.append(LAW_DISTANCE)
    found: dict[str, list[float]] = {measure.name: [] for measure in measures}
    nothing = torch.zeros(scenes.shape[1], 3, 8, 8)
    for prompt, rows in zip(prompts, scenes, strict=True):
        look = Look(prompt, nothing, "the law", colour_network(), Faultless(rows))
        for measure in measures:
            gauge = measure.gauge(prompt)
            gauge.add(look)
            found[measure.name].append(gauge.value())
    return {name: np.array(values) for name, values in found.items()}


def test_the_law_itself_has_all_openness_and_fidelity_and_who_draws_one_style_or_ignores_a_word_has_not():
    """Of 8 pictures of the law the openness of a prompt has a standard deviation of 0.08, and a bias of 0.01: 0.035 is
    five standard errors of 240 prompts and the bias."""
    prompts = default_prompts() * 10
    meanings = [read(prompt.text) for prompt in prompts]
    scenes = drawn_from_law(meanings, 8, np.random.default_rng(0))
    whole = figures_of(scenes, prompts)
    assert (whole["fidelity"] == 1).all() and whole["openness"].mean() == pytest.approx(1, abs=0.035)
    one_style = scenes.copy()
    one_style[:, :, STYLE] = one_style[:, :1, STYLE]
    narrow = figures_of(one_style, prompts)
    bare = np.array([len(meaning.named) == 1 for meaning in meanings])
    assert (narrow["fidelity"] == 1).all() and narrow["openness"][bare].mean() == pytest.approx(0.75, abs=0.035)
    deaf = scenes.copy()
    deaf[:, :, BACKGROUND] = np.random.default_rng(1).integers(8, size=deaf.shape[:2])
    misled = figures_of(deaf, prompts)
    named = np.array([BACKGROUND in meaning.named for meaning in meanings])
    assert misled["fidelity"][named].mean() < 0.2 and (misled["fidelity"][~named] == 1).all()
    # Of the law the distance is 0 on average, with a standard deviation of 0.05 of 8 pictures: 0.02 is six standard
    # errors. A style of six that is always the same adds 5/6, one of five attributes; a background of eight that is
    # not the one asked for 7/8, without bias. Both means are as the law's but for that.
    assert whole["law_distance"].mean() == pytest.approx(0, abs=0.02)
    assert (narrow["law_distance"] - whole["law_distance"])[bare].mean() == pytest.approx(5 / 6 / 5, abs=0.03)
    assert (misled["law_distance"] - whole["law_distance"])[named].mean() == pytest.approx(7 / 8 / 5, abs=0.02)
