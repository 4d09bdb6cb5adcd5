"""Where the files of a run are: in a folder of this machine, or under any address that fsspec knows (`s3://...`).

A file is there whole or not at all. On this machine it is written beside its place and then renamed; an object store
does the same by itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from divlens.errors import DivlensError
from divlens.files import BESIDE, written_beside
from divlens.output import put_in_place, resolved


class Place:
    """A folder, by its path or address. Names of files are relative to it, with "/" between their parts."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        near = self.path.removeprefix("file://")
        self.local = None if "://" in near else resolved(Path(near))
        self.files: Any = None  # the file system of fsspec, where this is no folder of the machine
        self.root = ""
        if self.local is None:
            self.files, self.root = remote(self.path)

    def __str__(self) -> str:
        return self.path

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none, and DivlensError where the system refuses."""
        try:
            if self.local:
                return (self.local / name).read_bytes()
            with elsewhere(f"read {self}/{name}"):
                return self.files.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            raise
        except NotADirectoryError:
            raise DivlensError(f"a run needs a folder, got the file {self}") from None
        except OSError as error:
            raise DivlensError(f"cannot read {self}/{name}: {error.strerror or error}") from error

    def address(self, name: str) -> str:
        """The path of a file, or its address with the protocol: as other libraries open it."""
        return str(self.local / name) if self.local else self.files.unstrip_protocol(f"{self.root}/{name}")

    def open(self, name: str) -> IO[bytes]:
        """A file, to be read in parts. Raises FileNotFoundError where there is none."""
        return (self.local / name).open("rb") if self.local else self.files.open(f"{self.root}/{name}", "rb")

    def size(self, name: str) -> int:
        """Bytes of a file. Raises FileNotFoundError where there is none."""
        return (self.local / name).stat().st_size if self.local else int(self.files.size(f"{self.root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Put a file in its place, over what was there. Raises DivlensError where the system refuses."""
        with writing(self.path):
            if self.local:
                write_beside(self.local / name, content)
            else:
                with elsewhere(f"write to {self}"):
                    self.files.pipe_file(f"{self.root}/{name}", content)

    def names(self, folder: str = "") -> list[str]:
        """The names of the files in a folder, sorted, without hidden ones: those that are being written, the lock."""
        if self.local:
            within = self.local / folder
            found = [entry.name for entry in os.scandir(within)] if within.is_dir() else []
        else:
            within = f"{self.root}/{folder}".rstrip("/")
            listed = []
            with elsewhere(f"read {self}"), suppress(FileNotFoundError):
                self.files.invalidate_cache()
                listed = self.files.ls(within, detail=False)
            found = [path.rstrip("/").rpartition("/")[2] for path in listed]
        return sorted(name for name in found if not name.startswith("."))

    def has(self, name: str) -> bool:
        if self.local:
            return (self.local / name).exists()
        with elsewhere(f"read {self}"):
            self.files.invalidate_cache()
            return bool(self.files.exists(f"{self.root}/{name}"))

    def remove(self, name: str) -> None:
        with writing(self.path):
            if self.local:
                (self.local / name).unlink(missing_ok=True)
            else:
                with elsewhere(f"write to {self}"), suppress(FileNotFoundError):
                    self.files.rm_file(f"{self.root}/{name}")

    def clear(self) -> None:
        """Remove all of it."""
        with writing(self.path):
            if self.local:
                shutil.rmtree(self.local, ignore_errors=True)
            else:
                with elsewhere(f"write to {self}"), suppress(FileNotFoundError):
                    self.files.rm(self.root, recursive=True)

    def put_folder(self, source: Path, name: str) -> None:
        """The folder `source`, which goes, in place of the folder `name`; on this machine all of it at once."""
        with writing(self.path):
            if not self.local:
                with elsewhere(f"write to {self}"):
                    if self.has(name):
                        self.files.rm(f"{self.root}/{name}", recursive=True)
                    self.files.put(f"{source}/", f"{self.root}/{name}/", recursive=True)
                return
            target = self.local / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=BESIDE, dir=target.parent, ignore_cleanup_errors=True) as beside:
                new, old = Path(beside) / "new", Path(beside) / "old"
                shutil.copytree(source, new)
                put_in_place(new, target, old)

    def check_writable(self) -> None:
        """Raises DivlensError for a folder of this machine that cannot be made or written to."""
        if self.local:
            above = next(path for path in (self.local, *self.local.parents) if path.exists())
            try:  # permissions do not tell: nobody can write to some file systems
                tempfile.TemporaryDirectory(prefix=BESIDE, dir=above).cleanup()
            except OSError as error:
                raise DivlensError(
                    f"a run needs a folder that can be written to, got {self}: {error.strerror}"
                ) from None

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written. To be called by the only one who writes here."""
        if self.local:
            for path in list(self.local.rglob(f"{BESIDE}*")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remote(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises DivlensError for one that cannot be used."""
    import fsspec

    protocol = address.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DivlensError(f"a run at {protocol}:// needs a package that is not there: {line_of(error)}") from None
    except Exception as error:  # of whichever package opens it
        raise DivlensError(
            f"a run needs a folder or an address, such as s3://...; {address}: {line_of(error)}"
        ) from error
    return files, root.rstrip("/")


@contextmanager
def elsewhere(doing: str) -> Iterator[None]:
    """What another machine says when it refuses, in one line, whatever its package raises: no credentials, no route.
    That a file is not there is left to the caller."""
    try:
        yield
    except (FileNotFoundError, DivlensError):
        raise
    except Exception as error:
        raise DivlensError(f"cannot {doing}: {line_of(error)}") from error


def line_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def writing(path: str) -> Iterator[None]:
    """What the system says when it refuses to write, in one line."""
    try:
        yield
    except OSError as error:
        raise DivlensError(f"cannot write to {path}: {error.strerror or error}") from error


def write_beside(path: Path, content: bytes) -> None:
    """Through a file beside it, whose content has reached the disk before it takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
