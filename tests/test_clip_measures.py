"""CLIPScore and CLIP-IQA, against torchmetrics on a tiny CLIP; and what may be mistaken in its ranges."""

import warnings
from typing import Any

import pytest
import torch
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.functional.multimodal.clip_iqa import _PROMPTS, clip_image_quality_assessment
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPModel, CLIPProcessor

from divlens.errors import DivlensError, DivlensWarning
from divlens.experiment.families import family_measure
from divlens.metrics.clip import QUALITY, clip_of, projected
from oracles import tiny_features

# float32 of a network of two layers, in a batch of another size; times 100 in the scores.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_features.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pictures():
    """8-bit grey levels of pictures that the processor scales and cuts."""
    return torch.randint(256, (5, 3, 48, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


class Plain(CLIPModel):
    """torchmetrics 1.9 takes features for a tensor, as they were before transformers 5."""

    def get_image_features(self, pixel_values):  # type: ignore[override]
        return projected(super().get_image_features(pixel_values))

    def get_text_features(self, input_ids, attention_mask):  # type: ignore[override]
        return projected(super().get_text_features(input_ids, attention_mask))


@pytest.fixture
def of_torchmetrics(place):
    return Plain.from_pretrained(place).eval(), CLIPProcessor.from_pretrained(place)


def test_clipscore_is_that_of_torchmetrics(place, pictures, of_torchmetrics):
    for text in ("a red heart", "blue"):
        found = clip_of(place).scores(pictures, text)
        own = CLIPScore(model_name_or_path=lambda: of_torchmetrics)
        each = torch.stack([clip_score(one, text, lambda: of_torchmetrics) for one in pictures]).detach()
        torch.testing.assert_close(found, each, rtol=0, atol=TOLERANCE)
        own.update(pictures, [text] * len(pictures))
        # Theirs is the mean of 100 cos, no less than 0; ours has no term below 0.
        assert float(own.compute()) <= float(found.mean()) + TOLERANCE
    other = clip_of(place).scores(255 - pictures, "a red heart")
    assert float((other - clip_of(place).scores(pictures, "a red heart")).abs().max()) > 10 * TOLERANCE  # the control


def test_a_negative_cosine_counts_as_0(place, pictures):
    cosines = [clip_of(place).scores(pictures, text) for text in ("a", "red heart", "0123", "the sea", "zz top")]
    assert min(float(score.min()) for score in cosines) == 0 < max(float(score.max()) for score in cosines)


def test_clipiqa_is_that_of_torchmetrics_on_pictures_in_its_range(place, monkeypatch, of_torchmetrics):
    """Of pictures that are not scaled, for theirs are scaled as floats and ours as files are, in 8 bits. Its processor
    divides by 255 once more, so that [0, 255] is the range that gives what the network expects, and the [0, 1] that its
    page asks for is nearly black."""
    from torchmetrics.functional.multimodal import clip_iqa

    monkeypatch.setattr(clip_iqa, "_get_clip_model_and_processor", lambda name: of_torchmetrics)
    side = tiny_features.SIDE
    pictures = torch.randint(256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = clip_of(place).qualities(pictures)
    theirs = clip_image_quality_assessment(pictures.float(), "openai/any", data_range=1.0)  # type: ignore[arg-type]
    assert _PROMPTS["quality"] == QUALITY
    torch.testing.assert_close(found, theirs, rtol=0, atol=TOLERANCE)
    black: Any = clip_image_quality_assessment(pictures.float(), "openai/any", data_range=255.0)  # type: ignore[arg-type]
    assert float((black - found).abs().max()) > 10 * TOLERANCE  # the control


def test_a_long_prompt_is_cut_with_a_warning_and_keeps_its_end(place, pictures):
    long = "a red heart on the sea " * 9
    with pytest.warns(DivlensWarning, match=r"reads 77 of the \d+ tokens of 'a red heart on the sea"):
        cut = clip_of(place).scores(pictures, long)
    kept = clip_of(place).tokenizer(long, truncation=True, max_length=77).input_ids
    assert kept[-1] == clip_of(place).tokenizer.eos_token_id and len(kept) == 77
    with pytest.warns(DivlensWarning):
        same_beginning = clip_of(place).scores(pictures, long + "blue")
    assert torch.equal(cut, same_beginning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not torch.equal(cut, clip_of(place).scores(pictures, "blue"))


def test_a_special_token_in_a_prompt_is_refused(place, pictures):
    with pytest.raises(DivlensError, match=r"expects a text, got the special token '<\|endoftext\|>'"):
        clip_of(place).scores(pictures, "a heart <|endoftext|>")


def test_below_every_table_stand_noise_and_grey(place):
    measure = family_measure(f"clipiqa:{place}")
    assert measure is not None
    noise, grey = clip_of(place).quality_of_nothing
    assert measure.note.endswith(f"uniform noise has {noise:.3f}, even grey {grey:.3f}") and noise != grey
    side = tiny_features.SIDE
    even = torch.full((1, 3, side, side), 128, dtype=torch.uint8)
    assert float(clip_of(place).qualities(even)) == pytest.approx(grey, abs=TOLERANCE)
