"""`divlens view`. Thin: arguments in, a server that the library makes, its address out."""

from __future__ import annotations

import click

from divlens.report.terminal import put

HOST, PORT = "127.0.0.1", 8765


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--host", default=HOST, show_default=True, help="Where to listen; others than this machine may read it.")
@click.option("--device", help="A torch device on which pictures are made; default: that of the run.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def view(run: str, port: int, host: str, device: str | None, opens: bool) -> None:
    """Show the folder RUN in the browser, however large it is, and also while it is being drawn.

    Pictures are made when one scrolls to them. Ctrl-C ends it.
    """
    from divlens.pages.served import address_of, serve, server_of

    server = server_of(run, host, port, device)
    put(f"{run} is at {address_of(server)} until Ctrl-C\n")
    if opens:
        click.launch(address_of(server))
    serve(server)
