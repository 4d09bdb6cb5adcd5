"""Every test: seeded, offline, shapes checked, with a cache of its own and its share of the cores."""

import os
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from inspect import isclass
from typing import Any, get_args

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import AbstractArray

# Before any subprocess of a test: libraries that would ask a hub answer from their cache or fail at once.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "")
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

torch.set_num_threads(max(1, (os.cpu_count() or 1) // _WORKERS))


def mentions_shape(hint: Any) -> bool:
    """Whether a type hint has a shape, Float[Tensor, "batch n"], anywhere in it."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(mentions_shape(part) for part in (hint if isinstance(hint, list) else get_args(hint)))


def shapes_only(function: Callable) -> Callable:
    """Check the shapes in a signature at every call (see `--jaxtyping-packages` in pyproject.toml), and no more.

    The other hints are pyright's, and some cannot be checked at run time: protocols, Self, names that a module imports
    for the type checker alone. `function` is jaxtyping's own copy of the signature, so it may be changed.
    """
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if mentions_shape(hint)}
    return beartype(function)


def has_shapes(written: Any) -> bool:
    """Whether the hints of a function, or of the fields of a dataclass, have a shape; written as texts, they are read
    where the function stands, and what cannot be read there jaxtyping cannot check either."""
    function: Any = written.__init__ if isclass(written) else written
    names = vars(sys.modules[written.__module__])
    for hint in getattr(function, "__annotations__", {}).values():
        with suppress(Exception):
            if mentions_shape(eval(hint, names) if isinstance(hint, str) else hint):
                return True
    return False


EVERY_CALL, THEN_ONE_IN = 64, 16  # of a function in a test: a loop calls it ten thousand times with the same shapes
CALLS: Counter[Callable] = Counter()


def only_where_shapes_are(jaxtyped: Callable) -> Callable:
    """jaxtyping wraps every function, and each call of a wrapped one costs much: at every call of every function that
    was more than half of the suite's time. So functions that name no shape are left as they are, and of the others the
    first calls in a test are checked, and a part of those that follow."""

    def decorator(*, typechecker: Any) -> Callable:
        def decorated(written: Any) -> Any:
            if not has_shapes(written):
                return written
            if not isclass(written):
                return sometimes(jaxtyped(written, typechecker=typechecker), written)
            plain = written.__init__
            written.__init__ = sometimes(jaxtyped(written, typechecker=typechecker).__init__, plain)
            return written

        return decorated

    return decorator


def sometimes(checked: Callable, written: Callable) -> Callable:
    @wraps(written)
    def called(*given: Any, **named: Any) -> Any:
        CALLS[written] = count = CALLS[written] + 1
        is_checked = count <= EVERY_CALL or count % THEN_ONE_IN == 0
        return (checked if is_checked else written)(*given, **named)

    return called


jaxtyping.jaxtyped = only_where_shapes_are(jaxtyping.jaxtyped)  # before any module of divlens is imported


@pytest.fixture(autouse=True)
def first_calls_are_checked():
    CALLS.clear()


class NetworkInTestError(RuntimeError):
    """A test reached for the network. No OSError: code that copes with a lost connection must not swallow it."""


def _refuse_elsewhere(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and name not in LOCAL_HOSTS:
        raise NetworkInTestError(f"expected a test to stay on this machine, it asked for {name!r}")


@pytest.fixture(scope="session", autouse=True)
def offline():
    """Connections and name look-ups that leave this machine are errors, in this process."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(original):
        def call(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_elsewhere(address[0])
            return original(self, address)

        return call

    def guarded_getaddrinfo(host, *args, **kwargs):
        _refuse_elsewhere(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    """For fixtures that outlive a test: they, too, never see the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIVLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def cache_of_the_test(cache_of_the_session, tmp_path_factory, monkeypatch):
    """A fresh cache: what one test calibrated, another does not find."""
    monkeypatch.setenv("DIVLENS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def colours_for_lpips(monkeypatch):
    """LPIPS on the colours alone, for speed."""
    # Not above: the package is checked by what stands in this file.
    from oracles.colour_network import colour_network

    network = colour_network()
    places = {"experiment.comparison": "load_network", "decompose": "network_of"}
    for module, loader in places.items():
        # Not by the module's path: divlens.enhance is a function.
        monkeypatch.setattr(import_module(f"divlens.{module}"), loader, lambda name=None: network)


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """Networks of few weights lose time to threads, and very much of it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, where this machine has one."""
    from oracles.browser import BROWSER  # not above: the package is checked by what stands in this file

    if BROWSER is None:
        pytest.skip("needs Chromium: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def counted(monkeypatch):
    """The samples that were drawn for folders, batch by batch, as numbers of rows."""
    from divlens.store import draw  # not above: the package is checked by what stands in this file

    drawn, fill = [], draw.fill

    def counting(run):
        for batch in fill(run):
            drawn.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(draw, "fill", counting)
    return drawn


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder: exit code, stdout, stderr."""
    from divlens.cli import main  # not above: the package is checked by what stands in this file

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
