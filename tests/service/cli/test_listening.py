"""The socket: taken, left behind, or somebody else's by now."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import typer

from service.cli.listening import is_open, is_ready, listening
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


@pytest.mark.parametrize("name", ["x" * 200, "no/such/folder"])
def test_a_path_that_cannot_be_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), listening(unix(tmp_path / name)):
        pass
    assert "cannot listen on" in capsys.readouterr().err


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
