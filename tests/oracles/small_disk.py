"""A disk that gets full or read-only, for real where the system lets one be mounted, else by refusing each write."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from divlens.store import place


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


class SmallDisk:
    """A file system of its own at `path`; the kilobytes of a file system in memory, in pages of four."""

    def __init__(self, path: Path, kilobytes: int) -> None:
        self.path, self.over = path, list[Path]()
        path.mkdir()
        self.works = mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path))

    def grow(self) -> None:
        assert mount("-o", "remount,size=64m", str(self.path))

    @contextmanager
    def read_only(self, folder: Path) -> Iterator[None]:
        """Nothing can be written in a folder, which is there all the same."""
        assert mount("--bind", str(folder), str(folder)) and mount("-o", "remount,bind,ro", str(folder))
        self.over.append(folder)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.over.pop())], check=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)


class RefusedWrites:
    """The same without a right to mount: the function that writes all files refuses them."""

    def __init__(self, path: Path, kilobytes: int) -> None:
        path.mkdir()
        self.path, self.left, self.closed = path, kilobytes * 1024, list[Path]()
        self.patch = pytest.MonkeyPatch()
        write = place.write_beside

        def limited(where: Path, content: bytes) -> None:
            if any(where.is_relative_to(folder) for folder in self.closed):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if len(content) > self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= len(content)
            write(where, content)

        self.patch.setattr(place, "write_beside", limited)

    def grow(self) -> None:
        self.left = 1 << 26

    @contextmanager
    def read_only(self, folder: Path) -> Iterator[None]:
        self.closed.append(folder)
        try:
            yield
        finally:
            self.closed.pop()

    def close(self) -> None:
        self.patch.undo()


@contextmanager
def small_disk(path: Path, kilobytes: int, *, mounted: bool = True) -> Iterator[SmallDisk | RefusedWrites]:
    """A disk at `path`; one that only refuses writes unless it is to be `mounted` and can be."""
    disk = SmallDisk(path, kilobytes) if mounted else None
    if disk is None or not disk.works:
        disk = RefusedWrites(path if disk is None else path / "folder", kilobytes)
    try:
        yield disk
    finally:
        disk.close()
