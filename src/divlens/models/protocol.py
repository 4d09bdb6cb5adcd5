"""What a model is to the loop: text to conditions, a state to logits, a token grid to pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError, is_number, is_whole
from divlens.paths import PathRule
from divlens.types import Prompt, View

MOST_POSITIONS = 2**16  # of a grid: Emu3, the largest published one, has 8100


@runtime_checkable
class Predictor(Protocol):
    """Logits for a batch whose conditions are fixed; may keep a key-value cache, so steps come in order."""

    def __call__(self, view: View) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
        """Conditional logits at the positions of the view, and unconditional ones when guidance asks for them."""
        ...


@runtime_checkable
class Model(Protocol):
    """A generator of token grids. The library owns the loop; this is all a model supplies.

    name: unique, goes into results. codes: size K of the codebook; ids are in [0, K). mask: the id of an empty
    position. grid: (h, w). rule, guidance: the published defaults; a model whose published sampling keeps only the
    k most probable codes has that k as `top_k`, one that has a temperature or a top-p has it as `temperature` or
    `top_p`, and one whose conditions do not tell the precision that it computes in has it as `dtype`.
    """

    @property
    def name(self) -> str: ...
    @property
    def codes(self) -> int: ...
    @property
    def mask(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def rule(self) -> PathRule: ...
    @property
    def guidance(self) -> float: ...

    def encode(self, wordings: Sequence[str]) -> Tensor:
        """Conditions (wordings, ...), one row each. Raises DivlensError for a wording that is too long."""
        ...

    def predictor(self, conditions: Tensor, guided: bool) -> Predictor:
        """Ready for one batch: `conditions` has a row per sample. `guided`, given by name, says that unconditional
        logits are needed."""
        ...

    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        """Pictures in [0, 1], float32, on the CPU."""
        ...

    def frequencies(self) -> Float[Tensor, " codes"] | None:
        """How often each code comes out over a calibration set, when the model ships that; else None."""
        ...

    def calibration_prompts(self) -> Sequence[str]:
        """Prompts for a calibration run when `frequencies` is None."""
        ...


def missing(part: object, protocol: type) -> list[str]:
    """Members of the protocol that `part` lacks."""
    return sorted(member for member in vars(protocol) if not (member.startswith("_") or hasattr(part, member)))


def check_model(model: Model) -> None:
    """Raises DivlensError for what is no model, and for one whose parts do not fit each other."""
    for part, protocol in ((model, Model), (getattr(model, "rule", None), PathRule)):
        if lacking := missing(part, protocol):
            kind = "model" if protocol is Model else "path rule"
            raise DivlensError(f"expected a {kind}, got {part!r:.80}, which lacks {', '.join(lacking)}")
    name, codes, mask, rule, grid = model.name, model.codes, model.mask, model.rule, model.grid
    if len(grid) != 2 or not all(is_whole(side) and side > 0 for side in grid):
        raise DivlensError(f"{name} expects a grid of two whole numbers, (h, w), got {grid}")
    if math.prod(grid) > MOST_POSITIONS:
        raise DivlensError(f"{name} expects a grid of at most {MOST_POSITIONS} positions, got {grid}")
    if not is_whole(codes):
        raise DivlensError(f"{name} expects a whole number of codes, got {codes!r}")
    if not is_number(model.guidance):
        raise DivlensError(f"{name} expects a number as guidance, got {model.guidance!r}")
    if not is_whole(mask) or 0 <= mask < codes:
        raise DivlensError(f"{name} expects a mask that is a whole number and no code, got {mask} of {codes} codes")
    for member, own in (("codes", codes), ("positions", math.prod(grid))):
        if (fits := getattr(rule, member, own)) != own:
            raise DivlensError(f"{name} expects a rule for its {own} {member}, got one for {fits}")


@runtime_checkable
class Identified(Protocol):
    """A model that says what it consists of; then its fingerprint is known, and what is measured of it can be kept."""

    def identity(self) -> Mapping[str, object]:
        """All on which draws and pictures depend: tensors, texts, numbers, and lists and mappings of these (a network
        of one's own as its `state_dict()`). Not the name, the device or the batch size, which change neither.

        It must be defined by the model's own class: one that inherits it counts as one that has none."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A model whose text encoder reads `limit` tokens of a wording at most."""

    @property
    def limit(self) -> int: ...

    def lengths(self, wordings: Sequence[str]) -> Sequence[int]:
        """Tokens of each wording, before any cut."""
        ...


@runtime_checkable
class Tokenizing(Protocol):
    """A model whose tokenizer reads pictures, too."""

    def encode_pictures(self, pictures: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        """The tokens of pictures, in the size of those that it draws, float32 in [0, 1]."""
        ...


@runtime_checkable
class NoisyDecoding(Protocol):
    """A model whose decoder draws noise of its own: one token grid is many pictures. `decode` fixes that noise in a way
    of its own. The decoder of a model without this member draws none."""

    def decode_under(self, tokens: Int[Tensor, "batch h w"], keys: Sequence[int]) -> Float[Tensor, "batch 3 H W"]:
        """Pictures as those of `decode`, each under the noise of its key, of 96 bits: a picture is a function of its
        tokens and its key, and other keys are independent noise (see `divlens.noise.decoder_normal`)."""
        ...


@runtime_checkable
class Quantizing(Protocol):
    """A model that shows what its codes stand for."""

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        """The vector of each code, as near to each other as they are alike to its decoder."""
        ...


@runtime_checkable
class Lexical(Protocol):
    """A model that knows some words only, and reads all others alike."""

    def unknown_words(self, wordings: Sequence[str]) -> Sequence[Sequence[str]]:
        """The words of each wording that it does not know, each once. `encode` refuses a wording of such words only."""
        ...

    def near_words(self, words: Sequence[str]) -> Sequence[str]:
        """Words that it knows and that one of `words` may have been meant for; may be empty."""
        ...


@runtime_checkable
class Templated(Protocol):
    """A model with templates of its own for the wordings of a prompt that has no paraphrases."""

    @property
    def paraphrase_templates(self) -> Sequence[str]:
        """Texts with `{}` in the prompt's place, in which the prompt means the same to this model; most models need
        none and get those of `divlens.paraphrase`."""
        ...


@runtime_checkable
class Prompted(Protocol):
    """A model that comes with prompts of its own: whoever asks for the text of one asks for its paraphrases, too."""

    @property
    def own_prompts(self) -> Sequence[Prompt]: ...


@runtime_checkable
class Rewording(Protocol):
    """A model that knows other wordings of a text itself."""

    def prompt_of(self, text: str) -> Prompt | None:
        """The text with its paraphrases, and the concept where there is one; None where the model knows none."""
        ...
