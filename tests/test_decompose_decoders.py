"""The noise of a decoder as a factor of `decompose`: against pairs, against known parts, and where there is none."""

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.decompose import decompose
from divlens.errors import DivlensError
from divlens.experiment.design import Levels
from divlens.interventions import Argmax
from divlens.models import load, registry
from divlens.models.loading import Options
from divlens.models.protocol import NoisyDecoding
from divlens.models.toy import RULES
from divlens.noise import stream_key
from divlens.planning import Reading
from divlens.resume import resume
from divlens.run import Row, fill
from divlens.types import Prompt
from oracles.crossed_designs import MIXED, PROMPTS, SOURCES, colours, components_by_pairs, mean_distance
from oracles.embedded import picture
from oracles.noisy_decoder import EFFECTS, NoisyToy, Signs, grey
from oracles.run_folders import samples_of
from oracles.screen import printed

ALL = ("wording", "path", "execution", "decoder")
HELD = "decoder: held at one noise of the decoder, so its share is 0 by design."
NO_NOISE = "decoder: the decoder draws no noise, so its share is exactly 0."


def noisy(family: Any = "mim") -> NoisyToy:
    return NoisyToy(family, RULES[family])


def hues(images):
    """The colour of each position of a toy, however dim."""
    return images[:, :, 16, 16::32].flatten(1).double()


def by_hand(model, prompt, wordings, levels: Levels, seed, features):
    """Every picture of a prompt's design, (wordings, paths, executions, decoders, d), one noise after the other."""
    reading = Reading(model, 7)
    noise = list(itertools.product(range(levels.paths), range(levels.executions)))
    rows = [Row(prompt, wording, path, execution) for wording in wordings for path, execution in noise]
    tokens = torch.cat([one.tokens for one in fill(reading.run(rows, reading.settings(()), seed))])
    keys = [stream_key(seed, f"{prompt.text} decoder {level}") for level in range(levels.decoders)]
    with torch.inference_mode():
        found = [features(model.decode_under(tokens, [key] * len(tokens))) for key in keys]
    return torch.stack(found, dim=1).double().view(*levels, -1)


# What it is


def test_components_are_those_of_the_pairwise_distances():
    model, levels = noisy(), Levels(2, 2, 3, 2)
    result = decompose(model, PROMPTS, 2, 2, 3, seed=5, decoders=2, features=hues)
    assert result.levels == levels and len(result.sources) == 15 and result.sources[:4] == ALL
    swapped = []
    for i, prompt in enumerate(result.prompts):
        pictures = by_hand(model, prompt, result.wordings[i], levels, 5, hues)
        assert result.components[i] == pytest.approx(components_by_pairs(pictures), abs=1e-10)
        assert result.pairwise[i] == pytest.approx(mean_distance(pictures), abs=1e-10)
        swapped.append(components_by_pairs(pictures.transpose(2, 3)))
    assert result.components != pytest.approx(np.array(swapped), abs=1e-3)  # the control: decoder taken for execution
    assert result.totals == pytest.approx(result.components.sum(1), abs=1e-10)
    assert result.table["share"].to_numpy().sum() == pytest.approx(1, abs=1e-10)
    assert (result.column("decoder") > 1e-3).all() and result.remarks == ()


def test_estimates_are_unbiased_where_the_parts_are_known():
    """400 prompts of the same law. Fifteen sources: beyond 4 standard errors once in 1000 seeds; the seed is fixed.

    A sign that is drawn has a variance of 1, so that a component is twice the effect squared. Two different wordings
    always have other signs, which is twice as far apart as two drawn ones: what holds the wording is double. Of the
    decoder that interacts with it, D({}) = 2 (b^2 + e^2) and D({decoder}) = 4 e^2 without the wording's own, and the
    component is the difference.
    """
    prompts = [Prompt(f"prompt number {i}", (f"number {i}",)) for i in range(400)]
    result = decompose(Signs(), prompts, 2, 1, 3, seed=2, decoders=3, features=grey)
    truth = dict.fromkeys(result.sources, 0.0) | {source: 2 * effect**2 for source, effect in EFFECTS.items()}
    truth |= {source: 2 * value for source, value in truth.items() if "wording" in source}
    truth["decoder"] -= 2 * EFFECTS["wording:decoder"] ** 2
    found = result.components
    error = found.std(0, ddof=1) / np.sqrt(len(prompts))

    def z(expected):
        away = np.abs(found.mean(0) - expected)
        return np.where(away > 1e-7, away / np.maximum(error, 1e-9), 0.0)

    assert z(np.array(list(truth.values()))).max() < 4
    assert truth["decoder"] > 0.009 and (error > 1e-6).sum() > 3
    as_if_drawn = truth | {"wording": truth["wording"] / 2}
    assert z(np.array(list(as_if_drawn.values()))).max() > 4  # the control
    assert z(np.array(list((truth | {"execution:decoder": 0.0}).values()))).max() > 4


