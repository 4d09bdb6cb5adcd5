"""Pictures are looked at wherever they come in, and what is none is refused in one line; none is held for longer."""

import re
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.decompose import features_of
from divlens.diversity import lpips_diversity
from divlens.errors import DivlensError
from divlens.experiment.measure import IMAGES_PER_PASS, noise_floor
from divlens.fidelity.judge import load_judge
from divlens.interventions import Argmax
from divlens.models.toy import RULES, ToyModel
from divlens.pictures import PictureError, checked_pictures, pictures_from_bytes
from divlens.planning import plan
from divlens.run import fill
from divlens.sheets import contact_sheet
from divlens.types import Prompt
from oracles.colour_network import colour_network


def plain(pictures):
    return pictures


@dataclass(frozen=True)
class Decoding(ToyModel):
    """A toy whose pictures are changed before they are given."""

    change: object = field(default=plain, kw_only=True)

    def decode(self, tokens):
        return self.change(super().decode(tokens))  # type: ignore[operator]


def decoding(change) -> Any:
    return Decoding("ar", RULES["ar"], change=change)


@pytest.fixture
def quick(monkeypatch):
    """LPIPS on three pixels; still it wants pictures of 21 pixels."""
    network = colour_network(smallest=21)
    monkeypatch.setattr("divlens.experiment.comparison.load_network", lambda name: network)
    return network


