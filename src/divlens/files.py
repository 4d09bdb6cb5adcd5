"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

BESIDE = ".divlens-"  # begins the name of a folder in which something is written before it is put in its place


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Where to write a file that is then put at `path`, in place of what was there. Whoever reads finds the old file or
    the new one, and an error in the block leaves `path` as it was.

    The file has its name from the start, in a folder of its own: several formats go by the name.
    """
    with TemporaryDirectory(prefix=BESIDE, dir=path.parent, ignore_cleanup_errors=True) as folder:
        partial = Path(folder) / path.name
        yield partial
        os.replace(partial, path)