def test_the_decoder_alone_may_vary():
    result = decompose(Signs(), ["a cat", "snow", "sea"], 1, 1, 1, decoders=6, features=grey)
    assert (result.column("decoder") > 0).all()
    assert not result.components[:, np.array(result.sources) != "decoder"].any()
    greedy = decompose(Signs(), ["a cat", "snow"], 1, 1, 4, decoders=4, features=grey, interventions=[Argmax()])
    assert greedy.levels == Levels(1, 1, 1, 4) and (greedy.column("decoder") > 0).all()


@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
@pytest.mark.parametrize("length_control", [False, True])
def test_batches_change_nothing(batch_size, length_control):
    asked: dict[str, Any] = dict(wordings=2, paths=2, executions=2, decoders=3, length_control=length_control)
    plain, seen = decompose(noisy(), MIXED, **asked, features=hues), []
    other = decompose(noisy(), MIXED, **asked, features=hues, batch_size=batch_size, on_batch=seen.append)
    assert other.components == pytest.approx(plain.components, abs=1e-12)
    again = decompose(noisy(), MIXED, **asked, features=hues, seed=1)
    assert again.components != pytest.approx(plain.components, abs=1e-3)  # the control
    assert plain.components.sum(1) == pytest.approx(plain.totals, abs=1e-10)
    if length_control:
        whole = decompose(noisy(), MIXED, **{**asked, "length_control": False}, features=hues)
        assert plain.column("wording") == pytest.approx(whole.column("wording"), abs=1e-10)
    else:
        assert sum(seen) == 2 * 2 * 2 * 2 * 3


def test_every_decoded_picture_counts_as_progress(capfd):
    decompose(noisy(), PROMPTS, 1, 2, 2, decoders=3, features=hues, progress=True)
    assert "36 of 36" in capfd.readouterr().err
    decompose(noisy(), PROMPTS, 1, 2, 2, features=hues, progress=True)
    assert "12 of 12" in capfd.readouterr().err  # the control


def test_tokens_are_drawn_once_however_often_they_are_decoded(monkeypatch, tmp_path):
    passes, predictor = [], NoisyToy.predictor

    def counted(model, conditions, guided):
        passes.append(len(conditions))
        return predictor(model, conditions, guided)

    monkeypatch.setattr(NoisyToy, "predictor", counted)
    asked: dict[str, Any] = dict(features=hues, batch_size=4)
    counts = {}
    for decoders in (1, 3):
        passes.clear()
        out = tmp_path / f"{decoders}"
        decompose(noisy(), PROMPTS, 1, 2, 2, decoders=decoders, out=out, **asked)
        counts[decoders] = len(passes), len(samples_of(out))
    assert counts[1] == counts[3] == (3, 3 * 2 * 2)
    passes.clear()
    decompose(noisy(), PROMPTS, 1, 2, 3, **asked)
    assert len(passes) == 5  # the control


# Held, or absent


def test_with_one_level_the_noise_is_held():
    model = noisy()
    result = decompose(model, PROMPTS, 2, 2, 2, features=hues)
    assert list(result.sources) == SOURCES and result.remarks == (HELD,)
    for i, prompt in enumerate(result.prompts):
        pictures = by_hand(model, prompt, result.wordings[i], Levels(2, 2, 2), 0, hues)
        assert result.components[i] == pytest.approx(components_by_pairs(pictures[..., 0, :]), abs=1e-10)
    assert "decoder" not in result.headline and "decoder" not in " ".join(result.notes)
    freed = decompose(model, PROMPTS, 2, 2, 2, decoders=2, features=hues)  # the control
    assert freed.remarks == () and "2 executions x 2 decoders" in freed.headline
    assert "differ in wording, path, execution and decoder noise" in " ".join(freed.notes)


