"""State machine of the supervisor: states of worker processes, without I/O.

``advance`` records an event, and then compares the workers with those that are wanted. So every
event is allowed at any moment, and none waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from service.cli.events import Action, Command, Ended, Event, Heard, Verb
from service.process import START_FAILED

# Seconds until a worker that ended before it was ready is started again.
RESTART_SECONDS = 1.0


class Phase(Enum):
    """Phase of a worker: it starts, serves, or was told to end."""

    STARTING = 1
    SERVING = 2
    ENDING = 3


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker process; it is killed at ``deadline``. ``replaces`` is another worker's number."""

    number: int
    deadline: float
    phase: Phase = Phase.STARTING
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """State of the supervisor.

    A worker may be silent for ``silence`` seconds, and take ``grace`` seconds to end. When all are
    to end, those that serve go on for ``drain`` seconds first.
    """

    wanted: int
    silence: float
    grace: float
    drain: float = 0.0
    workers: tuple[Worker, ...] = ()
    renewing: tuple[int, ...] = ()  # numbers of the workers that are yet to be replaced
    last: int = 0  # the number that was given last
    not_before: float = 0.0  # when the next worker may be started
    greeted: bool = False
    stopping: bool = False
    aborting: bool = False
    drained: float | None = None  # when the drain is over, once it has begun
    closed: bool = False
    status: int = 0

    @property
    def over(self) -> bool:
        """True once nothing is left to be done."""
        return self.stopping and not self.workers

    def next_deadline(self, now: float) -> float | None:
        """The next time at which ``Tick`` changes something, if there is one."""
        times = [worker.deadline for worker in self.workers]
        if now < self.not_before:
            times.append(self.not_before)
        if self.drained is not None and now < self.drained:
            times.append(self.drained)
        return min(times, default=None)


Step: TypeAlias = tuple[State, list[Action]]


def advance(state: State, event: Event, now: float) -> Step:
    """Return the state after ``event`` at the time ``now``, and the actions to carry out."""
    actions: list[Action] = []
    if isinstance(event, Command):
        state, actions = _commanded(state, event, now)
    elif isinstance(event, Heard):
        state = _heard(state, event, now)
    elif isinstance(event, Ended):
        state, actions = _ended(state, event, now)
    for step in (_stop, _kill_late, _renew, _resize, _greet):
        state, more = step(state, now)
        actions += more
    return state, actions


def _commanded(state: State, command: Command, now: float) -> Step:
    if command in (Command.STOP, Command.ABORT):
        return _told_to_stop(state, command, now)
    if state.stopping:
        return state, []
    if command is Command.RENEW:
        renewing = tuple(w.number for w in state.workers if w.phase is not Phase.ENDING)
        return replace(state, renewing=renewing), [_log("the workers are replaced one by one")]
    wanted = max(1, state.wanted + (1 if command is Command.MORE else -1))
    return replace(state, wanted=wanted), [_log(f"the number of workers is to be {wanted}")]


def _told_to_stop(state: State, command: Command, now: float) -> Step:
    if state.drained is None and state.drain:
        state = replace(state, stopping=True, drained=now + state.drain)
        actions = [_log(f"connections are taken for {state.drain:g} s more")]
        for worker in state.workers:
            if worker.phase is Phase.SERVING:
                actions.append(Action(Verb.DRAIN, worker.number))
            elif worker.phase is Phase.STARTING:
                state, more = _terminate(state, worker, now)
                actions += more
        return state, actions
    # The second one ends the drain, and no more than that.
    aborting = command is Command.ABORT and (state.drained or now) <= now
    return replace(state, stopping=True, aborting=state.aborting or aborting, drained=now), []


def _heard(state: State, event: Heard, now: float) -> State:
    worker = _worker(state, event.number)
    if worker is None or worker.phase is Phase.ENDING:
        return state  # its deadline stays
    phase = Phase.SERVING if event.serving else worker.phase
    return _put(state, replace(worker, phase=phase, deadline=now + state.silence))


def _ended(state: State, event: Ended, now: float) -> Step:
    gone = _worker(state, event.number)
    if gone is None:
        return state, []
    extra = _is_extra(state, gone)
    state = replace(state, workers=tuple(worker for worker in state.workers if worker is not gone))
    if gone.phase is Phase.ENDING or state.stopping:
        return state, []
    what = f"worker {gone.number} ended with status {event.status}"
    if gone.phase is Phase.SERVING:
        return state, [_log(f"{what}: another is started")]
    if extra:
        text = f"{what} before it served: the others go on, and are not replaced"
        return replace(state, renewing=()), [_log(text, Verb.WARN)]
    if event.status == START_FAILED:
        text = f"{what}, which is a failed start: the server ends"
        return replace(state, stopping=True, status=START_FAILED), [_log(text, Verb.WARN)]
    text = f"{what} before it served: another is started in {RESTART_SECONDS:g} s"
    return replace(state, not_before=now + RESTART_SECONDS), [_log(text, Verb.WARN)]


