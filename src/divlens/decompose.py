"""Where LPIPS diversity comes from: wordings, paths, executions and the noise of decoders, crossed, and split exactly
(`diversity.anova`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.conditions import name_of
from divlens.decomposition import LPIPS, SQUARED, Decomposition
from divlens.diversity import FeatureNetwork, network_of
from divlens.diversity.anova import CrossedSums, Source, sources_of, whole_blocks
from divlens.errors import DivlensError
from divlens.experiment.decoders import pictures_by_level
from divlens.experiment.design import Design, Levels, Plan, design_of
from divlens.experiment.measure import IMAGES_PER_PASS
from divlens.interventions import Intervention
from divlens.models.protocol import Model, NoisyDecoding
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import finished
from divlens.run import Filled, wording_notes
from divlens.store.draw import batches
from divlens.store.folder import RunFolder, run_for
from divlens.types import Prompt

WORDING: Source = (0,)

Features = Callable[[Float[Tensor, "batch 3 h w"]], Float[Tensor, "batch features"]]


def decompose(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    wordings: int = 3,
    paths: int = 4,
    executions: int = 4,
    seed: int = 0,
    *,
    decoders: int = 1,
    interventions: Sequence[Intervention] = (),
    features: Features | str | None = None,
    length_control: bool = False,
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Decomposition:
    """Split the LPIPS diversity of each prompt by source: wording, path, execution and their interactions.

    Every one of `wordings` wordings is drawn with every one of `paths` path noises and `executions` execution noises.
    The wordings are a random choice, fixed by seed and prompt, of the prompt's own paraphrases (or neutral templates)
    and the prompt itself; a single wording is the prompt itself. So the total is the LPIPS of two pictures that differ
    in path noise, execution noise and wording, two different ones of those the prompt has.

    Main effects belong to the noise as it is used: the same execution noise is the same uniform number at a step and a
    position, so where a path changes when a position is filled, most is an interaction. The components that hold a
    factor add up to the LPIPS of two pictures that differ in that factor only.

    `decoders`: of a model whose decoder draws noise of its own (`models.protocol.NoisyDecoding`), the tokens of each
    picture are decoded under so many of these noises, and the decoder is a source beside the others. Where it is 1 the
    noise is held: all pictures of a prompt are decoded under the same.

    A factor of one level is held fixed and has no share. Where the sampler makes no path draw (AR) or no execution
    draw (Argmax), or the decoder draws no noise, one level is drawn whatever was asked for, and the share is 0 exactly.

    `features`: float32 pictures (b, 3, h, w) in [0, 1] to vectors (b, d) whose squared distance is the measure, or the
    name of an LPIPS network; None is the shift-tolerant LPIPS. `length_control`: split the wording's component into
    wording.meaning and wording.length, at up to three times the pictures. To this end the shortest wording is drawn at
    the length of each wording and each wording at the length of the longest, neutral words filling them up
    (`length_part`, `FILLER`); each part is what the wording's effect has in common with it, and may be negative.
    `out`: the folder of a run, see `divlens.probe`. `progress`: True shows a bar on stderr. `on_batch` is told how many
    more pictures are done. Text is encoded once
    per wording; no more is kept than a batch of pictures and the sums of one prompt.

    Raises DivlensError, before anything is drawn, for: levels below 1 or all 1, Freeze (path and execution are varied
    here), more than a million pictures of a prompt, fewer wordings than asked for, a wording that the model cannot
    read, length_control of a single wording, and what `divlens.sample` refuses.
    """
    design = design_of(
        model,
        prompts,
        Levels(wordings, paths, executions, decoders),
        seed,
        interventions=interventions,
        length_control=length_control,
        batch_size=batch_size,
    )
    with run_for(out, design.request(features), [design.run.model]) as folder:
        result = decompose_design(design, features, folder=folder, progress=progress, on_batch=on_batch)
        return finished(result, folder)


def decompose_design(
    design: Design,
    features: Features | str | None = None,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Decomposition:
    """Draw a design, but for what the folder of a run holds, and split what comes out; see `decompose`."""
    run, levels, plans = design.run, design.levels, design.plans
    model, network = run.model, features_of(features, run.device)
    drawn = batches(run, folder, name_of(design.interventions))
    with followed(progress, on_batch, len(run.rows) * levels.decoders, model.name) as told:
        vectors = feature_batches(drawn, levels.decoders, network, told.advance)
        splits = list(split_by_source(plans, levels, design.asked.factors, vectors))
    return Decomposition(
        request=design.request(features),
        model=model.name,
        condition=name_of(design.interventions),
        prompts=tuple(plan.prompt for plan in plans),
        seed=run.seed,
        drawn_with=run.drawn_with,
        levels=levels,
        wordings=tuple(plan.wordings for plan in plans),
        sources=tuple(splits[0][0]),
        components=np.array([list(components.values()) for components, _ in splits]),
        pairwise=np.array([pairwise for _, pairwise in splits]),
        remarks=remarks_on(design),
        distance=LPIPS if isinstance(network, FeatureNetwork) else SQUARED,
        wording_notes=wording_notes(model, [text for plan in plans for text in plan.texts]),
        interventions=tuple(repr(intervention) for intervention in design.interventions),
    )


def features_of(features: Any, device: torch.device) -> Features:
    """The network of a name, on the device, or the function itself; None is the default. Raises DivlensError for
    anything else."""
    by_name = features is None or isinstance(features, str)
    network: Any = network_of(features).to(device) if by_name else features
    if not callable(network):
        raise DivlensError(f"features expect a function of pictures, or the name of a network, got {features!r:.80}")
    return cast(Features, network)


def feature_batches(
    drawn: Iterable[Filled[None]], decoders: int, features: Features, on_batch: Callable[[int], None]
) -> Iterator[Float[Tensor, "batch features"]]:
    """Feature vectors of all pictures in order, those of a row under each noise of the decoder next to each other; each
    picture is decoded and looked at once. Raises DivlensError as `checked_vectors` does."""
    device = features.device if isinstance(features, FeatureNetwork) else "cpu"
    for filled in drawn:
        for images in pictures_by_level(filled, decoders):
            if isinstance(features, FeatureNetwork):
                features.check_size(images, f"pictures of {filled.run.model.name}")
            for part in images.split(IMAGES_PER_PASS):
                vectors = checked_vectors(features, part.to(device))
                on_batch(len(part))
                yield vectors


def checked_vectors(features: Features, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch features"]:
    """Float32 or float64. Raises DivlensError for features of another shape, and for NaN or infinite ones."""
    with torch.inference_mode():
        vectors = features(images)
    if vectors.ndim != 2 or len(vectors) != len(images):
        expected, got = f"({len(images)}, d) for {len(images)} pictures", tuple(vectors.shape)
        raise DivlensError(f"decompose expects features of shape {expected}, got {got}")
    if not bool(vectors.isfinite().all()):
        raise DivlensError("decompose expects finite features, got NaN or infinity")
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def split_by_source(
    plans: Sequence[Plan],
    levels: Levels,
    factors: Sequence[str],
    vectors: Iterator[Float[Tensor, "batch features"]],
) -> Iterator[tuple[dict[str, float], float]]:
    """Each prompt's components by name, of the sources of these factors, and its mean pairwise distance. `vectors` come
    in the order of the rows, and of a row in that of the decoder's levels."""
    blocks = levels.paths * levels.executions
    sums: list[CrossedSums] = []
    groups = [(blocks, len(plan.texts) * levels.decoders) for plan in plans]
    for prompt, first, block in whole_blocks(vectors, groups):
        pictures = block.unflatten(1, (-1, levels.decoders))
        piece = sums_of(plans[prompt], levels, first, pictures)
        sums = [one.merge(other) for one, other in zip(sums, piece, strict=True)] if first else piece
        if first + len(pictures) == blocks:
            yield named_components(sums, factors), sums[0].mean_pairwise_distance()


