"""What a model answers, looked at where it is asked: what does not fit is refused in one line that names the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.protocol import Model, NoisyDecoding, Predictor, Prompted, Quantizing, Rewording, check_model
from divlens.models.registry import load
from divlens.models.room import Room
from divlens.pictures import PictureError, checked_pictures
from divlens.prompts import distinct_prompts
from divlens.showing import counted
from divlens.types import Prompt, View


def loaded_model(model: str | Model) -> Model:
    """The model of a name, or the model itself. Raises DivlensError for several, an unknown name, and what is none."""
    if isinstance(model, Sequence) and not isinstance(model, str):
        raise DivlensError(f"expected one model, got a list of {len(model)}: call it once for each")
    found = load(model) if isinstance(model, str) else model
    check_model(found)
    return found


def loaded_models(models: str | Model | Sequence[str | Model]) -> list[Model]:
    """The models of names: one, or several. Raises DivlensError for none, an unknown one, and the same one twice."""
    several = models if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    loaded = [loaded_model(model) for model in several]
    if not loaded:
        raise DivlensError("expected at least one model, got none")
    names = [model.name for model in loaded]
    if len(set(names)) < len(names):
        raise DivlensError(f"expected different models, got {', '.join(names)}")
    return loaded


def own_prompts_of(model: Model) -> Sequence[Prompt]:
    """The prompts that a model brings. Raises DivlensError for anything but a list of them."""
    found = model.own_prompts if isinstance(model, Prompted) else ()
    if not (isinstance(found, Sequence) and all(isinstance(one, Prompt) for one in found)):
        raise DivlensError(f"{model.name} expects own_prompts as a list of divlens.Prompt, got {found!r:.80}")
    return found


def asked_prompts(models: Sequence[Model], prompts: Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """What is asked of the models together: different prompts, with the paraphrases that the models bring. Raises
    DivlensError for none, for an empty one, and for one that comes twice."""
    return with_own_paraphrases(models, distinct_prompts(prompts))


def with_own_paraphrases(models: Sequence[Model], prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts; where one is no more than a text that a model has among its own prompts, or knows other wordings of,
    it is the model's, with its paraphrases. Of several models the first that has it tells."""
    own = {one.text: one for model in reversed(models) for one in own_prompts_of(model)}

    def known(prompt: Prompt) -> Prompt:
        if prompt != Prompt(prompt.text):
            return prompt
        reworded = (reworded_by(model, prompt.text) for model in models)
        return own.get(prompt.text) or next(filter(None, reworded), prompt)

    return tuple(map(known, prompts))


def reworded_by(model: Model, text: str) -> Prompt | None:
    """The text with the paraphrases that a model knows. Raises DivlensError for anything but a prompt of this text."""
    found = model.prompt_of(text) if isinstance(model, Rewording) else None
    if found is not None and not (isinstance(found, Prompt) and found.text == text):
        raise DivlensError(
            f"{model.name} expects prompt_of to give a divlens.Prompt of the same text, got {found!r:.80}"
        )
    return found


@torch.inference_mode()
def pictures_of(
    model: Model, tokens: Int[Tensor, "batch h w"], room: Room, keys: Sequence[int] | None = None
) -> Float[Tensor, "batch 3 H W"]:
    """The pictures of token grids, float32 in [0, 1], on the CPU, as many decoded at once as there is `room` for.

    `keys`: of a model that is NoisyDecoding, one for each grid; None leaves the decoder's noise to the model. Raises
    PictureError for anything else.
    """

    def decoded(part: slice) -> Tensor:
        grids = tokens[part]
        found = model.decode(grids) if keys is None else cast(NoisyDecoding, model).decode_under(grids, keys[part])
        return checked_pictures(found, f"the pictures of {model.name}", len(grids)).cpu()

    first, *others = (pictures for _, pictures in room.parts(max(len(tokens), 1), decoded))  # no grids are one part
    return torch.cat([first, *others]) if others else first  # one part is not copied


