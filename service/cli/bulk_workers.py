"""Workers of ``lossd score`` for many shards: how many, where, and the size of their pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from service.bulk import work
from service.bulk.cuts import LARGEST, SENT, Size, exactly, shared
from service.bulk.executors import processes
from service.bulk.executors.here import Here
from service.bulk.executors.processes import Processes
from service.bulk.extras import extra
from service.bulk.files import is_url, suffix
from service.bulk.journal import size_in
from service.bulk.part import parts_of
from service.bulk.plan import Plan
from service.cli import fail
from service.cli.bulk_options import Asked, journals_of
from service.middleware.auth import tokens_in
from service.process import cores
from service.settings import SettingsError

# Bytes of logits for which starting processes, a second in all, is not worth it: of shards that are
# fetched, or inflated on the one thread that reads, and of those that are mapped.
_FEW_BYTES, _FEW_MAPPED = 1 << 31, 1 << 34
_MAPPED = (".safetensors", ".npy")
# Pieces in flight for each worker: the next one is there when one is done.
_EACH = 2
# Workers that pieces are cut for: of each part, alike on machines of more cores and of fewer, whose
# plans are one; of each server; of a cluster, whose workers come and go.
_OF_PART, _OF_SERVER, _OF_CLUSTER = 4, 2, 256


def size_of(asked: Asked, locations: Sequence[str]) -> Callable[[int], Size]:
    """Size of pieces, by the bytes of logits in all of the shards. Raises ``InvalidOption``.

    Where none is asked for, it is that of the journal, or of the first to be merged.
    """
    if asked.piece_bytes is not None:
        size = exactly(asked.piece_bytes)
        return lambda total: size
    journals = journals_of(asked.merge) if asked.merge is not None else []
    for path in filter(None, [asked.journal, *journals]):
        if (kept := size_in(path)) is not None:
            return lambda total: kept
    largest = LARGEST if asked.servers is None else SENT
    parts = 0 if asked.part is None else parts_of(asked.part)[1]
    return lambda total: shared(total, _workers(asked, locations, total, parts), largest)


def _workers(asked: Asked, locations: Sequence[str], total: int, parts: int) -> int:
    """Workers that ``total`` bytes are shared by."""
    if parts:
        return _OF_PART * parts
    if asked.servers is not None:
        return _OF_SERVER * len(asked.servers.split(","))
    if asked.scheduler is not None and asked.scheduler != "dask":
        return _OF_CLUSTER
    if asked.scheduler is not None:
        return asked.workers or cores.available()
    return processes_for(asked, locations, total)


def processes_for(asked: Asked, locations: Sequence[str], total: int) -> int:
    """Processes that score ``total`` bytes of logits; 0 for this one, with all threads.

    It is 0 where this one is done before others would have started.
    """
    if asked.workers is not None:
        return asked.workers
    mapped = all(not is_url(place) and suffix(place) in _MAPPED for place in locations)
    return 0 if total < (_FEW_MAPPED if mapped else _FEW_BYTES) else cores.available()


def executor_of(plan: Plan, asked: Asked) -> tuple[Executor, int]:
    """Executor that was asked for, its kernels compiled, and the pieces to be in flight there."""
    places = {
        "--workers": asked.workers, "--scheduler": asked.scheduler, "--servers": asked.servers
    }  # fmt: skip
    chosen = [option for option, value in places.items() if value is not None]
    if len(chosen) > 1 and (asked.servers is not None or asked.scheduler != "dask"):
        raise fail(f"{' and '.join(chosen)} exclude each other: give one")
    if asked.scheduler is not None:
        from service.bulk.executors.dask import Dask

        address = None if asked.scheduler == "dask" else asked.scheduler
        dask = Dask(address, plan.samples(), asked.workers or cores.available())
        return dask, dask.workers * _EACH
    if asked.servers is not None:
        with extra("bulk", "--servers"):
            from service.bulk.executors.servers import Servers

        if plan.job.report:
            raise fail("--servers do not make reports: use --workers or --scheduler")
        servers = Servers([url.strip() for url in asked.servers.split(",")], _token(asked))
        return servers, servers.workers * _EACH
    work.prepare(plan.samples())
    sources = plan.sources
    total = sum(source.rows * source.row_bytes for source in sources)
    workers = processes_for(asked, [source.location for source in sources], total)
    if workers == 0:
        return Here(), 1
    return Processes(workers), workers * processes.EACH


def _token(asked: Asked) -> str | None:
    """Token that servers ask for. Raises ``typer.Exit`` for a file that holds none."""
    if asked.token_file is None:
        return None
    try:
        return tokens_in(str(asked.token_file), f"--token-file {asked.token_file}")[0]
    except SettingsError as error:
        raise fail(str(error)) from None
