"""Clusters of codes that are alike: what a model shows of its codebook, and the fractions that are made of it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.codebook import fraction_of_codes, order_by_clusters
from divlens.errors import DivlensError
from divlens.interventions import DisableTop, Subset
from divlens.models.protocol import Quantizing
from divlens.planning import Reading
from oracles.every_model import MODELS, small
from oracles.small_models import Small

pytestmark = pytest.mark.usefixtures("one_thread")
WITH_VECTORS = [name for name in MODELS if not name.startswith(("toy/", "outside"))]


def clumps(sizes: list[int]) -> tuple[torch.Tensor, np.ndarray]:
    """Vectors in clumps far from each other, in no order, and the clump of each."""
    clump = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = torch.eye(len(sizes), dtype=torch.float64) * 100
    spread = torch.randn(len(clump), len(sizes), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return centres[clump] + spread, clump


def test_codes_that_are_alike_stand_together():
    vectors, clump = clumps([5, 9, 3, 12, 7])  # 36 codes: six clusters, of which one clump gets two
    order = order_by_clusters(vectors)
    assert sorted(order.tolist()) == list(range(36))
    found = clump[order.numpy()]
    changes = int((found[1:] != found[:-1]).sum())
    assert changes in (4, 5)  # five clumps, and the two halves of one need not be neighbours
    unordered = int((clump[1:] != clump[:-1]).sum())
    assert unordered > 15  # the control


def test_the_order_knows_nothing_of_how_often_a_code_comes_out_and_does_not_change():
    vectors, _ = clumps([4, 4, 4, 4])
    order = order_by_clusters(vectors)
    assert torch.equal(order, order_by_clusters(vectors.float()))
    rising = torch.arange(1, 17, dtype=torch.float64) / 136
    found = fraction_of_codes(rising, 0.5, "cluster", order)
    assert torch.equal(found, fraction_of_codes(rising.flip(0), 0.5, "cluster", order))
    assert set(found.nonzero().flatten().tolist()) == set(order[:8].tolist())
    assert not torch.equal(found, fraction_of_codes(rising, 0.5, "frequency"))  # the control


@pytest.mark.filterwarnings("error")
def test_vectors_that_are_the_same_make_one_cluster():
    assert order_by_clusters(torch.zeros(9, 2)).tolist() == list(range(9))
    assert sorted(order_by_clusters(torch.ones(1, 3)).tolist()) == [0]
    two = torch.tensor([[0.0], [5.0]]).repeat(8, 1)
    assert order_by_clusters(two).tolist() in (
        [*range(0, 16, 2), *range(1, 16, 2)],
        [*range(1, 16, 2), *range(0, 16, 2)],
    )


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_codes_of_one_vector_give_one_picture(name):
    """The vectors are those that the decoder looks up: two codes that have the same one cannot be told apart."""
    model: Any = small(name)
    check_is_quantizing(model)
    one, other = (torch.full((1, *model.grid), code) for code in (0, 1))
    assert not torch.equal(decoded(model, one), decoded(model, other))  # the control
    changed: Any = copy.deepcopy(model)
    vectors = changed.code_vectors
    assert vectors.shape == (model.codes, vectors.shape[1])
    with torch.no_grad():
        table = table_of(changed)
        table[1] = table[0]
    assert torch.equal(changed.code_vectors[0], changed.code_vectors[1])
    assert torch.equal(decoded(changed, one), decoded(changed, other))


def decoded(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The picture; of a decoder with noise of its own under the same noise."""
    return model.decode_under(tokens, [0]) if hasattr(model, "decode_under") else model.decode(tokens)


def check_is_quantizing(model: object) -> None:
    assert isinstance(model, Quantizing)


def table_of(model: Any) -> torch.Tensor:
    """Where a model keeps its vectors, to be changed in place."""
    if hasattr(model, "network") and hasattr(model.network, "model"):
        return model.network.model.vqmodel.quantize.embedding.weight
    if hasattr(model, "vqvae"):
        return model.vqvae.quantize.embedding.weight
    if hasattr(model, "decoder"):
        return model.decoder.transformer.prior_token_embedding.weight
    tokenizer = model.tokenizer
    return tokenizer.codebook if hasattr(tokenizer, "codebook") else tokenizer.quantize.embedding.weight


@pytest.mark.parametrize("name", ["zoo/mim", "amused"])
def test_a_fraction_by_cluster_is_drawn_and_needs_no_calibration(name, monkeypatch):
    model = small(name)
    monkeypatch.setattr(Reading, "frequencies", lambda reading: pytest.fail("no calibration run is needed"))
    kept = Reading(model).clustered()[: round(model.codes / 4)]
    found = divlens.sample(model, ["red heart"], 4, interventions=[Subset(0.25, by="cluster")]).tokens
    assert set(found.unique().tolist()) <= set(kept.tolist())
    free = divlens.sample(model, ["red heart"], 4).tokens
    assert not set(free.unique().tolist()) <= set(kept.tolist())  # the control
    others = divlens.sample(model, ["red heart"], 4, interventions=[DisableTop(0.25, by="cluster")]).tokens
    assert not set(others.unique().tolist()) & set(kept.tolist())


def test_a_model_without_vectors_says_so_before_any_calibration():
    model: Any = MODELS["outside"].make(0)
    with pytest.raises(DivlensError, match=r"Subset\(by='cluster'\) expects a model that shows its `code_vectors`"):
        Reading(model).settings([Subset(0.5, by="cluster")])
    assert Reading(model).settings([Subset(1, by="cluster")]).allowed is None  # nothing is asked for


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0]] * 3, "got list"),
        (torch.zeros(2, 4), r"got float32 of shape \(2, 4\)"),
        (torch.zeros(3, 4, dtype=torch.long), r"got int64 of shape \(3, 4\)"),
        (torch.full((3, 4), torch.nan), "got some that are not"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors, message):
    class WithVectors(Small):
        code_vectors = vectors

    outside: Any = MODELS["outside"].make(0)
    model = WithVectors(outside.rule, codes=3, seed=0)
    with pytest.raises(DivlensError, match=rf"expects code_vectors as a tensor \(3, d\) of finite numbers, {message}"):
        Reading(model).settings([Subset(0.5, by="cluster")])


def test_the_drop_in_takes_clusters_of_the_pipeline():
    from oracles import tiny_diffusers

    pipe: Any = tiny_diffusers.amused()
    settings = Reading(divlens.wrap(pipe)).settings([DisableTop(0.5, by="cluster")])
    generator = torch.Generator().manual_seed(0)
    with divlens.apply(pipe, [DisableTop(0.5, by="cluster")]):
        found = pipe(["red heart"], generator=generator, output_type="latent").images
    assert settings.allowed is not None and bool(settings.allowed[found.flatten()].all())
    free = pipe(["red heart"], generator=generator, output_type="latent").images
    assert not bool(settings.allowed[free.flatten()].all())  # the control
