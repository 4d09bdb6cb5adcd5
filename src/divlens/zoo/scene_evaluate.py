"""What a generator of scenes is asked, and how its pictures are held against the law: respect, openness, distance,
copies.

A generator is a function from wordings to token grids, `Draw`, so that the law itself can be asked, too: its figures
say what tokenizer and judge leave of a generator without fault, and they stand beside those of every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.lab.attributes import ATTRIBUTES, CONCEPT, MIRROR
from divlens.lab.captions import HELD_OUT, NAMING, Template, as_prompt, write
from divlens.lab.evaluation import Confusions, Figure, drawn_from_law, near_copies, openness, respect, total_variation
from divlens.lab.meanings import Meaning
from divlens.lab.reading import read
from divlens.lab.scenes import all_scenes, held_out, in_whole_pairs
from divlens.models.protocol import Model
from divlens.models.zoo.judge_network import JudgeNetwork
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.planning import plan
from divlens.progress import OnBatch
from divlens.prompts import as_prompts
from divlens.run import fill
from divlens.statistics import change_of_share
from divlens.zoo.train_generators import encode_scenes
from divlens.zoo.train_judge import values_read

# Of wordings, n, and a seed: int64 (wordings, n, h, w).
Draw = Callable[[Sequence[str], int, int], Tensor]
TOGETHER = 64  # pictures that are decoded at once
UNSEEN_PAIRS = "pairs never shown"


def drawing(model: Model, on_batch: OnBatch = lambda count: None) -> Draw:
    """A model, with its published settings, as a function of wordings."""

    def draw(wordings: Sequence[str], n: int, seed: int) -> Tensor:
        grids = []
        for batch in fill(plan(model, as_prompts(wordings), n, seed)):
            grids.append(batch.tokens.cpu())
            on_batch(len(batch.tokens))
        return torch.cat(grids).view(len(wordings), n, *model.grid)

    return draw


def the_law(tokenizer: Tokenizer) -> Draw:
    """The generator that is without fault: its scenes are drawn from the law, its grids are those of the tokenizer."""

    def draw(wordings: Sequence[str], n: int, seed: int) -> Tensor:
        scenes = drawn_from_law([read(wording) for wording in wordings], n, np.random.default_rng(seed))
        grids = encode_scenes(tokenizer, scenes.reshape(-1, len(ATTRIBUTES))).long()
        side = round(grids.shape[1] ** 0.5)
        return grids.view(len(wordings), n, side, side)

    return draw


@dataclass(frozen=True)
class Reader:
    """What reads a generator's grids: they are decoded, then judged. `confusions`: how the judge errs, by attribute."""

    tokenizer: Tokenizer
    judge: JudgeNetwork
    confusions: Confusions

    @torch.inference_mode()
    def __call__(self, grids: Int[Tensor, "prompts n h w"]) -> Int[np.ndarray, "prompts n attributes"]:
        parts = grids.flatten(0, 1).to(self.tokenizer.codebook.device).split(TOGETHER)
        found = torch.cat([values_read(self.judge, self.tokenizer.decode(part).float()) for part in parts])
        return found.view(*grids.shape[:2], -1).numpy()


@dataclass(frozen=True)
class Questions:
    """What every generator is asked. No prompt stands in it twice.

    `named` name all that has a word, of combinations that were never shown, mirrored or not, of pairs of concept and
    style that were shown otherwise; `unseen_pairs` the same of pairs that never were. One picture is drawn of each:
    prompts differ more than the pictures of one. `bare` name a concept only; of each `of_bare` pictures are drawn.
    """

    named: tuple[Meaning, ...]
    unseen_pairs: tuple[Meaning, ...]
    bare: tuple[Meaning, ...]
    of_bare: int

    @property
    def pictures(self) -> int:
        return len(self.named) + len(self.unseen_pairs) + len(self.bare) * self.of_bare


def questions(named: int = 384, unseen_pairs: int = 96, bare: int = 24, of_bare: int = 32, seed: int = 0) -> Questions:
    """Drawn uniformly from all that there are: 2,256, 1,152, and 64.

    With these numbers the standard error of a respect of 0.9 is 0.015. Of a core, an AR generator
    needs half a minute, a masked one two and a half, a diffusion four.
    """
    generator = np.random.default_rng(seed)
    concepts = generator.permutation(len(ATTRIBUTES[CONCEPT]))[:bare]
    return Questions(
        tuple(map(all_but_the_mirror, never_shown_scenes(named, generator, of_whole_pairs=False))),
        tuple(map(all_but_the_mirror, never_shown_scenes(unseen_pairs, generator, of_whole_pairs=True))),
        tuple(Meaning.of(concept=ATTRIBUTES[CONCEPT].values[i]) for i in concepts),
        of_bare,
    )


