"""`view`: the page of a run from a server on this machine: pictures are made when one scrolls to them, and a run that
is still being drawn is followed."""

from __future__ import annotations

import json
import re
import socket
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from divlens.errors import DivlensError, is_whole
from divlens.fidelity import judge_of
from divlens.models.answers import pictures_of
from divlens.models.room import Room
from divlens.output import Record
from divlens.pages.embedding import webp_of
from divlens.pages.gallery import Budget, Extent, Gallery, Row
from divlens.pages.page import html_of, page_scripts, policy_for
from divlens.pages.report import check_packages, contents
from divlens.pages.stored import different_grids, right_of, rows_under, samples_of
from divlens.sheets import to_picture
from divlens.store.asked import prompts_of
from divlens.store.reader import StoredRun, open_run

HOST, PORT = "127.0.0.1", 8765
KEPT = 2000  # pictures, in memory
AHEAD = 32  # pictures that are made at once
MOST_PICTURES = 100_000  # named in a page
PAGES = 2  # of which pictures can be asked for: the last one, and the one before it, which is still open somewhere
NAMES = ("localhost", "127.0.0.1", "[::1]")
EVERYWHERE = {"0.0.0.0", "::", "[::]"}
HOST_HEADER = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:/\[\]]+)(:(?P<port>[0-9]{1,5}))?")
PAGE, PICTURE, TEXT = "text/html; charset=utf-8", "image/webp", "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Source:
    """What a picture is made of."""

    model: str
    tokens: Int[np.ndarray, " positions"]

    @property
    def key(self) -> tuple[str, bytes]:
        return self.model, self.tokens.tobytes()


@dataclass
class Viewed:
    """A run that is looked at. `last`: the page that was made last, and how much of the run was there. `pages`: the
    sources of the pictures of the last pages, by the number of the page."""

    place: str
    device: str | None = None
    run: StoredRun | None = None
    number: int = 0
    last: tuple[Record, str] | None = None
    pages: dict[int, list[Source]] = field(default_factory=dict)
    made: OrderedDict[tuple[str, bytes], bytes] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def opened(self) -> StoredRun:
        """The run as it is now; models that were loaded stay."""
        found = open_run(self.place)
        if self.run is not None:
            found.models = self.run.models
        self.run = found
        return found

    def state(self) -> Record:
        """How much is there."""
        run = open_run(self.place)
        return {"samples": run.sizes[0], "unfinished": run.unfinished}

    def page(self) -> str:
        """The page as it is now. Raises DivlensError for a run of which nothing was asked."""
        with self.lock:
            state = self.state()
            if self.last is None or self.last[0] != state:
                run, self.number = self.opened(), self.number + 1
                sources: list[Source] = []
                galleries = partial(lazy_gallery, sources, self.number)
                page = contents(run, MOST_PICTURES, self.device, 0, galleries=galleries)
                self.pages = dict([*self.pages.items(), (self.number, sources)][-PAGES:])
                self.last = state, html_of(page, follow=state)
            return self.last[1]

    def picture(self, number: int, place: int) -> bytes | None:
        """A picture of a page as WebP; None for another page or place."""
        with self.lock:
            sources = self.pages.get(number, [])
            if not 0 <= place < len(sources):
                return None
            source = sources[place]
            if source.key not in self.made:
                self.make(source, sources[place : place + AHEAD])
            self.made.move_to_end(source.key)
            while len(self.made) > KEPT:
                self.made.popitem(last=False)
            return self.made[source.key]

    @torch.inference_mode()
    def make(self, wanted: Source, nearby: Sequence[Source]) -> None:
        """Make a picture, and with it those of its model that stand `nearby`: whoever scrolls asks for them next, and
        several at once cost little more than one."""
        assert self.run is not None, "a page was made"
        alike = {one.key: one for one in (wanted, *nearby) if one.model == wanted.model and one.key not in self.made}
        model = self.run.model(wanted.model, self.device)
        where = self.device or self.run.setup(wanted.model)["device"]
        grids = np.stack([one.tokens for one in alike.values()])
        tokens = torch.from_numpy(grids).view(-1, *model.grid).to(where)
        for key, picture in zip(alike, pictures_of(model, tokens, Room(AHEAD)), strict=True):
            self.made[key] = webp_of(to_picture(picture))


