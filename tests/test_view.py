"""`divlens view`: a run from a server of this machine: its page, its pictures one by one, and what is new."""

import base64
import io
import json
import re
import shutil
import socket
import struct
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import divlens
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.pages import report as report_module
from divlens.pages import served
from oracles.served_runs import serving

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")
PROMPTS = ["a cat", "<script>snow</script>"]
CONDITIONS = {"baseline": [], "hot": divlens.Temperature(1.5)}


def probed(folder: Path, n: int = 3) -> str:
    divlens.probe("toy/mim", PROMPTS, n, conditions=CONDITIONS, out=folder)
    return str(folder)


def asked(address: str, host: str | None = None, method: str = "GET") -> tuple[int, str, bytes]:
    request = urllib.request.Request(address, method=method, headers={} if host is None else {"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def data_in(page: bytes) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.decode(), re.S)
    assert found is not None
    return json.loads(found[1])


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_page_names_its_pictures_and_each_is_the_one_that_a_report_embeds(tmp_path):
    run = probed(tmp_path / "run")
    embedded = report_module.contents(divlens.open_run(run), 1000, None, 0)
    with serving(run) as address:
        status, kind, page = asked(f"{address}/")
        data = data_in(page)
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"data:image/webp" not in page and b"<script>snow" not in page
        assert len(data["rows"]) == len(embedded.data["rows"]) == 4
        seen = set()
        for row, wanted in zip(data["rows"], embedded.data["rows"], strict=True):
            same = ("model", "condition", "prompt", "place", "done", "distinct", "command")
            assert {name: row[name] for name in same} == {name: wanted[name] for name in same}
            for picture, whole in zip(row["pictures"], wanted["pictures"], strict=True):
                assert (picture["tokens"], picture["twin"]) == (whole["tokens"], whole["twin"])
                status, kind, content = asked(address + data["images"][picture["image"]])
                stands = embedded.data["images"][whole["image"]]
                assert (status, kind) == (200, "image/webp")
                assert content == base64.b64decode(stands.partition(",")[2])
                seen.add(content)
        assert len(seen) > 4  # the control: pictures differ


def test_what_is_not_there_is_404_and_another_hosts_name_is_refused(tmp_path):
    with serving(probed(tmp_path / "run")) as address:
        asked(f"{address}/")
        for path in (
            "/picture/1/99",
            "/picture/7/0",
            "/picture/1/-1",
            "/picture/1/x",
            "/run.json",
            "/../run.json",
            "/x",
        ):
            assert asked(address + path)[0] == 404
        assert asked(f"{address}/picture/1/0")[0] == 200  # the control
        assert asked(f"{address}/", host="evil.example:80")[0] == 403
        assert asked(f"{address}/state", host="evil.example")[0] == 403
        assert asked(f"{address}/", host=f"localhost:{address.rpartition(':')[2]}")[0] == 200
        status, _, content = asked(f"{address}/picture/1/0", method="HEAD")
        assert status == 200 and content == b""
        assert asked(f"{address}/", method="POST")[0] == 501


def test_a_host_is_meant_by_its_name_and_port_alone(tmp_path):
    with serving(probed(tmp_path / "run")) as address:
        port = address.rpartition(":")[2]
        for host in (f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert asked(f"{address}/state", host=host)[0] == 200
        for host in ("", "localhost", "localhost:1", "[", f"localhost.evil.example:{port}", f"192.0.2.1:{port}"):
            assert asked(f"{address}/state", host=host)[0] == 403


def test_where_it_listens_everywhere_an_address_is_meant_and_another_name_is_not(tmp_path):
    with serving(probed(tmp_path / "run"), "0.0.0.0") as address:
        port = address.rpartition(":")[2]
        for host, status in (("192.0.2.1", 200), ("[2001:db8::1]", 200), ("a.example", 403), ("1.a.example", 403)):
            assert asked(f"{address}/state", host=f"{host}:{port}")[0] == status


def test_nobody_else_may_frame_or_embed_what_is_served(tmp_path):
    with serving(probed(tmp_path / "run")) as address:
        page = urllib.request.urlopen(f"{address}/", timeout=20)
        meta = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.read().decode())
        assert meta is not None
        assert page.headers["Content-Security-Policy"] == f"{meta[1]}; frame-ancestors 'none'"
        picture = urllib.request.urlopen(f"{address}/picture/1/0", timeout=20)
        assert picture.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert picture.headers["Cross-Origin-Resource-Policy"] == page.headers["Cross-Origin-Resource-Policy"]
        assert picture.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        for name, value in (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")):
            assert page.headers[name] == picture.headers[name] == value


def test_who_hangs_up_and_a_run_that_is_gone_leave_no_traceback(tmp_path, capfd):
    run = probed(tmp_path / "run")
    with serving(run) as address:
        port = int(address.rpartition(":")[2])
        for _ in range(3):  # to reset the connection while the page is being sent
            with socket.create_connection(("127.0.0.1", port)) as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                browser.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
                browser.recv(1)
        assert asked(f"{address}/picture/1/{'9' * 5000}")[0] == 404
        assert asked(f"{address}/")[0] == 200  # the control
        shutil.rmtree(run)
        for path in ("/", "/state"):
            status, kind, content = asked(address + path)
            assert (status, kind) == (503, "text/plain; charset=utf-8")
            assert b"expected the folder of a run" in content and content.count(b"\n") == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_that_grows_is_followed(tmp_path):
    run = probed(tmp_path / "run", n=2)
    with serving(run) as address:
        before = data_in(asked(f"{address}/")[2])
        assert before["follow"] == json.loads(asked(f"{address}/state")[2]) == {"samples": 8, "unfinished": []}
        probed(tmp_path / "run", n=3)
        assert json.loads(asked(f"{address}/state")[2])["samples"] == 12
        after = data_in(asked(f"{address}/")[2])
        assert [len(row["pictures"]) for row in after["rows"]] == [3] * 4
        old = asked(address + before["images"][0])  # a page that is still open somewhere
        assert old[0] == 200 and old[2] == asked(address + after["images"][0])[2]
        assert data_in(asked(f"{address}/")[2]) == after  # nothing is made twice
        probed(tmp_path / "run", n=4)
        asked(f"{address}/")
        assert asked(address + before["images"][0])[0] == 404


def test_pictures_are_made_once_together_and_few_are_kept(tmp_path, monkeypatch):
    made: list[int] = []
    usual = served.pictures_of
    monkeypatch.setattr(served, "pictures_of", lambda *given: made.append(len(given[1])) or usual(*given))
    viewed = served.Viewed(probed(tmp_path / "run"))
    viewed.page()
    grids = len({source.key for source in viewed.pages[1]})
    pictures = [viewed.picture(1, place) for place in range(len(viewed.pages[1]))]
    assert made == [grids] and len(set(pictures)) > 4  # all of them with the first
    monkeypatch.setattr(served, "KEPT", 2)
    monkeypatch.setattr(served, "AHEAD", 1)
    assert [viewed.picture(1, place) for place in range(len(viewed.pages[1]))] == pictures
    assert len(viewed.made) == 2 and len(made) > 2  # dropped, and the same when they were made again


def test_a_report_asks_nobody_and_a_served_page_its_server_alone(tmp_path):
    run = probed(tmp_path / "run")
    page = divlens.report(run, tmp_path / "page.html").read_text()
    policy = "img-src data: blob:; base-uri"
    assert policy in page and "connect-src" not in page
    served_page = served.Viewed(run).page()
    assert "img-src 'self' data: blob:; connect-src 'self'; base-uri" in served_page and policy not in served_page


def test_bad_input_is_a_line(tmp_path, capsys):
    run = probed(tmp_path / "run")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, said in (
            ([run, "--port", port], f"cannot listen at 127.0.0.1:{port}: Address already in use; name another --"),
            ([str(tmp_path / "nowhere")], "expected the folder of a run"),
            ([run, "--port", "70000"], "70000 is not in the range"),
        ):
            with pytest.raises(SystemExit) as stopped:
                main(["view", *arguments])
            error = capsys.readouterr().err
            assert stopped.value.code == 2 and said in error and "Traceback" not in error
            assert error.startswith("Usage: ") or error.count("\n") == 1
    with pytest.raises(DivlensError, match="view expects a port from 0 to 65535, got -1"):
        served.server_of(run, port=-1)
    with pytest.raises(DivlensError, match="view expects the name or the address of a host"):
        served.server_of(run, "", 0)
    for host, shown in (("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "[2001:db8::1]"), ("a" * 70 + ".b", "aaa")):
        with pytest.raises(DivlensError, match=re.escape(f"cannot listen at {shown}")):
            served.server_of(run, host, 0)


def test_the_command_says_where_it_is_opens_it_when_asked_and_ends_with_ctrl_c(tmp_path, capsys, monkeypatch):
    launched: list[str] = []

    def interrupted(server: Any, poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(served.ThreadingHTTPServer, "serve_forever", interrupted)
    monkeypatch.setattr("click.launch", launched.append)
    run = probed(tmp_path / "run")
    for arguments, times in (([], 0), (["--open"], 1)):
        main(["view", run, "--port", "0", *arguments])
        found = re.search(rf"{re.escape(run)} is at (http://127\.0\.0\.1:\d+/) until Ctrl-C", capsys.readouterr().out)
        assert found and launched == [found[1]] * times