def test_a_decoder_without_noise_is_asked_once_and_has_no_share():
    asked: dict[str, Any] = dict(prompts=PROMPTS, wordings=2, paths=2, executions=2, features=colours)
    plain, seen = decompose("toy/mim", **asked), []
    result = decompose("toy/mim", **asked, decoders=4, on_batch=seen.append)
    assert result.levels == plain.levels == Levels(2, 2, 2, 1) and sum(seen) == 3 * 8
    held = np.array(["decoder" in source for source in result.sources])
    assert held.sum() == 8 and (result.components[:, held] == 0).all()
    assert np.array_equal(result.components[:, ~held], plain.components)
    assert result.remarks == (NO_NOISE,) and plain.remarks == ()
    assert "decoder" in printed(result) and "decoder" not in printed(plain)
    with pytest.raises(DivlensError, match="finds nothing to vary: toy/ar:0 makes no draw of the factors asked for"):
        decompose("toy/ar", PROMPTS, 1, 4, 1, decoders=4, features=colours)


def test_pictures_that_are_none_are_refused():
    class Flat(Signs):
        def decode_under(self, tokens, keys):
            return super().decode_under(tokens, keys)[:, 0]

    with pytest.raises(DivlensError, match=r"pictures of studio/signs .* got"):
        decompose(Flat(), ["a cat"], 1, 1, 2, decoders=2, features=grey)


def test_only_a_model_that_can_decode_under_a_key_has_noise_of_a_decoder():
    assert isinstance(noisy(), NoisyDecoding) and isinstance(Signs(), NoisyDecoding)
    assert not isinstance(load("toy/mim"), NoisyDecoding)


# In folders


@pytest.fixture
def signs(monkeypatch):
    """`studio/signs`, which a folder can load again."""
    monkeypatch.setattr(registry, "TABLE", dict(registry.TABLE))
    registry.register("studio/signs", lambda checkpoint, options: Signs())
    return "studio/signs"