def sums_of(
    plan: Plan, levels: Levels, first: int, pictures: Float[Tensor, "blocks texts decoders features"]
) -> list[CrossedSums]:
    """The sums of some whole blocks: of the wordings and, with length control, of their two parts."""
    blocks = levels.paths * levels.executions
    numbers = torch.arange(first, first + len(pictures))
    cells = (torch.arange(levels.wordings) * blocks + numbers[:, None])[..., None] * levels.decoders
    cells = (cells + torch.arange(levels.decoders)).flatten()
    place = {text: i for i, text in enumerate(plan.texts)}

    def series(texts: Sequence[str]) -> Tensor:
        return pictures[:, [place[text] for text in texts]]

    parts = [series(plan.wordings)]
    if plan.lengthened:
        by_length = length_part(parts[0], series(plan.lengthened), series(plan.same_length))
        parts += [by_length, parts[0] - by_length]
    return [CrossedSums.of(levels, cells, part.flatten(0, 2)) for part in parts]


def length_part(own: Tensor, lengthened: Tensor, same_length: Tensor) -> Tensor:
    """What the length of each wording does to the features, up to a constant; float64.

    With h(c, l) the features of wording c filled up to length l, 0 the shortest wording and L the greatest length, the
    way from h(0, l_0) to h(c, l_c) has two orders. Length first: h(0, l_c) - h(0, l_0), and what the words add is
    h(c, l_c) - h(0, l_c). Words first, at the length L: h(c, L) - h(0, L), and what the length adds is
    h(c, l_c) - h(c, L). This is the mean of both (Shapley, 1953), and own - length_part is the same for meaning. A
    model that reads the length only has no meaning's part, and one that takes no notice of filler no length's part.
    """
    return (lengthened.double() + own - same_length) / 2


