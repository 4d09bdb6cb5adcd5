"""A source of wordings behind an OpenAI-compatible endpoint. The key is read from the environment when a question is
sent, and stands in no file, message or record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from divlens.errors import DivlensError
from divlens.wordings.sources import ASKED, SourceError, lines_of

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # what may pass
LONGEST_WAIT = 60.0  # seconds between two tries, whatever the endpoint asks for
MOST_BYTES = 2**22  # of an answer


class Stay(HTTPRedirectHandler):
    """A redirect would take the key to another address, so it is an error."""

    def redirect_request(self, *given: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """`url`: where /chat/completions is below, such as "http://localhost:8000/v1". `model`: as it calls it. `key`: the
    name of the variable of the environment that holds the key; where it is not set, none is sent. `timeout`: seconds
    of a try. `tries`, `wait`: how often a question is asked that fails for now, and seconds before the second try;
    each further one waits twice as long."""

    url: str
    model: str
    key: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    tries: int = 4
    wait: float = 1.0
    remembered = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DivlensError(f"an endpoint expects an address such as http://localhost:8000/v1, got {self.url!r:.80}")
        if parts.username or parts.password or parts.query:
            raise DivlensError(
                "an endpoint expects its key in the environment, got an address with a user, a password or a query"
            )

    @property
    def identity(self) -> Mapping[str, object]:
        return {"source": "endpoint", "url": self.url, "model": self.model}

    def wordings(self, text: str, count: int) -> Sequence[str]:
        question = [{"role": "user", "content": ASKED.format(count=count, text=text)}]
        body = json.dumps({"model": self.model, "messages": question}).encode()
        for attempt in range(self.tries):
            try:
                return lines_of(self.answer(body))
            except HTTPError as error:
                if error.code not in AGAIN or attempt + 1 == self.tries:
                    raise SourceError(self.said(f"{error.code} {error.reason}")) from None
                self.pause(attempt, error.headers.get("Retry-After", ""))
            except (OSError, HTTPException) as error:  # not there, no answer in time, an answer that breaks off
                if attempt + 1 == self.tries:
                    raise SourceError(self.said(getattr(error, "reason", None) or error)) from None
                self.pause(attempt, "")
        raise SourceError(self.said("no tries"))

    def answer(self, body: bytes) -> str:
        """The text of the first choice. Raises SourceError for what is no answer of a chat."""
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(self.key):
            headers["Authorization"] = f"Bearer {secret}"
        request = Request(f"{self.url.rstrip('/')}/chat/completions", body, headers, method="POST")
        with build_opener(Stay).open(request, timeout=self.timeout) as response:
            content = response.read(MOST_BYTES)
        try:
            found = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            found = None
        if not isinstance(found, str):
            raise SourceError(self.said("an answer without choices[0].message.content"))
        return found

    def pause(self, attempt: int, asked: str) -> None:
        """`asked`: seconds that the endpoint asks for."""
        longer = float(asked) if asked.isdecimal() else 0.0
        time.sleep(min(max(self.wait * 2**attempt, longer), LONGEST_WAIT))

    def said(self, reason: object) -> str:
        """In one line, without the key, which an endpoint may repeat."""
        text, secret = " ".join(str(reason).split())[:200], os.environ.get(self.key)
        return f"expected an answer of {self.url}, got {text.replace(secret, '...') if secret else text}"