@pytest.fixture
def run_of_signs(signs, tmp_path, colours_for_lpips):
    divlens.decompose(signs, ["a cat", "snow"], 2, 4, 3, decoders=3, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_with_other_decoders_is_another_run(signs, run_of_signs):
    before = json.loads((run_of_signs / "run.json").read_text())["requests"]["decompose"]
    levels = {"wordings": 2, "paths": 4, "executions": 3}
    assert before["levels"] == {"studio/signs": levels | {"decoders": 3}}
    for decoders in (1, 2):
        with pytest.raises(DivlensError, match="levels 'studio/signs' no longer asked for, or otherwise"):
            divlens.decompose(signs, ["a cat", "snow"], 2, 4, 3, decoders=decoders, out=run_of_signs)
    divlens.decompose(signs, ["a cat", "snow"], 2, 4, 3, decoders=3, out=run_of_signs)  # the control
    plain = divlens.decompose(signs, ["a cat", "snow"], 2, 4, 3)
    assert plain.request["levels"] == {"studio/signs": levels}  # as in runs from before there were decoders


def test_a_run_that_was_stopped_goes_on_with_its_decoders(signs, run_of_signs, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(count):
        raise StoppedError

    other, arguments = tmp_path / "other", (["a cat", "snow"], 2, 4, 3)
    with pytest.raises(StoppedError):
        divlens.decompose(signs, *arguments, decoders=3, out=other, on_batch=stop)
    (resumed,) = resume(other)
    assert list(resumed.levels) == [2, 1, 3, 3]  # type: ignore[attr-defined]
    tables = "tables/decompose/per_prompt.csv"
    assert (other / tables).read_bytes() == (run_of_signs / tables).read_bytes()
    divlens.decompose(signs, *arguments, decoders=3, seed=1, out=tmp_path / "third")
    assert (tmp_path / "third" / tables).read_bytes() != (other / tables).read_bytes()  # it can fail


@pytest.mark.parametrize("beside_a_probe", [False, True])
def test_a_report_has_the_shares_and_shows_the_decoders_noise(signs, run_of_signs, beside_a_probe):
    """A probe has samples with paths of their own, though the sampler makes no path draw."""
    from divlens.pages.report import contents

    if beside_a_probe:
        divlens.probe(signs, ["snow", "a cat"], 3, conditions={"baseline": []}, out=run_of_signs)
    page = contents(divlens.open_run(run_of_signs), 100, None)
    (figure,) = [one for one in page.figures if one.key == "sources"]
    assert {"decoder", "execution:decoder"} < {row["source"] for row in figure.rows}
    (one,) = page.data["crossed"]
    assert one["rows"] == "decoder" and [len(row) for row in one["cells"]] == [3, 3, 3]
    pictures = [tuple(page.data["images"][image] for image in row) for row in one["cells"]]
    assert len(set(pictures)) > 1


def test_a_report_without_decoders_shows_the_noise_that_was_held(signs, tmp_path, colours_for_lpips):
    from divlens.pages.report import contents

    divlens.decompose(signs, ["a cat", "snow"], 1, 1, 3, out=tmp_path / "run")
    run: Any = divlens.open_run(tmp_path / "run")
    page = contents(run, 100, None)
    (one,) = page.data["crossed"]
    assert one["rows"] == "path" and [len(row) for row in one["cells"]] == [3]
    shown = [page.data["images"][image] for image in one["cells"][0]]
    model, rows = Signs(), run.samples[run.samples["prompt"] == one["prompt"]].sort_values("execution")
    tokens = torch.from_numpy(np.stack(rows["tokens"].to_list()).astype(np.int64)).view(-1, *model.grid)
    for level in (0, 1):
        keys = [stream_key(0, f"{one['prompt']} decoder {level}")] * 3
        expected = (model.decode_under(tokens, keys) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        same = all(np.array_equal(picture(held), other) for held, other in zip(shown, expected, strict=True))
        assert same == (level == 0)  # other noise is the control


def test_results_with_and_without_decoders_share_a_folder(signs, tmp_path, colours_for_lpips):
    """Who was not asked for a decoder's noise has no figure of it, and a verdict is told the share that is known."""
    from divlens.verdict.exact import share_of_diversity

    both = [
        divlens.decompose("toy/mim", ["a cat", "snow"], 2, 2, 2),
        divlens.decompose(signs, ["a cat", "snow"], 2, 1, 4, decoders=4),
    ]
    divlens.save(both, tmp_path / "out")
    import pandas as pd

    rows: Any = pd.read_csv(tmp_path / "out" / "per_prompt.csv")
    toys, others = (rows[rows["model"] == name] for name in ("toy/mim:0", "studio/signs"))
    assert toys["decoder"].isna().all() and others["decoder"].notna().all()
    plain = {name: both[0].column(name).sum() for name in both[0].sources}
    held = sum(value for name, value in plain.items() if "execution" in name)
    whole = sum(value for name, value in plain.items() if "execution" in name or "path" in name)
    assert share_of_diversity(toys).value == pytest.approx(held / whole)
    found = {name: both[1].column(name).sum() for name in both[1].sources}
    lost = sum(value for name, value in found.items() if "execution" in name)
    everything = sum(value for name, value in found.items() if name != "wording")
    assert share_of_diversity(others).value == pytest.approx(lost / everything)
    assert found["decoder"] > 0.05 * everything  # the control: it counts


def test_the_command_line_asks_for_decoders(run, signs, colours_for_lpips):
    sizes = ("--limit", 2, "--wordings", 2, "--executions", 2)
    code, out, err = run("decompose", "toy/ar", signs, *sizes, "--decoders", 2)
    assert (code, err) == (0, "")
    assert NO_NOISE in " ".join(out.split()) and "2 executions x 2 decoders" in " ".join(out.split())
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    code, out, err = run("decompose", "toy/ar", *sizes)
    assert (code, err) == (0, "") and "decoder" not in out


# GLM-Image


@pytest.mark.usefixtures("one_thread")
def test_the_decoder_of_glm_image_is_a_source():
    from divlens.models import glm_image
    from oracles import tiny_glm_image

    whole = glm_image.from_pipeline(tiny_glm_image.glm_image(), Options())
    model = replace(whole, size=(2, 2), preview=(1, 2), decoder=replace(whole.decoder, steps=2))

    def small(images):
        return images[:, :, ::8, ::8].flatten(1).double()

    levels = Levels(2, 1, 2, 3)
    result = decompose(model, ["red heart"], 2, 4, 2, seed=3, decoders=3, features=small)
    assert result.levels == levels and len(result.remarks) == 1 and result.remarks[0].startswith("path:")
    pictures = by_hand(model, result.prompts[0], result.wordings[0], levels, 3, small)
    found = dict(zip(result.sources, result.components[0], strict=True))
    # Float32 pictures of other batches: about 1e-6 of each of some hundred numbers.
    expected = components_by_pairs(pictures[:, 0])
    assert [value for name, value in found.items() if "path" not in name] == pytest.approx(
        [expected[i] for i in range(7)], abs=1e-4 * result.totals[0]
    )
    assert {value for name, value in found.items() if "path" in name} == {0.0}
    assert found["decoder"] > 0.01 * result.totals[0] > 0
    held = decompose(model, ["red heart"], 2, 4, 2, seed=3, features=small)
    assert HELD in held.remarks and held.totals[0] != pytest.approx(result.totals[0], rel=1e-3)
