"""Respect and openness of each generator of the laboratory at several guidance scales and numbers of steps.

    python studies/zoo_settings.py > studies/zoo_settings.txt

The packaged defaults were chosen by this table. Its prompts are drawn with another seed than those of `divlens zoo
evaluate`, so that what is reported there was not chosen by. Wants about ten minutes of a core. [95% interval].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from divlens.fidelity.judge import load_judge
from divlens.lab.captions import as_prompt
from divlens.lab.evaluation import openness, respect
from divlens.models.zoo import adapter
from divlens.models.zoo.adapter import ZooModel, diffusion_rule, tokenizer_from
from divlens.paths import ConfidenceUnmasking
from divlens.showing import interval_text
from divlens.zoo.scene_evaluate import Reader, drawing, questions, worded

VALIDATION = 1  # the seed of the prompts
RESPECT = ("concept", "style", "background", "size", "place")
OPENNESS = ("style", "background", "size", "place")


@dataclass(frozen=True)
class Setting:
    name: str
    model: ZooModel


def settings() -> Iterator[Setting]:
    for scale in (1.5, 2.0, 3.0, 4.0):
        yield Setting(f"ar, guidance {scale:g}", replace(adapter.load("ar"), guidance=scale))
    mim = adapter.load("mim")
    for scale in (1.5, 2.0, 3.0):
        yield Setting(f"mim, guidance {scale:g}", replace(mim, guidance=scale))
    for steps in (8, 32):
        rule = ConfidenceUnmasking(steps=steps, temperature=(2.0, 0.0))
        yield Setting(f"mim, {steps} steps", replace(mim, rule=rule))
    diffusion = adapter.load("diffusion")
    for scale in (1.5, 2.0, 3.0):
        yield Setting(f"diffusion, guidance {scale:g}", replace(diffusion, guidance=scale))
    yield Setting("diffusion, 12 steps", replace(diffusion, rule=diffusion_rule(12)))


def main() -> None:
    judge = load_judge()
    reader = Reader(tokenizer_from(None, "cpu"), judge.network, judge.confusions)
    asked = questions(named=128, unseen_pairs=8, bare=12, of_bare=16, seed=VALIDATION)
    heads = [*(f"respect {name}" for name in RESPECT), *(f"open {name}" for name in OPENNESS)]
    print(f"{'':22}" + " ".join(f"{head:>18}" for head in heads) + "  %")
    for setting in settings():
        draw = drawing(setting.model)
        named = respect(asked.named, reader(draw(worded(asked.named), 1, VALIDATION)))
        bare = reader(draw([as_prompt(meaning).text for meaning in asked.bare], asked.of_bare, VALIDATION))
        by_name = {figure.name: figure for figure in (*named, *openness(asked.bare, bare, reader.confusions))}
        wanted = [*(f"respect of {name}" for name in RESPECT), *(f"openness of {name}" for name in OPENNESS)]
        cells = [interval_text(by_name[name].interval, ".0f", 100) for name in wanted]
        print(f"{setting.name:22}" + " ".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
