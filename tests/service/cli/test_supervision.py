"""The supervisor's state machine: every event at every moment, without a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.cli.events import Action, Command, Ended, Event, Heard, Tick, Verb
from service.cli.supervision import RESTART_SECONDS, Phase, State, advance
from service.process import START_FAILED

SILENCE, GRACE = 60.0, 30.0
WANTED = 3


class World:
    """Processes that do as they are told: they serve once started, and end when terminated.

    ``stuck`` ones do nothing but die of SIGKILL.
    """

    def __init__(self, wanted: int = WANTED) -> None:
        self.state = State(wanted=wanted, silence=SILENCE, grace=GRACE)
        self.now = 0.0
        self.alive: dict[int, str] = {}  # number -> starting, serving, ending
        self.stuck: set[int] = set()
        self.done: list[Action] = []
        self.handle(Tick())

    def handle(self, event: Event) -> list[Action]:
        """Let ``event`` happen, and do what is to be done."""
        if isinstance(event, Ended):
            self.alive.pop(event.number, None)
        self.state, actions = advance(self.state, event, self.now)
        self.done += actions
        for action in actions:
            if action.verb is Verb.START:
                assert action.number not in self.alive
                self.alive[action.number] = "starting"
            elif action.verb is Verb.TERMINATE:
                assert action.number in self.alive
                self.alive[action.number] = "ending"
            elif action.verb is Verb.KILL:
                self.alive[action.number] = "killed"
        self.check()
        return actions

    def check(self) -> None:
        """Invariants that hold at every moment."""
        assert {worker.number for worker in self.state.workers} == set(self.alive)
        going_on = [w for w in self.state.workers if w.phase is not Phase.ENDING]
        assert len(going_on) <= max(self.state.wanted, 1) + 1, "at most one more than wanted"
        if self.state.stopping and self.now >= (self.state.drained or 0.0):
            assert not going_on, "all were told to end, at once"

    def live(self) -> None:
        """Every process does its next thing."""
        for number, doing in list(self.alive.items()):
            if doing == "killed":
                self.handle(Ended(number, -9))
            elif number in self.stuck:
                continue
            elif doing == "ending":
                self.handle(Ended(number, 0))
            else:
                self.alive[number] = "serving"
                self.handle(Heard(number, True))

    def settle(self, seconds: float = 2.0) -> None:
        """Let time pass until nothing changes any more, or ``seconds``."""
        end = self.now + seconds
        while self.now < end:
            self.live()
            self.now += 0.5
            self.handle(Tick())

    def serving(self) -> int:
        return sum(doing == "serving" for doing in self.alive.values())

    def count(self, verb: Verb) -> int:
        return sum(action.verb is verb for action in self.done)


def starting(world: World) -> None:
    """Just begun."""


def one_serves(world: World) -> None:
    world.handle(Heard(1, True))


def all_serve(world: World) -> None:
    world.settle()


def one_died(world: World) -> None:
    world.settle()
    world.handle(Ended(1, -9))


def one_died_while_starting(world: World) -> None:
    world.handle(Ended(1, -11))


def one_is_stopped(world: World) -> None:
    world.settle()
    world.stuck.add(1)


def replacement_starts(world: World) -> None:
    world.settle()
    world.handle(Command.RENEW)


def old_one_ends(world: World) -> None:
    world.settle()
    world.handle(Command.RENEW)
    world.handle(Heard(4, True))


def second_replacement_starts(world: World) -> None:
    old_one_ends(world)
    world.handle(Ended(1, 0))


def one_more_starts(world: World) -> None:
    world.settle()
    world.handle(Command.MORE)


def one_too_many_ends(world: World) -> None:
    world.settle()
    world.handle(Command.FEWER)


def stopping(world: World) -> None:
    world.settle()
    world.handle(Command.STOP)


def stopping_before_all_served(world: World) -> None:
    world.handle(Command.STOP)


def stopping_while_renewing(world: World) -> None:
    old_one_ends(world)
    world.handle(Command.STOP)


def one_is_left(world: World) -> None:
    stopping(world)
    world.handle(Ended(1, 0))
    world.handle(Ended(2, 0))


MOMENTS: tuple[Callable[[World], None], ...] = (
    starting,
    one_serves,
    all_serve,
    one_died,
    one_died_while_starting,
    one_is_stopped,
    replacement_starts,
    old_one_ends,
    second_replacement_starts,
    one_more_starts,
    one_too_many_ends,
    stopping,
    stopping_before_all_served,
    stopping_while_renewing,
    one_is_left,
)
EVENTS: dict[str, Callable[[int], Event]] = {
    **{command.name: lambda number, command=command: command for command in Command},  # type: ignore[misc]
    "KILLED": lambda number: Ended(number, -9),
    "CRASHED": lambda number: Ended(number, 1),
    "ENDED": lambda number: Ended(number, 0),
    "REFUSED": lambda number: Ended(number, START_FAILED),
    "SERVES": lambda number: Heard(number, True),
    "LIVES": lambda number: Heard(number, False),
    "TICK": lambda number: Tick(),
}
pairs = pytest.mark.parametrize("event", EVENTS)
moments = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)


def after(moment: Callable[[World], None], event: str) -> list[World]:
    """The worlds in which ``event`` has happened at ``moment``, to each of its workers."""
    worlds = []
    for place in range(6):
        world = World()
        moment(world)
        numbers = sorted(world.alive)
        if place < len(numbers):
            world.handle(EVENTS[event](numbers[place]))
            worlds.append(world)
    assert worlds
    return worlds


@moments
@pairs
def test_it_comes_to_the_number_of_workers_that_is_wanted(
    moment: Callable[[World], None], event: str
) -> None:
    """Or to its end, where it was told to stop, or a worker cannot be started at all."""
    for world in after(moment, event):
        world.stuck.clear()
        world.settle(10)
        if world.state.stopping:
            assert world.state.over
            assert not world.alive
            stopped_before = "stop" in moment.__name__ or moment is one_is_left
            failed = event == "REFUSED" and not stopped_before
            assert world.state.status == (START_FAILED if failed else 0)
        else:
            assert world.serving() == len(world.alive) == world.state.wanted
            assert not world.state.renewing
            assert world.count(Verb.GREET) == 1


@moments
@pairs
def test_a_stop_is_obeyed_at_once_and_nothing_is_started_any_more(
    moment: Callable[[World], None], event: str
) -> None:
    """Whatever came before: even where no worker does what it is told, in the time promised."""
    for world in after(moment, event):
        was_over = world.state.over
        before = world.count(Verb.START)
        began = world.now
        world.handle(Command.STOP)
        assert world.count(Verb.CLOSE) == 1
        world.stuck = set(world.alive)
        assert was_over or world.state.over or world.state.next_deadline(world.now) is not None
        world.live()
        while not world.state.over:
            deadline = world.state.next_deadline(world.now)
            assert deadline is not None
            world.now = max(world.now, deadline)
            world.handle(Tick())
            world.live()
            assert world.now - began <= GRACE
        assert world.count(Verb.START) == before
        assert world.count(Verb.CLOSE) == 1


@moments
def test_a_second_interrupt_kills(moment: Callable[[World], None]) -> None:
    world = World()
    moment(world)
    world.handle(Command.STOP)
    left = set(world.alive)
    killed = {a.number for a in world.handle(Command.ABORT) if a.verb is Verb.KILL}
    assert killed == left
    world.live()
    assert world.state.over


@moments
def test_a_worker_that_dies_is_replaced_though_another_says_nothing(
    moment: Callable[[World], None],
) -> None:
    world = World()
    moment(world)
    if world.state.stopping:
        return
    world.stuck = set(world.alive)
    [dying, *_] = [n for n, doing in world.alive.items() if doing == "serving"] or [0]
    if dying:
        world.handle(Ended(dying, -9))
        going_on = [w for w in world.state.workers if w.phase is not Phase.ENDING]
        assert len(going_on) >= world.state.wanted  # with no time gone by


@moments
def test_a_silent_worker_is_killed_and_replaced(moment: Callable[[World], None]) -> None:
    world = World()
    moment(world)
    if world.state.stopping:
        return
    world.stuck = set(world.alive)
    world.settle(SILENCE + GRACE + 5)
    assert not world.stuck & set(world.alive)
    assert world.serving() == world.state.wanted


def test_one_that_speaks_is_left_alone() -> None:
    world = World()
    world.settle(5 * SILENCE)
    assert world.count(Verb.START) == WANTED
    assert world.count(Verb.KILL) == 0


def test_a_renewal_replaces_all_one_by_one() -> None:
    world = World()
    world.settle()
    world.handle(Command.RENEW)
    fewest = WANTED
    for _ in range(40):
        world.live()
        world.now += 0.5
        world.handle(Tick())
        fewest = min(fewest, world.serving())
        assert len(world.alive) <= WANTED + 1
    assert sorted(world.alive) == [4, 5, 6]
    assert fewest == WANTED
    assert world.count(Verb.KILL) == 0


def test_a_renewal_during_a_renewal_replaces_the_replacements() -> None:
    world = World()
    second_replacement_starts(world)
    world.handle(Command.RENEW)
    world.settle(20)
    assert min(world.alive) > 5
    assert world.serving() == WANTED


@pytest.mark.parametrize("status", [START_FAILED, 1, -9])
def test_a_replacement_that_cannot_start_ends_the_renewal_and_not_the_server(status: int) -> None:
    world = World()
    replacement_starts(world)
    actions = world.handle(Ended(4, status))
    assert [action.verb for action in actions] == [Verb.WARN]
    assert sorted(world.alive) == [1, 2, 3]
    assert not world.state.renewing


def test_a_failed_start_is_not_tried_again() -> None:
    world = World()
    world.handle(Ended(2, START_FAILED))
    world.settle()
    assert world.state.over
    assert world.state.status == START_FAILED
    assert world.count(Verb.START) == WANTED


def test_a_worker_that_dies_while_starting_is_not_started_again_at_once() -> None:
    world = World()
    world.handle(Ended(2, -9))
    assert world.state.next_deadline(world.now) == RESTART_SECONDS
    assert world.count(Verb.START) == WANTED
    world.now = RESTART_SECONDS
    world.handle(Tick())
    assert world.count(Verb.START) == WANTED + 1


def test_the_number_of_workers_can_be_changed() -> None:
    world = World()
    for command, wanted in ((Command.MORE, 4), (Command.FEWER, 3), (Command.FEWER, 2)):
        world.handle(command)
        world.settle()
        assert world.serving() == wanted
    for _ in range(5):
        world.handle(Command.FEWER)
    world.settle()
    assert world.serving() == 1


def test_what_nobody_knows_changes_nothing() -> None:
    world = World()
    world.settle()
    before = replace(world.state)
    for event in (Ended(99, 0), Heard(99, True)):
        assert world.handle(event) == []
    assert world.state == before


DRAIN = 20.0


@pytest.fixture
def draining() -> World:
    """Three workers of which one starts; they were told to stop, and have 20 s until then."""
    world = World()
    world.state = replace(world.state, drain=DRAIN)
    for number in (1, 2):
        world.alive[number] = "serving"
        world.handle(Heard(number, serving=True))
    actions = world.handle(Command.STOP)
    assert [(a.verb, a.number) for a in actions if a.verb is not Verb.INFORM] == [
        (Verb.DRAIN, 1),
        (Verb.DRAIN, 2),
        (Verb.TERMINATE, 3),
    ]
    return world


def closed(actions: list[Action]) -> bool:
    """Tell whether no more connections are taken, and the workers are to end."""
    verbs = [action.verb for action in actions]
    assert verbs.count(Verb.TERMINATE) == 2 * verbs.count(Verb.CLOSE)
    return Verb.CLOSE in verbs


def test_connections_are_taken_until_the_drain_is_over(draining: World) -> None:
    assert draining.state.next_deadline(0.0) == DRAIN
    draining.now = DRAIN - 0.1
    assert not closed(draining.handle(Heard(1, serving=True)))
    assert not closed(draining.handle(Tick()))
    draining.now = DRAIN
    assert closed(draining.handle(Tick()))
    assert not closed(draining.handle(Tick()))


@pytest.mark.parametrize("command", [Command.STOP, Command.ABORT])
def test_a_second_signal_ends_the_drain_and_kills_nobody(draining: World, command: Command) -> None:
    actions = draining.handle(command)
    assert closed(actions)
    assert Verb.KILL not in [action.verb for action in actions]
    killed = [a.number for a in draining.handle(Command.ABORT) if a.verb is Verb.KILL]
    assert killed == [1, 2, 3]


def test_a_worker_that_dies_in_the_drain_is_not_replaced(draining: World) -> None:
    actions = draining.handle(Ended(1, -9))
    assert Verb.START not in [action.verb for action in actions]
    draining.handle(Ended(2, 0))
    draining.handle(Ended(3, 0))
    assert draining.state.over
    assert draining.state.status == 0
