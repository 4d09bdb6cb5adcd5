"""The random streams: published vectors, uniformity, independence, and draws that never take what has no chance."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_amused import gumbel_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens import noise as noise_module
from divlens.loop import filled
from divlens.noise import STREAMS, CounterNoise, Stream, TorchNoise, draw_by_inversion, philox4x32, prompt_key, rising
from divlens.paths import Raster
from divlens.settings import Settings, filter_logits
from oracles.toy_grids import chi_square_p

# Every chi-square test below rejects at 1e-6: over random seeds that is its false-alarm rate. Seeds are fixed.
ALARM = 1e-6
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    got = philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32))
    assert tuple(int(word) for word in got) == words


def test_philox_broadcasts_one_key_over_many_counters():
    counters = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    key = np.array([5, 6], np.uint32)
    together = philox4x32(counters, key)
    apart = np.stack([[philox4x32(counter, key) for counter in row] for row in counters])
    assert (together == apart).all()


def uniforms(seed=0, prompt="red heart", samples=200, stream: Stream = "path", step=0, positions=500):
    source = CounterNoise.of(seed, [prompt] * samples, range(samples), range(samples))
    return source.uniform(stream, step, 0, positions)[..., 0]


def test_uniforms_are_uniform():
    counts, _ = np.histogram(uniforms(), bins=100, range=(0, 1))
    assert chi_square_p(counts.astype(float), np.full(100, 0.01)) > ALARM


def test_a_skewed_uniform_would_be_seen():
    counts, _ = np.histogram(uniforms() ** 1.05, bins=100, range=(0, 1))
    assert chi_square_p(counts.astype(float), np.full(100, 0.01)) < ALARM


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_uniforms_and_gumbels_are_inside_their_range_at_the_extreme_words(monkeypatch, word):
    monkeypatch.setattr(noise_module, "philox4x32", lambda counter, key: np.full(counter.shape, word, np.uint32))
    source = CounterNoise((1,), (0,), (0,))
    one, two = source.uniform("path", 0, 0, 4), source.uniform("path", 0, 0, 4, two=True)
    assert ((one > 0) & (one < 1)).all() and ((two > 0) & (two < 1)).all()
    assert source.path_gumbel(0, 4, torch.device("cpu")).isfinite().all()


@fixed
@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 2**20), first=st.integers(0, 2**20))
def test_uniforms_are_inside_the_unit_interval(seed, step, first):
    values = CounterNoise.of(seed, ["a cat"], [3], [3]).uniform("execution", step, first, 7, two=True)
    assert values.shape == (1, 7, 2) and ((values > 0) & (values < 1)).all()


OTHERS = {
    "stream": {"stream": "execution"},
    "step": {"step": 1},
    "seed": {"seed": 1},
    "high seed": {"seed": 2**32},
    "prompt": {"prompt": "a cat"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_streams_are_uncorrelated(other):
    """|r| sqrt(N) is a standard normal: beyond 5 once in 1.7 million random seeds."""
    a, b = uniforms().ravel(), uniforms(**other).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) * a.size**0.5 < 5


def test_no_step_of_one_stream_is_a_step_of_another():
    first = [
        uniforms(stream=stream, step=step, samples=1, positions=1).item() for stream in STREAMS for step in range(40)
    ]
    assert len(set(first)) == len(first)


def test_samples_and_positions_are_uncorrelated():
    values = uniforms()
    for a, b in [(values[:-1], values[1:]), (values[:, :-1], values[:, 1:])]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * a.size**0.5 < 5


def test_a_noise_that_confuses_its_streams_would_be_seen(monkeypatch):
    monkeypatch.setitem(noise_module.STREAMS, "execution", noise_module.STREAMS["path"])
    assert np.corrcoef(uniforms().ravel(), uniforms(stream="execution").ravel())[0, 1] > 0.999


def test_position_noise_does_not_depend_on_where_the_window_starts():
    source = CounterNoise.of(4, ["a cat", "a dog"], [0, 1], [0, 1])
    whole = source.uniform("execution", 2, 0, 10)
    assert (source.uniform("execution", 2, 6, 3) == whole[:, 6:9]).all()


@pytest.mark.parametrize(("frozen", "other"), [("path", "execution"), ("execution", "path")])
def test_a_frozen_stream_is_that_of_sample_0_for_every_sample_and_the_other_varies(frozen, other):
    prompts, own = ["a cat", "a cat", "a dog"], [0, 1, 1]
    free = CounterNoise.of(2, prompts, own, own)
    indices: Any = {frozen: [0, 0, 0], other: own}
    held = CounterNoise.of(2, prompts, **indices)
    same, still_free = held.uniform(frozen, 3, 0, 5), held.uniform(other, 3, 0, 5)
    assert (same[0] == same[1]).all() and (same[0] == free.uniform(frozen, 3, 0, 5)[0]).all()
    assert (same[0] != same[2]).all()  # prompts keep noise of their own
    assert (still_free == free.uniform(other, 3, 0, 5)).all() and (still_free[0] != still_free[1]).all()
    assert (free.uniform(frozen, 3, 0, 5)[0] != free.uniform(frozen, 3, 0, 5)[1]).all()


def test_prompt_key_is_the_same_on_every_machine():
    assert prompt_key("red heart") == 13766314928680310173


# Two texts whose 32-bit hashes are equal: with keys of that length they shared all their noise.
SAME_32_BITS = ("a photo of object 41394", "a photo of object 55016")


def test_prompts_whose_32_bit_hashes_are_equal_have_noise_of_their_own():
    short = [hashlib.blake2b(text.encode(), digest_size=4).digest() for text in SAME_32_BITS]
    assert short[0] == short[1] and len({prompt_key(text) for text in SAME_32_BITS}) == 2
    first, second = (uniforms(prompt=text) for text in SAME_32_BITS)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) * first.size**0.5 < 5
    assert (first == uniforms(prompt=SAME_32_BITS[0])).all()  # the control: one text, one noise


@pytest.mark.parametrize("word", range(3))
def test_each_32_bit_word_of_a_key_changes_the_noise(word):
    """So that no part of a key is lost on its way into Philox's key and counter."""
    keys = (7, 7 ^ 1 << 32 * word, 7)
    values = CounterNoise(keys, (0,) * 3, (0,) * 3).uniform("path", 0, 0, 1000)[..., 0]
    assert (values[0] == values[2]).all()  # the control: the same key again
    assert abs(np.corrcoef(values[0], values[1])[0, 1]) * 1000**0.5 < 5