def named_components(sums: Sequence[CrossedSums], factors: Sequence[str]) -> dict[str, float]:
    """The components of the first sums by the names of their factors; the wording's in two where there are its parts.
    `factors`: the first ones; one that is not among them has a single level, and so no component.

    A wording's effect f is the sum of its length's part a and its meaning's part b, so that its component 2 E|f|^2 is
    2 E<f, a> + 2 E<f, b>, what f has in common with each; and as b = f - a, 2 E<f, a> = E|f|^2 + E|a|^2 - E|b|^2.
    """
    whole, *parts = (one.components() for one in sums)
    known = sources_of(range(len(factors)))[1:]
    named = {":".join(factors[factor] for factor in source): whole[source] for source in known}
    if not parts:
        return named
    wording, difference = named.pop("wording"), parts[0][WORDING] - parts[1][WORDING]
    return {"wording.meaning": (wording - difference) / 2, "wording.length": (wording + difference) / 2, **named}


def remarks_on(design: Design) -> tuple[str, ...]:
    """Why factors are absent."""
    settings, asked, remarks = design.run.settings, design.asked, []
    if asked.wordings == 1:
        remarks.append("wording: held at the prompt itself, so its share is 0 by design.")
    if "path" in settings.without_noise:
        remarks.append("path: the sampler makes no path draw, so its share is exactly 0.")
    elif asked.paths == 1:
        remarks.append("path: held at one path noise, so its share is 0 by design.")
    if "execution" in settings.without_noise:
        remarks.append("execution: tokens are not drawn but chosen, so its share is exactly 0.")
    elif asked.executions == 1:
        remarks.append("execution: held at one execution noise, so its share is 0 by design.")
    noisy = isinstance(design.run.model, NoisyDecoding)
    if noisy and asked.decoders == 1:
        remarks.append("decoder: held at one noise of the decoder, so its share is 0 by design.")
    elif not noisy and asked.decoders > 1:
        remarks.append("decoder: the decoder draws no noise, so its share is exactly 0.")
    return tuple(remarks)
