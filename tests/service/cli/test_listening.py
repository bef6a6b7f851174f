"""The socket: taken, left behind, or somebody else's by now."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import sys
from pathlib import Path

import pytest
import typer

from service.cli.listening import _LONGEST_PATH, is_open, is_ready, listening, report_mode
from service.settings import Settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lossd.sock"


def unix(path: Path) -> Settings:
    return Settings(uds=str(path))


def test_the_file_of_a_unix_socket_is_there_as_long_as_it_listens(path: Path) -> None:
    before = os.umask(0o027)
    try:
        with listening(unix(path)) as bound, socket.socket(socket.AF_UNIX) as client:
            assert bound.address == str(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o750
            client.connect(str(path))
    finally:
        os.umask(before)
    bound.socket.close()
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(unix(path)) as bound, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.socket.close()


@pytest.mark.parametrize("backlog", [0, 128])
def test_a_socket_where_somebody_listens_is_left_alone(
    path: Path, backlog: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(backlog)
        client.connect(str(path))  # and with no backlog, the queue is full
        with pytest.raises(typer.Exit), listening(unix(path)):
            pass
        assert path.exists()
    assert f"cannot listen on {path}: Address already in use" in capsys.readouterr().err


def test_another_kind_of_file_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(typer.Exit), listening(unix(path)):
        pass
    assert path.read_text() == "precious"


def test_what_is_another_servers_by_now_is_left_alone(path: Path) -> None:
    with listening(unix(path)) as bound:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    bound.socket.close()
    assert path.exists()
    path.unlink()
    with listening(unix(path)) as bound:
        path.unlink()
    bound.socket.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 200, " bytes, and 10"),
        ("é" * 60, " bytes, and 10"),
        ("a\0b", "NUL"),
        ("no/such/folder", "No such file"),
    ],
)
def test_a_path_that_cannot_be_is_refused(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), listening(unix(tmp_path / name)):
        pass
    line = capsys.readouterr().err
    assert "cannot listen on" in line
    assert said in line
    assert line.count("\n") == 1
    assert len(line) < 200


def test_a_path_is_bound_up_to_its_longest(path: Path) -> None:
    # The kernel's own limit, where it is not the one that is told.
    room = _LONGEST_PATH - len(str(path.parent)) - 1
    if room < 1:
        pytest.skip("the temporary folder's name is too long")
    with listening(unix(path.parent / ("x" * room))) as bound:
        bound.socket.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is bound")
@pytest.mark.parametrize("relative", [False, True])
def test_a_socket_that_is_bound_and_does_not_listen_yet_is_left_alone(
    path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path.name if relative else str(path))
        with pytest.raises(typer.Exit), listening(unix(path)):
            pass
        other.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert "Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("umask", "level", "said"),
    [
        (0o077, logging.INFO, "0700, which the umask has left: its user alone"),
        (0o007, logging.INFO, "0770, which the umask has left: its user and its group"),
        (0o000, logging.WARNING, "0777, which the umask has left: every user"),
    ],
)
def test_who_may_connect_is_told(
    path: Path, umask: int, level: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = os.umask(umask)
    try:
        with listening(unix(path)) as bound, caplog.at_level(logging.INFO):
            report_mode(bound)
        bound.socket.close()
    finally:
        os.umask(before)
    [record] = caplog.records
    assert record.levelno == level
    assert said in record.getMessage()


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux's")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_once_shut_it_begins_no_connection_and_keeps_those_that_wait(host: str) -> None:
    with (
        listening(Settings(host=host, port=0)) as bound,
        socket.create_connection(bound.address[:2]) as waiting,
    ):
        bound.shut()
        with socket.socket(bound.socket.family) as late:
            late.setblocking(False)
            with pytest.raises(BlockingIOError):
                late.connect(bound.address)
            waiting.sendall(b"?")
            accepted, _ = bound.socket.accept()
            with accepted:
                assert accepted.recv(1) == b"?"
                accepted.sendall(b"!")
                assert waiting.recv(1) == b"!"
            # It is told so once nobody listens any more: not that somebody did, and went away.
            bound.socket.close()
            select.select([], [late], [], 60)
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_once_shut_a_unix_socket_is_found_by_nobody(path: Path) -> None:
    with listening(unix(path)) as bound, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        bound.shut()
        assert not path.exists()
        accepted, _ = bound.socket.accept()
        accepted.close()
    bound.socket.close()


def test_two_servers_do_not_share_a_port() -> None:
    with listening(Settings(port=0)) as bound:
        taken = Settings(port=bound.address[1])
        with pytest.raises(typer.Exit), listening(taken):
            pass
    bound.socket.close()


def test_who_can_reach_it() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        assert is_open((host, 80))
    for address in (("127.0.0.1", 80), ("127.1.2.3", 80), ("::1", 80, 0, 0), "lossd.sock"):
        assert not is_open(address)


def test_nobody_there_is_not_ready(path: Path) -> None:
    assert not is_ready(str(path))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = bound.getsockname()
    assert not is_ready(address)