def lazy_gallery(
    sources: list[Source], page: int, run: StoredRun, request: Record, most: int, device: str | None
) -> Gallery:
    """As `stored.gallery_of`, of all samples that are there; nothing is decoded, and nothing measured. `sources` gets
    what each picture is made of."""
    prompts, n, conditions = prompts_of(request), request["n"], list(request["conditions"])
    budget = Budget(len(prompts), n, len(request["models"]) * len(conditions), most)
    rows: list[Row] = []
    missing: list[str] = []
    for name in request["models"]:
        try:
            model = run.model(name, device)
        except DivlensError as error:
            missing.append(f"No pictures of {name}: {error}.")
            continue
        judge = judge_of(model)
        everything = samples_of(run, name, None, conditions, budget.extent.samples)
        for prompt in prompts[: budget.extent.prompts]:
            found: Any = everything[everything["prompt"] == prompt.text]
            if not len(found):
                continue
            grids, grid_of = different_grids(found)
            images = range(len(sources), len(sources) + len(grids))
            sources += [Source(name, grid) for grid in grids]
            right = right_of(judge, prompt, list(found["judged"]))
            place = run.prompts.index(prompt.text)
            rows += [row for row, _ in rows_under(conditions, found, name, prompt, place, images, grid_of, right)]
    return Gallery(
        rows=tuple(rows),
        images=tuple(f"/picture/{page}/{place}" for place in range(len(sources))),
        extent=Extent(budget.extent.prompts, budget.extent.samples) if rows else Extent(),
        prompts=budget.prompts,
        n=n,
        missing=tuple(missing),
    )


class Answers(BaseHTTPRequestHandler):
    """What a browser is answered. Another host's name is refused: a page elsewhere that makes its name point here would
    read the run otherwise."""

    server_version, sys_version, protocol_version = "divlens", "", "HTTP/1.1"
    timeout = 60.0  # seconds without a word, after which a connection is closed
    viewed: Viewed
    names: frozenset[str]

    def handle(self) -> None:
        with suppress(ConnectionError):  # who scrolls on hangs up on the pictures that were passed
            BaseHTTPRequestHandler.handle(self)

    def do_GET(self) -> None:
        if not self.is_meant():
            self.answer(403, TEXT, b"another host's name")
            return
        try:
            status, kind, content = self.found()
        except DivlensError as error:  # the run is not there any more, say
            status, kind, content = 503, TEXT, str(error).encode(errors="backslashreplace")
        self.answer(status, kind, content)

    do_HEAD = do_GET

    def is_meant(self) -> bool:
        """Whether the request names the host that listens. Where it listens at every address, any address will do: no
        other page can be where an address itself is asked for."""
        found = HOST_HEADER.fullmatch(self.headers.get("Host", "").lower())
        _, port, *_ = self.connection.getsockname()
        if found is None or int(found["port"] or 80) != port:
            return False
        return found["name"] in self.names or (not EVERYWHERE.isdisjoint(self.names) and is_address(found["name"]))

    def found(self) -> tuple[int, str, bytes]:
        parts = self.path.partition("?")[0].strip("/").split("/")
        match parts:
            case [""]:
                return 200, PAGE, self.viewed.page().encode()
            case ["state"]:
                return 200, "application/json", json.dumps(self.viewed.state()).encode()
            case ["picture", page, place] if is_number(page) and is_number(place):
                content = self.viewed.picture(int(page), int(place))
                if content is not None:
                    return 200, PICTURE, content
        return 404, TEXT, b"not here"

    def answer(self, status: int, kind: str, content: bytes) -> None:
        policy = policy_for(page_scripts(), served=True) if kind == PAGE else "default-src 'none'"
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "max-age=3600" if kind == PICTURE else "no-store",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal is the user's."""


def is_number(text: str) -> bool:
    """Whether a part of an address is the number of a page or a picture."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def is_address(name: str) -> bool:
    """Whether this is an address, as IPv4 or in brackets as IPv6, and no name."""
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def server_of(run: str | Path, host: str = HOST, port: int = PORT, device: str | None = None) -> ThreadingHTTPServer:
    """A server for a run, which listens already. Port 0 is any that is free.

    Raises DivlensError where there is no run or nothing was asked of it, for an address that cannot be used, such as a
    port that is in use, and where the extra `report` is not installed.
    """
    check_packages()
    if not is_whole(port) or not 0 <= port < 2**16:
        raise DivlensError(f"view expects a port from 0 to 65535, got {port!r:.40}")
    if not host:
        raise DivlensError("view expects the name or the address of a host, got an empty one")
    if not open_run(run).requests:
        raise DivlensError(f"{run} holds no command yet: there is nothing to view")
    name = in_address(host)
    names = frozenset({*NAMES, name.lower()})
    handler = type("AnswersOfARun", (Answers,), {"viewed": Viewed(str(run), device), "names": names})
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = type("Server", (ThreadingHTTPServer,), {"address_family": family})
    try:
        return listening((host, port), handler)
    except (OSError, UnicodeError) as error:  # a name that cannot be one is a UnicodeError
        reason = getattr(error, "strerror", None) or error
        raise DivlensError(f"cannot listen at {name}:{port}: {reason}; name another --host or --port") from error


def in_address(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def address_of(server: ThreadingHTTPServer) -> str:
    """Where a browser on this machine finds what a server serves."""
    host = str(server.server_address[0])
    return f"http://{HOST if host in EVERYWHERE else in_address(host)}:{server.server_port}/"


def serve(server: ThreadingHTTPServer) -> None:
    """Until Ctrl-C."""
    with server, suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.2)