NO_BOUNDS = divlens.Effort(paths=0, path_samples=0, mixture_samples=0)
VERBS = {
    "sample": lambda model, network: divlens.sample(model, ["a cat", "snow"], n=2),
    "probe": lambda model, network: divlens.probe(model, ["a cat", "snow"], n=4, conditions=[Argmax()]),
    "enhance": lambda model, network: divlens.enhance(model, ["a cat", "snow"], n=4),
    "decompose": lambda model, network: divlens.decompose(model, ["a cat"], 1, 1, 4, features=network),
    "information": lambda model, network: divlens.information(
        model, ["a cat", "snow"], n=2, judge=lambda images: torch.zeros(len(images), dtype=torch.long), effort=NO_BOUNDS
    ),
}
NO_PICTURES = {
    "from -1 to 1": (lambda p: 2 * p - 1, r"got float32 of shape \(4, 3, 32, 96\) with values in \[-1, 1\]"),
    "from 0 to 255": (lambda p: 255 * p, r"with values in \[0, 255\]"),
    "bytes": (lambda p: (255 * p).byte(), r"got uint8 of shape \(4, 3, 32, 96\) with values in \[0, 255\]"),
    "half precision": (lambda p: p.half(), "got float16"),
    "one channel": (lambda p: p[:, :1], r"got float32 of shape \(4, 1, 32, 96\)"),
    "four channels": (lambda p: torch.cat([p, p[:, :1]], 1), r"shape \(4, 4, 32, 96\)"),
    "channels last": (lambda p: p.movedim(1, -1), r"shape \(4, 32, 96, 3\)"),
    "one picture too few": (lambda p: p[1:], r"shape \(3, 3, 32, 96\)"),
    "not a number": (lambda p: p / 0, "with NaN in"),
    "an array": (lambda p: p.numpy(), "got ndarray"),
    "nothing": (lambda p: None, "got NoneType"),
    "a little too bright": (lambda p: p * 1.001, r"values in \[0, 1.001\]"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_what_is_no_picture_and_names_the_model(verb, quick):
    for change, message in NO_PICTURES.values():
        expected = r"^expected the pictures of toy/ar:0 as a float32 tensor \(4, 3, H, W\) in \[0, 1\], got .*"
        with pytest.raises(PictureError, match=expected) as caught:
            VERBS[verb](decoding(change), quick)
        assert "\n" not in str(caught.value) and re.search(message, str(caught.value))
    assert VERBS[verb](decoding(plain), quick) is not None  # the control


@pytest.mark.parametrize("verb", ["probe", "enhance", "decompose"])
def test_pictures_that_are_too_small_for_the_network_are_refused(verb, quick):
    message = "expected pictures of toy/ar:0 of at least 21 x 21 pixels for this network, got 20 x 96"
    with pytest.raises(DivlensError, match=message):
        VERBS[verb](decoding(lambda p: p[:, :, :20]), quick)
    assert divlens.sample(decoding(lambda p: p[:, :, :20]), ["a cat"], n=2).images.shape == (1, 2, 3, 20, 96)


def test_values_within_rounding_of_the_range_are_put_on_its_border():
    edge = torch.tensor([0.0, 1.0]).repeat(3, 8, 4)
    for beyond in (1e-7, 1e-6):
        found = checked_pictures(edge + torch.where(edge > 0, beyond, -beyond), "images")
        assert torch.equal(found, edge)
    with pytest.raises(PictureError, match="got float32"):
        checked_pictures(edge * (1 + 1e-4), "images")  # a fortieth of a grey level: no rounding
    assert checked_pictures(edge, "images") is edge
    drawn = divlens.sample(decoding(lambda p: p * (1 + 1e-7)), ["a cat"], n=4)
    assert torch.equal(drawn.images, divlens.sample("toy/ar", ["a cat"], n=4).images)
    assert float(lpips_diversity(edge.expand(1, 2, 3, 8, 8).repeat(1, 1, 1, 4, 4) * (1 + 1e-7))[0]) == 0


def test_pictures_of_several_sizes_are_refused():
    sizes = iter((32, 31, 32))
    model = decoding(lambda p: p[:, :, : next(sizes)])
    with pytest.raises(PictureError, match="all pictures of toy/ar:0 in one size, got 32 x 96 and 31 x 96 pixels"):
        divlens.sample(model, ["a cat"], n=6, batch_size=3)
    sizes = iter((32, 32))
    assert divlens.sample(model, ["a cat"], n=6, batch_size=3).images.shape == (1, 6, 3, 32, 96)  # the control


@pytest.mark.parametrize("name", list(NO_PICTURES)[:7])
def test_what_looks_at_pictures_refuses_what_is_none(name, quick):
    good = divlens.sample("toy/ar", ["a cat"], n=4).images[0]
    bad = NO_PICTURES[name][0](good)
    for look in (
        lambda images: noise_floor(images, quick),
        lambda images: contact_sheet(images[None]),
        lambda images: lpips_diversity(images[None], quick),
    ):
        with pytest.raises(PictureError, match=r"^expected .*, got "):
            look(bad)
        assert look(good) is not None  # the control


def test_the_judge_refuses_what_is_no_picture_of_its_size():
    judge, grey = load_judge(), torch.full((2, 3, 64, 64), 0.5)
    assert judge(grey).concept.shape[0] == 2  # the control
    for bad in (2 * grey - 1.5, grey.half(), grey.movedim(1, -1)):
        with pytest.raises(PictureError, match="expected the judge's pictures as a float32 tensor"):
            judge(bad)
    with pytest.raises(PictureError, match="pictures of 64 x 64 pixels, got 32 x 64"):
        judge(grey[:, :, :32])


def test_networks_go_by_name(quick):
    images = divlens.sample("toy/ar", ["a cat"], n=3).images
    assert torch.equal(lpips_diversity(images, "stlpips"), lpips_diversity(images))
    assert not torch.equal(lpips_diversity(images, quick), lpips_diversity(images))  # the control
    for bad in ("squeeze", ""):
        with pytest.raises(DivlensError, match="expected one of the networks stlpips, alex, vgg"):
            lpips_diversity(images, bad or "none")
    with pytest.raises(DivlensError, match="expected a network, or one of the names stlpips, alex, vgg, got int"):
        lpips_diversity(images, 3)  # type: ignore[arg-type]
    with pytest.raises(DivlensError, match="a device that torch can use here, got 'abacus'"):
        lpips_diversity(images, device="abacus")
    by_name, by_default = (divlens.decompose("toy/ar", ["a cat"], 1, 2, 2, features=f) for f in ("stlpips", None))
    assert np.array_equal(by_name.components, by_default.components)
    with pytest.raises(DivlensError, match="features expect a function of pictures, or the name of a network, got 3"):
        features_of(3, torch.device("cpu"))


# How many are held


class Watched:
    """Makes decoders whose pictures are counted as long as anything, a view of them included, holds their memory."""

    def __init__(self):
        self.made, self.most = [], 0

    def __call__(self, pictures):
        self.most = max(self.most, self.alive())
        memory = pictures.numpy().copy()
        self.made.append(weakref.ref(memory))
        return torch.from_numpy(memory)

    def alive(self):
        return sum(reference() is not None for reference in self.made)


BATCH = IMAGES_PER_PASS  # a batch is then decoded at once, and so is a pass
HELD = 2  # batches: the one that was looked at last, and the one before whose place it takes


@pytest.mark.parametrize("verb", ["probe", "enhance", "decompose", "information"])
def test_pictures_are_dropped_as_they_are_measured(verb, quick):
    watched = Watched()
    model, prompts = decoding(watched), ["a cat"]
    if verb == "probe":
        result = divlens.probe(model, prompts, n=15 * BATCH, batch_size=BATCH, conditions={"baseline": ()})
    elif verb == "enhance":
        result = divlens.enhance(model, prompts, n=8 * BATCH, batch_size=BATCH)
    elif verb == "decompose":
        result = divlens.decompose(model, prompts, 1, 1, 15 * BATCH, features=quick, batch_size=BATCH)
    else:
        first = lambda images: images[:, :, 0, 0].argmax(1)  # noqa: E731
        result = divlens.information(model, prompts, 15 * BATCH, batch_size=BATCH, judge=first, effort=NO_BOUNDS)
    assert len(watched.made) >= 15 and watched.most <= HELD
    assert watched.alive() == 0 and result is not None


def test_held_pictures_are_counted():
    """Positive control: a list of what is drawn, or one view of each batch, is seen."""
    for keep in (plain, lambda p: p[:1]):
        watched = Watched()
        model = decoding(watched)
        run = plan(model, [Prompt("a cat")], 60, 0, batch_size=4)
        held = [keep(part.pictures()) for part in fill(run)]
        assert watched.most == 14 and watched.alive() == len(held) == 15


def test_what_is_enhanced_makes_its_pictures_anew(quick):
    watched = Watched()
    found = divlens.enhance(decoding(watched), ["a cat", "snow"], n=5)
    before = len(watched.made)
    assert found.images.shape == (2, 5, 3, 32, 96) and len(watched.made) > before
    assert torch.equal(found.images[1, 2:4], found.after.pictures_of(1, slice(2, 4)))
    assert not torch.equal(found.images, found.before.images)  # the control


def test_no_more_conditions_are_put_together_than_a_batch_needs(quick, monkeypatch):
    sizes, predictor = [], ToyModel.predictor

    def counted(self, conditions, guided):
        sizes.append(len(conditions))
        return predictor(self, conditions, guided)

    monkeypatch.setattr(ToyModel, "predictor", counted)
    divlens.probe("toy/ar", ["a cat"], n=60, batch_size=10, conditions={"baseline": ()})
    assert max(sizes) == 10


def test_tokens_are_kept_as_small_integers_and_told_as_they_were_drawn(quick):
    result = divlens.probe("toy/diffusion", ["a cat", "snow"], n=5)
    assert {part.loaded().tokens.dtype for part in result.samples.parts} == {torch.int16}
    drawn = divlens.sample("toy/diffusion", ["a cat", "snow"], n=5)
    first = result.samples[:10]
    assert [record.tokens for record in first] == [
        tuple(grid) for grid in drawn.tokens.flatten(0, 1).flatten(1).tolist()
    ]
    assert [(record.prompt, record.sample) for record in first] == [(p, i) for p in ("a cat", "snow") for i in range(5)]
    assert result.samples[-1] == list(result.samples)[-1] and len(result.samples) == 50
    with pytest.raises(IndexError):
        result.samples[50]


def test_bytes_become_pictures_colour_by_colour():
    levels = torch.tensor([[[[0, 51, 255], [102, 0, 0]]]], dtype=torch.uint8)  # one picture of two pixels
    pictures = pictures_from_bytes(levels)
    assert checked_pictures(pictures, "pictures", 1) is pictures
    torch.testing.assert_close(pictures, torch.tensor([[[[0.0, 0.4]], [[0.2, 0.0]], [[1.0, 0.0]]]]))