def never_shown_scenes(
    count: int, generator: np.random.Generator, of_whole_pairs: bool
) -> Int[np.ndarray, "count attributes"]:
    """Scenes, as drawn, that are held out and whose mirror images are: a caption of all that has a word was never seen.
    `of_whole_pairs`: of pairs of concept and style that are held out as a whole, or of the others."""
    scenes = all_scenes()
    as_drawn, mirrored = scenes[scenes[:, MIRROR] == 0], scenes[scenes[:, MIRROR] == 1]  # in the same order
    wanted = held_out(as_drawn) & held_out(mirrored) & (in_whole_pairs(as_drawn) == of_whole_pairs)
    return as_drawn[generator.permutation(np.flatnonzero(wanted))[:count]]


def all_but_the_mirror(scene: Int[np.ndarray, " attributes"]) -> Meaning:
    values = scene.tolist()
    values[MIRROR] = None
    return Meaning(tuple(values))


def worded(meanings: Sequence[Meaning], templates: Sequence[Template] = HELD_OUT) -> list[str]:
    """A wording of each, the templates in turn."""
    return [write(meaning, templates[i % len(templates)]) for i, meaning in enumerate(meanings)]


@dataclass(frozen=True)
class Answers:
    """What is read in a generator's pictures of each kind of prompt, and its grids of the pairs that were never
    shown."""

    named: Int[np.ndarray, "named one attributes"]
    unseen_pairs: Int[np.ndarray, "unseen one attributes"]
    bare: Int[np.ndarray, "bare of_bare attributes"]
    grids: Int[np.ndarray, "unseen one positions"]


def answers(draw: Draw, asked: Questions, reader: Reader, seed: int = 0) -> Answers:
    """Prompts that name more are worded by templates that were never shown, a bare name is what it is."""
    unseen = draw(worded(asked.unseen_pairs), 1, seed)
    return Answers(
        named=reader(draw(worded(asked.named), 1, seed)),
        unseen_pairs=reader(unseen),
        bare=reader(draw([as_prompt(meaning).text for meaning in asked.bare], asked.of_bare, seed)),
        grids=unseen.flatten(2).numpy(),
    )


@dataclass(frozen=True)
class Compared:
    """Grids that copies are told by: real pictures of pairs that were never shown, and those of training, of the same
    concepts."""

    real: Int[np.ndarray, "m positions"]
    training: Int[np.ndarray, "k positions"]


def compared(tokenizer: Tokenizer, asked: Sequence[Meaning], real: int = 400, seed: int = 0) -> Compared:
    """`asked`: the prompts that copies are looked for under; they name one of eight concepts each, so that a ninth of
    what is trained on need be encoded."""
    scenes = all_scenes()
    concepts = {meaning.values[CONCEPT] for meaning in asked}
    near = scenes[np.isin(scenes[:, CONCEPT], sorted(c for c in concepts if c is not None))]
    others = np.random.default_rng(seed).permutation(near[in_whole_pairs(near)])[:real]
    return Compared(*(encode_scenes(tokenizer, part).numpy() for part in (others, near[~held_out(near)])))


def tokens_that_differ(
    grids: Int[np.ndarray, "n positions"], others: Int[np.ndarray, "m positions"]
) -> Float[np.ndarray, "n m"]:
    return (grids[:, None] != others[None]).sum(2).astype(float)


def figures_of(found: Answers, asked: Questions, reader: Reader, beside: Compared) -> list[Figure]:
    """All that is read off a generator's pictures, in the order of the table."""
    of_unseen_pairs = respect(asked.unseen_pairs, found.unseen_pairs)
    of_bare = [
        *openness(asked.bare, found.bare, reader.confusions),
        *total_variation(asked.bare, found.bare, reader.confusions),
    ]
    named_always = ATTRIBUTES[CONCEPT].name
    return [
        *respect(asked.named, found.named),
        *(replace(figure, name=f"{figure.name}, {UNSEEN_PAIRS}") for figure in of_unseen_pairs),
        *(figure for figure in of_bare if not figure.name.endswith(named_always)),
        *near_copies(found.grids, beside.real, beside.training, tokens_that_differ),
    ]


def families_apart(found: Mapping[str, Answers], asked: Questions) -> list[Figure]:
    """For each attribute the highest respect less the lowest, of several generators that were asked the same, with the
    interval of the paired difference of these two. The note names them, the higher one first."""
    figures = []
    for attribute in NAMING:
        wanted = np.array([meaning.values[attribute] for meaning in asked.named])[:, None]
        shares = {name: (those.named[:, :, attribute] == wanted).mean(1) for name, those in found.items()}
        ranked = sorted(shares, key=lambda name: -shares[name].mean())
        trials = found[ranked[0]].named.shape[1]
        interval = change_of_share(shares[ranked[0]], shares[ranked[-1]], trials)
        name = f"respect of {ATTRIBUTES[attribute].name}, apart"
        figures.append(Figure(name, interval, f"{ranked[0]} and {ranked[-1]}"))
    return figures
