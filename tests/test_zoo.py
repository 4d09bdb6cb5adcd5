"""The zoo: text, weights and their checksums, the adapter against a plain forward pass, training that resumes."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from divlens.errors import DivlensError
from divlens.fidelity.judge import load_judge
from divlens.interventions import Paraphrase, Settings
from divlens.loop import filled
from divlens.models.zoo import adapter
from divlens.models.zoo.assets import CHECKSUMS, packaged_folder, read_tensors, write_tensors
from divlens.models.zoo.lexicon import split_words
from divlens.models.zoo.networks import CODES, MASK, POSITIONS, WORDS, Backbone, Sizes, Tokenizer
from divlens.models.zoo.text import UNKNOWN, Vocabulary
from divlens.noise import CounterNoise
from divlens.paths.reverse_step import reverse_step
from divlens.sampler import sample
from divlens.types import View
from divlens.zoo import train_generators, wordings
from divlens.zoo.data import STYLES, Pictures, choose_held_out, concepts, slug
from divlens.zoo.evaluate import blends_that_count
from divlens.zoo.objectives import corrupted
from divlens.zoo.training import Recipe, fit

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


def test_every_concept_has_eight_distinct_unseen_wordings_that_name_it():
    generator = random.Random(0)
    for name in concepts():
        unseen = wordings.held_out_wordings(name, ["one", "two", "three"])
        assert len(set(unseen)) == 8
        assert all(set(split_words(name)) <= set(split_words(text)) for text in unseen)
        assert all(len(split_words(text)) <= WORDS for text in unseen)
        longest = max(wordings.TRAINING, key=len)
        assert len(split_words(wordings.fill(longest, name, ["black and white"], generator))) <= WORDS
    assert not set(wordings.TRAINING) & set(wordings.HELD_OUT)


def test_no_caption_names_a_style():
    names = {word for style in STYLES for word in split_words(style)} - {"emoji", "flat"}
    for template in (*wordings.TRAINING, *wordings.HELD_OUT):
        assert not names & set(split_words(template))


def test_held_out_pairs_take_one_style_per_concept_spread_over_the_styles():
    concept = np.repeat(np.arange(160), 6)
    style = np.tile(np.arange(6), 160)
    held_out = choose_held_out(concept, style)
    assert held_out.sum() == 84
    assert np.unique(concept[held_out], return_counts=True)[1].max() == 1
    assert set(np.bincount(style[held_out])) == {14}
    assert (held_out == choose_held_out(concept, style)).all()
    assert (held_out != choose_held_out(concept, style, seed=1)).any()  # the control: the seed matters


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
    assert images.shape == (2, 3, 64, 64) and images.dtype == torch.float32
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


def test_training_grids_leave_held_out_pictures_out():
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    lettered, heart, rocket = (concepts().index(name) for name in ("1st place medal", "red heart", "rocket"))
    concept = np.array([lettered, lettered, heart, heart, -1, rocket])
    held_out = np.array([False, True, False, False, False, False])
    pictures = Pictures(images, concept, np.arange(6), np.zeros(6, int), held_out)
    grids = train_generators.training_grids(pictures, Tokenizer().eval())
    # Each once and mirrored, but letters are not mirrored.
    assert sorted(grids.concept.tolist()) == sorted([lettered, *[heart] * 4, *[rocket] * 2])


def test_a_folder_without_its_text_files_is_one_clear_line(tmp_path: Path):
    write_tensors("ar", {"x": torch.zeros(1)}, tmp_path)
    with pytest.raises(DivlensError, match=r"expected vocabulary\.txt in"):
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


def test_the_judge_names_the_style_of_the_nearest_existing_picture():
    """Every real picture as the tokenizer draws it is its own nearest neighbour, mirrored or not."""
    judge = load_judge()
    heart = judge.concepts.index("red heart")
    pictures, styles = judge.references(heart)
    judged = judge(pictures)
    assert (judged.concept[:, 0] == heart).all()
    assert judged.style.tolist() == styles.tolist()
    assert set(styles.tolist()) == set(np.flatnonzero(judge.existing[heart]))
    rocket = judge.concepts.index("rocket")
    assert (judge(judge.references(rocket)[0]).concept[:, 0] != heart).all()  # the control


def test_a_picture_between_two_styles_has_no_style():
    judge = load_judge()
    rocket = judge.concepts.index("rocket")
    pictures, styles = judge.references(rocket)
    first = pictures[0]
    second = pictures[: len(pictures) // 2][styles[: len(pictures) // 2] != styles[0]][-1]
    mixed = torch.stack([first + share * (second - first) for share in (0.0, 0.1, 0.5)])
    style = judge.nearest_style(mixed, rocket).tolist()
    assert style == [int(styles[0]), int(styles[0]), -1]


def test_even_blends_of_two_styles_hardly_ever_count_for_one():
    shares = blends_that_count(load_judge())
    assert np.nanmean(shares) < 0.05
