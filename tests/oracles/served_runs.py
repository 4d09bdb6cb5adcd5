"""A run as `divlens view` serves it, in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from divlens.pages import served


@contextmanager
def serving(run: str | Path, host: str = served.HOST) -> Iterator[str]:
    """Where it is, without the slash at the end."""
    server = served.server_of(run, host, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