def _stop(state: State, now: float) -> Step:
    if not state.stopping or (state.drained is not None and now < state.drained):
        return state, []
    actions = [] if state.closed else [Action(Verb.CLOSE)]
    state = replace(state, closed=True, renewing=(), not_before=0.0)
    for worker in state.workers:
        if worker.phase is not Phase.ENDING:
            state, more = _terminate(state, worker, now)
            actions += more
    return state, actions


def _kill_late(state: State, now: float) -> Step:
    actions = []
    for worker in state.workers:
        if now < worker.deadline and not state.aborting:
            continue
        actions.append(Action(Verb.KILL, worker.number))
        if worker.phase is not Phase.ENDING:
            text = f"worker {worker.number} was silent for {state.silence:g} s: it is killed"
            actions.append(_log(text, Verb.WARN))
        # Once more later, should it still run.
        late = replace(worker, phase=Phase.ENDING, deadline=now + state.grace + 1)
        state = _put(state, late)
    return state, actions


def _renew(state: State, now: float) -> Step:
    """Take the next step of a renewal: start a replacement, or end the worker it replaced."""
    for worker in state.workers:
        if worker.replaces is None or (worker.phase is Phase.STARTING and _is_extra(state, worker)):
            continue
        old = _worker(state, worker.replaces)
        state = _put(state, replace(worker, replaces=None))
        if old is not None and old.phase is not Phase.ENDING:
            return _terminate(state, old, now)
    live = [w.number for w in state.workers if w.phase is not Phase.ENDING]
    renewing = tuple(number for number in live if number in state.renewing)
    state = replace(state, renewing=renewing)
    # One at a time, as each holds its share of the memory.
    busy = any(w.replaces is not None or w.phase is Phase.ENDING for w in state.workers)
    if busy or not renewing or now < state.not_before:
        return state, []
    return _start(replace(state, renewing=renewing[1:]), now, renewing[0])


def _resize(state: State, now: float) -> Step:
    """Start the workers that are missing, or end surplus ones, the newest first."""
    actions: list[Action] = []
    while not state.stopping and len(_counted(state)) > state.wanted:
        state, more = _terminate(state, _counted(state)[-1], now)
        actions += more
    while not state.stopping and len(_counted(state)) < state.wanted and now >= state.not_before:
        state, more = _start(state, now)
        actions += more
    return state, actions


def _greet(state: State, now: float) -> Step:
    serving = [worker for worker in _counted(state) if worker.phase is Phase.SERVING]
    if state.greeted or state.stopping or len(serving) < state.wanted:
        return state, []
    return replace(state, greeted=True), [Action(Verb.GREET)]


def _counted(state: State) -> list[Worker]:
    """List the workers that go on; a replacement counts once the worker it replaces is to end."""
    return [
        worker
        for worker in state.workers
        if worker.phase is not Phase.ENDING and not _is_extra(state, worker)
    ]


def _is_extra(state: State, worker: Worker) -> bool:
    """Tell whether ``worker`` is to replace one that goes on for now."""
    old = None if worker.replaces is None else _worker(state, worker.replaces)
    return old is not None and old.phase is not Phase.ENDING


def _start(state: State, now: float, replaces: int | None = None) -> Step:
    made = Worker(state.last + 1, now + state.silence, replaces=replaces)
    state = replace(state, last=made.number, workers=(*state.workers, made))
    return state, [Action(Verb.START, made.number)]


def _terminate(state: State, worker: Worker, now: float) -> Step:
    ending = replace(worker, phase=Phase.ENDING, deadline=now + state.grace)
    return _put(state, ending), [Action(Verb.TERMINATE, worker.number)]


def _worker(state: State, number: int) -> Worker | None:
    return next((worker for worker in state.workers if worker.number == number), None)


def _put(state: State, changed: Worker) -> State:
    """Return ``state`` with ``changed`` in place of the worker of the same number."""
    return replace(
        state, workers=tuple(changed if w.number == changed.number else w for w in state.workers)
    )


def _log(text: str, verb: Verb = Verb.INFORM) -> Action:
    return Action(verb, text=text)