def test_a_seed_and_a_prompt_do_not_make_up_for_each_other():
    """Noise of 20 prompts under 20 seeds: no two of the 400 streams are alike."""
    first = {uniforms(seed=seed, prompt=f"{i}", samples=1, positions=1).item() for seed in range(20) for i in range(20)}
    assert len(first) == 400


weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e6)), min_size=1, max_size=40).filter(any)
extreme = st.one_of(st.sampled_from([2.0**-53, 1 - 2.0**-53, 2.0**-30, 1 - 2.0**-26, 0.5]), st.floats(1e-12, 1 - 1e-12))


@settings(fixed, max_examples=300)
@given(weight=weights, uniform=extreme)
def test_a_code_without_chance_is_never_drawn(weight, uniform):
    p = torch.tensor([[weight]])
    drawn = int(draw_by_inversion(p, torch.tensor([[uniform]], dtype=torch.float64)))
    assert 0 <= drawn < len(weight) and weight[drawn] > 0


@settings(fixed, max_examples=200)
@given(weight=weights, uniform=extreme, seed=st.integers(0, 1000))
def test_a_code_without_chance_is_not_drawn_from_sums_rounded_in_another_order(weight, uniform, seed):
    """What a parallel scan does: every sum is off by a few units in the last place, in either direction."""
    p = torch.tensor(weight)
    wobble = 1 + 4e-7 * (torch.rand(len(weight), generator=torch.Generator().manual_seed(seed)) - 0.5)
    sums = rising((p.cumsum(-1) * wobble).view(1, 1, -1), p.view(1, 1, -1)).flatten()
    assert (sums.diff() >= 0).all()
    drawn = int(torch.searchsorted(sums, sums[-1] * min(uniform, 1 - 2.0**-24), right=True))
    assert weight[drawn] > 0


def test_sums_rounded_in_another_order_would_draw_a_code_without_chance():
    sums = torch.tensor([0.5, 0.5000001, 1.0])  # the second code has no chance, yet its sum is larger
    assert int(torch.searchsorted(sums, torch.tensor(0.50000006), right=True)) == 1


def widths(p: torch.Tensor, codes: np.ndarray, inverted=draw_by_inversion) -> np.ndarray:
    """How much of (0, 1) the inverse CDF gives to each code, by bisection for the ends; p: float32 (codes,)."""

    def first_with(least: np.ndarray) -> np.ndarray:
        """The smallest uniform, of multiples of 2^-52, at which a code of at least `least` is drawn."""
        low, high = np.zeros(len(least), np.int64), np.full(len(least), 2**52, np.int64)
        while (high > low).any():
            middle = (low + high) // 2
            uniform = torch.from_numpy((middle + 0.5) / 2.0**52)[None]
            reached = inverted(p.expand(1, len(least), -1), uniform)[0].numpy() >= least
            high, low = np.where(reached, middle, high), np.where(reached, low, np.minimum(middle + 1, high))
        return low / 2.0**52

    return first_with(codes + 1) - first_with(codes)


