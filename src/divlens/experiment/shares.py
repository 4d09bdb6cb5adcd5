"""A share of a comparison: what one of several machines draws and measures, which know nothing of each other."""

from __future__ import annotations

from divlens.experiment.comparison import Comparison
from divlens.experiment.pieces import pieces_of
from divlens.experiment.workers import draw_on_ray
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.store.draw import drawn, windows
from divlens.store.folder import RunFolder


def draw_share(
    comparison: Comparison,
    command: str,
    folder: RunFolder,
    *,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Draw and measure the share of what is planned that the folder is for, but for what it holds. It gets no tables:
    these are of all shares together. `ray`: see `divlens.probe`."""
    if ray is not None:
        draw_on_ray(comparison, folder, ray, progress=progress, on_batch=on_batch)
    else:
        pieces = pieces_of(comparison.runs, folder.share)
        with followed(progress, on_batch, sum(map(len, pieces)), "") as told:
            for piece in pieces:
                told.describe(f"{piece.run.model.name} {piece.condition}")
                if piece.measured:
                    comparison.measure(piece.run, piece.condition, folder, told.advance)
                else:
                    for place in windows(piece.run, within=piece.place):
                        drawn(piece.run, place, folder, piece.condition, told.advance)
        folder.written()
    folder.complete(command)
