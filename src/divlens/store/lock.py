"""One writer for a run. The lock is the system's own, so a process that died holds it no longer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from divlens.errors import DivlensError
from divlens.store.place import Place, writing
from divlens.store.record import now

LOCK, HOLDER = ".lock", ".holder.json"


@contextmanager
def only_writer(place: Place) -> Iterator[None]:
    """While the block runs, no other process of this machine writes the run.

    Raises DivlensError, which says who writes it and since when. On an object store there is no lock.
    """
    if place.local is None:
        yield
        return
    from filelock import FileLock, Timeout

    with writing(place.path):
        place.local.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.local / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise DivlensError(f"{place} is being written by {holder(place)}") from None
    try:
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
        place.write(HOLDER, json.dumps(about).encode())
        place.sweep()
        yield
    finally:
        with suppress(DivlensError):  # who wrote is of no interest then
            place.remove(HOLDER)
        lock.release()


def holder(place: Place) -> str:
    try:
        found = json.loads(place.read(HOLDER))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (DivlensError, FileNotFoundError, ValueError, TypeError, KeyError):
        return "another process"