def check_same_size(model: Model, pictures: Float[Tensor, "batch 3 H W"], before: Float[Tensor, "n 3 h w"]) -> None:
    """Raises PictureError unless the pictures of two batches have one size."""
    if pictures.shape[1:] != before.shape[1:]:
        one, other = (" x ".join(map(str, some.shape[2:])) for some in (before, pictures))
        raise PictureError(f"expected all pictures of {model.name} in one size, got {one} and {other} pixels")


@torch.inference_mode()
def conditions_of(model: Model, wordings: Sequence[str]) -> Tensor:
    """A row of conditions per wording. Raises DivlensError for anything else, and for NaN."""
    found = model.encode(list(wordings))
    expected = f"{model.name} expects to encode {counted(len(wordings), 'wording')} as a tensor with a row for each"
    if not isinstance(found, Tensor):
        raise DivlensError(f"{expected}, got {type(found).__name__}")
    if found.ndim == 0 or len(found) != len(wordings):
        raise DivlensError(f"{expected}, got shape {tuple(found.shape)}")
    if bool(found.isnan().any()):
        raise DivlensError(f"{model.name} expects to encode wordings as numbers, got NaN")
    return found


def frequencies_that_ship(model: Model) -> Float[Tensor, " codes"] | None:
    """How often each code comes out, float64, summing to 1; None where the model does not say.

    Raises DivlensError for anything but a tensor of numbers of at least 0, one per code and not all 0.
    """
    found = model.frequencies()
    if found is None:
        return None
    expected = f"{model.name} expects frequencies as a tensor ({model.codes},) of numbers of at least 0, not all 0"
    if not isinstance(found, Tensor):
        raise DivlensError(f"{expected}, got {type(found).__name__}")
    if tuple(found.shape) != (model.codes,) or found.is_complex():
        raise DivlensError(f"{expected}, got {str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}")
    share = found.detach().cpu().double()
    if not bool(share.isfinite().all()) or bool((share < 0).any()) or not bool((share > 0).any()):
        raise DivlensError(f"{expected}, got values in [{float(share.min()):g}, {float(share.max()):g}]")
    return share / share.sum()


def code_vectors_of(model: Quantizing) -> Float[Tensor, "codes d"]:
    """The vector of each code. Raises DivlensError for anything but a table of finite numbers, a row for each."""
    found, name, codes = model.code_vectors, getattr(model, "name", "?"), getattr(model, "codes", 0)
    expected = f"{name} expects code_vectors as a tensor ({codes}, d) of finite numbers"
    if not isinstance(found, Tensor):
        raise DivlensError(f"{expected}, got {type(found).__name__}")
    if found.ndim != 2 or len(found) != codes or not found.is_floating_point():
        raise DivlensError(f"{expected}, got {str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}")
    if not bool(found.isfinite().all()):
        raise DivlensError(f"{expected}, got some that are not")
    return found.detach()


def calibration_prompts_of(model: Model) -> Sequence[str]:
    """The prompts of a calibration run. Raises DivlensError for anything but a list of texts, at least one."""
    found = model.calibration_prompts()
    listed = isinstance(found, Sequence) and not isinstance(found, str)
    if not (listed and found and all(isinstance(text, str) and text.strip() for text in found)):
        raise DivlensError(f"{model.name} expects calibration prompts as a list of texts, got {found!r:.80}")
    return found


def checked_predictor(model: Model, predictor: Predictor, guided: bool) -> Predictor:
    """The predictor; what it gives is refused where it is not a logit for each code at each position asked for, or
    lacks the unconditional ones that guidance needs."""

    def call(view: View) -> tuple[Tensor, Tensor | None]:
        found, expected = predictor(view), (len(view.tokens), view.count, model.codes)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor)):
            kinds = [type(part).__name__ for part in found] if isinstance(found, tuple) else type(found).__name__
            raise DivlensError(
                f"{model.name} expects to give tensors (conditional, unconditional or None), got {kinds}"
            )
        if guided and found[1] is None:
            raise DivlensError(f"{model.name} has no unconditional logits, which guidance expects: use Guidance(1.0)")
        for logits in found:
            if logits is not None and tuple(logits.shape) != expected:
                raise DivlensError(f"{model.name} expects to give logits {expected}, got {tuple(logits.shape)}")
        return found

    return call