def drawn_from_float32_sums(p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    sums = p.reshape(-1, p.shape[-1])[0].cumsum(-1)
    return torch.searchsorted(sums, uniform.float() * sums[-1], right=True)


def rare(codes: int) -> torch.Tensor:
    """Logits 0 and, for all others, -19 to -29: each of these has a chance of 6e-9 down to 3e-13."""
    logits = -19 - 10 * torch.rand(codes, generator=torch.Generator().manual_seed(0))
    logits[codes // 3] = 0
    return logits.softmax(-1)


@pytest.mark.parametrize("codes", [2**14, 2**16])
def test_every_code_is_drawn_in_proportion_however_rare(codes):
    p = rare(codes)
    expected = (p.double() / p.double().sum()).numpy()
    some = np.unique(np.r_[0, codes // 3 + np.arange(-1, 2), codes - 2, np.linspace(1, codes - 2, 8, dtype=int)])
    # Uniforms are multiples of 2^-52, and sums and targets below 1 are rounded to 2^-53; and the total that all shares
    # are of was rounded `codes` times.
    error = 2.0**-51 + expected[some] * codes * 2.0**-53
    assert (error < 0.005 * expected[some]).all()
    assert (np.abs(widths(p, some) - expected[some]) < error).all()
    crude = widths(p, some, drawn_from_float32_sums)  # the control: what sums in float32 make of it
    after = some > codes // 3  # where the sum is near 1
    assert (np.abs(crude - expected[some])[after] > 100 * error[after]).all() and (crude == 0)[after].mean() > 0.5


def test_every_code_of_a_chance_above_1e_12_is_drawn():
    p = rare(2**14)
    expected = (p.double() / p.double().sum()).numpy()
    middle = torch.from_numpy(expected.cumsum() - expected / 2)
    some = np.flatnonzero(expected > 1e-12)[::16]
    assert len(some) > 800
    assert (draw_by_inversion(p.expand(1, len(some), -1), middle[some][None])[0].numpy() == some).all()
    crude = [drawn_from_float32_sums(p, part[None]) for part in middle[some].split(100)]
    assert len(torch.cat(crude, 1).unique()) < len(some) / 2  # the control


@pytest.mark.parametrize("scale", [1.0, 1e-6, 3e4])
def test_draws_follow_the_probabilities(scale):
    p = torch.tensor([0.3, 0.0, 0.05, 0.4, 0.0, 0.2, 0.05])
    source = CounterNoise.of(1, ["a"] * 1000, range(1000), range(1000))
    drawn = source.draw((p * scale).expand(1000, 200, 7), step=3, first=0)
    counts = np.bincount(drawn.flatten().numpy(), minlength=7).astype(float)
    assert chi_square_p(counts, p.double().numpy() / float(p.sum())) > ALARM
    assert chi_square_p(counts, np.array([0.29, 0, 0.06, 0.4, 0, 0.2, 0.05])) < ALARM  # the test has power


class HalfPredictor:
    """Logits in half precision; the last code's chance, about 1e-8, is below the smallest half-precision number."""

    logits = torch.tensor([0.0, 0.0, -18.0])

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, view):
        return self.logits.to(self.dtype).expand(len(view.tokens), view.count, 3), None


class RecordingNoise(CounterNoise):
    def draw(self, probabilities, step, first):
        seen.append(probabilities.clone())
        return super().draw(probabilities, step, first)


seen: list[torch.Tensor] = []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_draws_are_made_in_float32_whatever_the_model_computes_in(dtype):
    seen.clear()
    start = torch.full((2, 2), 3)
    filled(HalfPredictor(dtype), Settings(Raster(2), 1.0), RecordingNoise((1, 1), (0, 1), (0, 1)), start, mask=3)
    expected = HalfPredictor.logits.softmax(-1)
    assert len(seen) == 2
    for p in seen:
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, expected.expand_as(p), rtol=1e-6, atol=0)


def test_half_precision_would_lose_codes_and_noise():
    """Positive controls: what the library avoids by drawing in float32."""
    half = HalfPredictor.logits.half().softmax(-1)
    assert float(half[2]) == 0.0
    logits = torch.tensor([[[0.0, -16.0]]])
    single = filter_logits(logits.half(), Settings(Raster(1), 1.0)).exp()
    assert float(single[..., 1]) > 1e-7
    assert float(torch.zeros(1, dtype=torch.float16).clamp(1e-20)) == 0.0  # so the clamp that guards a log does nothing


def test_torch_noise_makes_the_calls_of_the_reference():
    p = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)
    ours, theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    source = TorchNoise(ours, batch=2)
    drawn = source.draw(p, step=0, first=0)
    assert torch.equal(drawn, torch.multinomial(p.reshape(-1, 7), 1, generator=theirs)[:, 0].view(2, 5))
    gumbel = source.path_gumbel(0, 5, torch.device("cpu"))
    assert torch.equal(gumbel.float(), gumbel_noise(torch.zeros(2, 5), generator=theirs))
    pair = source.path_uniform(0, 5, torch.device("cpu"))
    assert pair.shape == (2, 5, 2) and ((pair > 0) & (pair < 1)).all()
