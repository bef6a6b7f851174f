"""Shards of every format, in this process, on Dask and by servers: the bits of one accumulator."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest

from service.bulk import work
from service.bulk.executors import ExecutorLost
from service.bulk.executors.dask import Dask
from service.bulk.executors.here import Here
from service.bulk.executors.servers import Servers
from service.bulk.run import Outcome
from service.bulk.work import PieceError, score_piece
from service.errors import InvalidOption
from tests.service.bulk.executors import corpus
from tests.service.bulk.executors.corpus import Interrupted, plan_of, run_on, sums_of


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return corpus.make(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def here(shards: list[str]) -> bytes:
    """Bytes of the total of a run in this process, whose sums are an accumulator's."""
    outcome = run_on(Here(), plan_of(shards))
    assert sums_of(outcome) == corpus.sums(shards)
    return total_of(outcome)


def total_of(outcome: Outcome) -> bytes:
    assert outcome.failures == []
    return outcome.total.to_bytes()


@pytest.fixture(scope="module")
def dask(shards: list[str]) -> Iterator[Dask]:
    """A cluster of two processes, the most that this machine is good for."""
    with Dask(None, plan_of(shards).samples(), workers=2) as executor:
        yield executor


@pytest.fixture
def servers(live_server: httpx.URL) -> Iterator[Servers]:
    """A fleet of two, which are one server under two names."""
    with Servers([str(live_server), str(live_server).replace("127.0.0.1", "localhost")]) as fleet:
        yield fleet


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_on_dask(dask: Dask, shards: list[str], here: bytes, rows: int) -> None:
    assert total_of(run_on(dask, plan_of(shards, rows), dask.workers)) == here


def test_dask_is_ready_before_it_computes(dask: Dask) -> None:
    def threads() -> tuple[str, int]:
        import numba

        return os.environ["NUMBA_NUM_THREADS"], numba.get_num_threads()

    assert dask.workers == 2
    assert dask.submit(threads).result() == ("1", 1)


def test_a_killed_worker_of_dask_loses_and_repeats_nothing(
    dask: Dask, shards: list[str], here: bytes
) -> None:
    plan = plan_of(shards, 1)
    victim = dask.submit(os.getpid).result()
    killing = Interrupted(dask, plan.pieces // 2, lambda: os.kill(victim, signal.SIGKILL))
    outcome = run_on(killing, plan, 6)
    assert total_of(outcome) == here
    assert outcome.finished == plan.pieces


def test_a_scheduler_that_goes_away_ends_the_run_which_goes_on_elsewhere(
    shards: list[str], here: bytes, tmp_path: Path
) -> None:
    from distributed import LocalCluster
    from distributed.core import Status

    plan, journal = plan_of(shards, 1), tmp_path / "journal"
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
        protocol="tcp",
    )

    def gone() -> None:
        assert cluster.scheduler is not None
        cluster.sync(cluster.scheduler.close)

    try:
        with Dask(cluster.scheduler_address, plan.samples()) as executor:
            assert executor.workers == 16
            with pytest.raises(ExecutorLost, match=r"scheduler at tcp://127.* is gone; a run with"):
                run_on(Interrupted(executor, plan.pieces // 2, gone), plan, 2, journal)
    finally:
        with suppress(TimeoutError):  # it asks its scheduler first
            cluster.close(timeout=0.2)
        cluster.status = Status.closed  # it is, as far as it can be: its end warns otherwise
    outcome = run_on(Here(), plan, journal=journal)
    assert total_of(outcome) == here
    assert outcome.finished == plan.pieces


def test_what_is_no_scheduler_is_an_option_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.bulk.executors import dask

    monkeypatch.setattr(dask, "_CONNECT", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "???"):
        with pytest.raises(InvalidOption, match="no Dask scheduler can be reached at") as raised:
            Dask(address)
        assert raised.value.field == "scheduler"


@pytest.mark.parametrize("rows", [1, 100])
def test_by_servers(servers: Servers, shards: list[str], here: bytes, rows: int) -> None:
    assert servers.workers == 4
    assert total_of(run_on(servers, plan_of(shards, rows), servers.workers)) == here
    assert servers.fleet.repeated == 0


def test_a_label_that_a_server_refuses_is_named_in_its_shard(
    servers: Servers, tmp_path: Path
) -> None:
    import numpy as np

    labels = np.zeros(9, np.int64)
    labels[7] = 5
    np.savez(tmp_path / "odd.npz", logits=np.zeros((9, 3), np.float32), labels=labels)
    plan = plan_of([str(tmp_path / "odd.npz")], 1)
    task = plan.task(plan.pieces - 1)
    reasons = []
    for executor in (Here(), servers):
        with pytest.raises(PieceError) as raised:
            executor.submit(score_piece, task).result()
        reasons.append(str(raised.value))
    assert reasons[0] == reasons[1]
    assert "7" in reasons[0]


def test_an_end_by_force_leaves_requests_and_takes_no_more(
    live_server: httpx.URL, shards: list[str]
) -> None:
    plan = plan_of(shards)
    servers = Servers([str(live_server)])
    futures = [servers.submit(score_piece, plan.task(number)) for number in range(plan.pieces)]
    servers.shutdown(wait=True, cancel_futures=True)
    for future in futures:
        with suppress(PieceError, work.PieceError):
            assert future.cancelled() or future.result()
    with pytest.raises(RuntimeError):
        servers.submit(score_piece, plan.task(0))


def test_servers_score_pieces_and_nothing_else(servers: Servers) -> None:
    with pytest.raises(ValueError, match="servers score pieces"):
        servers.submit(len, b"")
