"""Counts of requests, from their entries to the sums over all processes."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry import entry, layout, snapshot, totals
from service.telemetry.counters import GATHERED, Counters
from service.telemetry.entry import BEGAN, LENGTH
from service.telemetry.memory import Table
from service.telemetry.names import PHASES
from service.telemetry.snapshot import Snapshot

ROUTE = "/v1/softmax"
WORK = ("float32", "cpu")


@pytest.fixture
def table() -> Table:
    return Table()


def started(table: Table, routes: tuple[str, ...] = (ROUTE,)) -> tuple[Counters, int]:
    number = table.assign()
    counters = Counters(table, number)
    counters.describe({route: route for route in routes}, {"version": "1"})
    return counters, number


def ended(counters: Counters, times: list[int], *, rows: int = 3, status: int = 200) -> list[int]:
    """An entry whose ten times are ``times``."""
    made = [0] * LENGTH
    route = counters.routes[ROUTE]
    made[: entry.WORK] = (
        route,
        route + layout.STATUS[status],
        0,
        layout.RECEIVED["json"],
        layout.SENT["npz"],
        70,
        80,
    )
    made[entry.WORK : BEGAN] = layout.LOGITS[WORK], 12, 4, rows
    made[BEGAN:] = times
    return made


def times_of(spent: list[int]) -> list[int]:
    """Times at which the phases took what ``spent`` says, one after the other."""
    receive, queue, decode, compute, encode, send = spent
    leased = 1000 + queue
    received = leased + receive
    decoded = received + decode
    computed = decoded + compute
    encoded = computed + encode
    return [
        1000, leased, 0, received, received, decoded, decoded, computed, encoded, encoded + send,
    ]  # fmt: skip


def difference(before: Snapshot, after: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Counts in between: of all routes, and of ROUTE."""
    block = after.routes[ROUTE] - before.routes.get(ROUTE, layout.NOTHING)
    return after.totals - before.totals, block


@given(st.lists(st.lists(st.integers(0, 10**11), min_size=6, max_size=6), min_size=1, max_size=40))
def test_each_phase_is_counted_in_its_bucket_and_its_sum(spent: list[list[int]]) -> None:
    counters, _ = _SHARED
    before = snapshot.taken(counters.table)
    counters.ended += [ended(counters, times_of(each)) for each in spent]
    counters.write()
    counted, block = difference(before, snapshot.taken(counters.table))
    count = len(spent)
    assert block[layout.STATUS[200]] == count
    assert block[layout.ROWS] == 3 * count
    assert block[layout.SPENT] == sum(map(sum, spent))
    for name, column in zip(PHASES, zip(*spent, strict=True), strict=True):
        at = layout.PHASE[name]
        assert block[at + layout.SUM] == sum(column)
        # The first bucket whose bound is not below the value, as Prometheus has it.
        places = Counter(
            next((i for i, bound in enumerate(layout.BOUNDS) if value <= bound), layout.SUM - 1)
            for value in column
        )
        assert block[at : at + layout.SUM].tolist() == [places[i] for i in range(layout.SUM)]
    assert counted[layout.LOGITS[WORK]] == 12 * count
    assert counted[layout.POSITIONS[WORK]] == 4 * count
    assert counted[layout.RECEIVED["json"]] == 70 * count
    assert counted[layout.SENT["npz"]] == 80 * count


_SHARED = started(Table())


def test_nothing_is_lost_where_the_journal_is_added_up(table: Table) -> None:
    """From any number of requests on, the snapshot has all of them, and the sums are theirs."""
    counters, number = started(table)
    rng = random.Random(4)
    expected = total = 0
    for _ in range(200):
        for _ in range(rng.randrange(GATHERED)):
            spent = [rng.randrange(10**6) for _ in PHASES]
            counters.ended.append(ended(counters, times_of(spent)))
            expected, total = expected + 1, total + sum(spent)
        counters.write()
        row = totals.of_row(table.row(number))
        assert row[layout.COUNTED] == expected
        block = row[counters.routes[ROUTE] :]
        assert block[layout.STATUS[200]] == expected
        assert block[layout.DURATION + layout.SUM] == total
    assert expected > 3 * layout.ENTRIES
    table.retire(number)


def test_a_process_that_is_killed_while_it_adds_up_leaves_whole_totals(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters, number = started(table)
    counters.ended += [ended(counters, times_of([1] * 6)) for _ in range(GATHERED)]
    counters.write()
    before = totals.of_row(counters.cells)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(totals, "_add", killed)
    with pytest.raises(Killed):
        totals.add_journal(counters.cells)
    monkeypatch.undo()
    assert np.array_equal(totals.of_row(counters.cells), before)
    # An entry that was only half written is none.
    counters.journal[8 * LENGTH * GATHERED :][:100] = b"x" * 100
    assert np.array_equal(totals.of_row(counters.cells), before)
    totals.add_journal(counters.cells)
    assert np.array_equal(totals.of_row(counters.cells), before)
    table.retire(number)


def test_the_next_process_of_a_row_goes_on_from_its_totals() -> None:
    table = Table()
    counters, number = started(table)
    counters.gauges["connections"] = lambda: 7
    counters.add("kernel_compilations", 2)
    counters.ended.append(ended(counters, times_of([1] * 6)))
    counters.refresh()
    taken = snapshot.taken(table)
    assert taken.gauges["connections"] == 7
    assert len(taken.processes) == 1
    table.retire(number)
    dead = snapshot.taken(table)
    assert dead.gauges["connections"] == 0
    assert dead.processes == []
    assert dead.routes[ROUTE][layout.STATUS[200]] == 1
    assert dead.counters["kernel_compilations"] == 2
    cpu = dead.counters["cpu"]
    # It has another route, too, and one that is not there any more.
    again, same = started(table, ("/v1/new", ROUTE))
    assert same == number
    again.ended.append(ended(again, times_of([1] * 6)))
    again.refresh()
    both = snapshot.taken(table)
    assert both.routes[ROUTE][layout.STATUS[200]] == 2
    assert both.counters["cpu"] >= cpu
    assert both.counters["kernel_compilations"] == 2
    assert both.started == 2


def test_a_row_of_another_version_is_not_read_and_its_successor_starts_from_zero() -> None:
    table = Table()
    counters, number = started(table)
    counters.ended.append(ended(counters, times_of([1] * 6)))
    counters.write()
    table.retire(number)
    area = counters.cells[layout.DESCRIPTION :].cast("B")
    text = bytes(area[: counters.cells[layout.DESCRIBED]])
    other = text.replace(str(layout.VERSION).encode(), b"1" * len(str(layout.VERSION)))
    area[: len(other)] = other
    assert ROUTE not in snapshot.taken(table).routes
    again, _ = started(table)
    assert ROUTE not in snapshot.taken(table).routes
    again.ended.append(ended(again, times_of([1] * 6)))
    again.write()
    assert snapshot.taken(table).routes[ROUTE][layout.STATUS[200]] == 1


def test_more_routes_than_there_is_room_for_count_as_unknown() -> None:
    table = Table()
    counters, _ = started(table, tuple(f"/{number}" for number in range(200)))
    assert len(set(counters.routes.values())) == layout.MOST_ROUTES
    assert counters.routes["/199"] == counters.unknown != counters.routes["/0"]


def test_processes_of_all_rows_can_run() -> None:
    table = Table()
    numbers = {table.assign() for _ in range(128)}
    assert numbers == set(range(128))
    with pytest.raises(RuntimeError, match="128"):
        table.assign()
    table.retire(70)
    assert table.assign() == 70
