"""Order of answers: those on one connection go out one at a time, as its requests came in."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import RequestError
from service.problems import row_for
from service.protocol.cycle import Counted, Cycle, refusal
from service.protocol.landing import Flow, Landing
from service.protocol.limits import Limits
from service.protocol.states import ENDED, State, following
from service.telemetry.counters import Counters
from service.telemetry.record import Record


class AnswerOrder(Counted):
    """uvicorn's protocol, with refusals behind the answers that are due, and a last request."""

    flow: Flow

    state = State.HEADER
    header_read = 0  # bytes of the header that is not complete yet
    landing: Landing | None = None  # of the request that is coming
    cycle: Cycle
    _answering: Cycle | None = None
    _refusal: tuple[RequestError, Record] | None = None  # behind the answers before it
    _stopping = False  # the server: one more request is answered, if it comes
    _last = False  # whether the request that is coming is the connection's last

    def __init__(self, limits: Limits, counters: Counters, config: Config, *more: Any) -> None:
        super().__init__(config, *more)
        self.counters = counters
        self.ws_protocol_class = None
        self.limits = limits
        self.most = self.limit_concurrency or sys.maxsize  # connections

    @property
    def busy(self) -> bool:
        """True while a request waits for its answer."""
        return self._answering is not None and not self._answering.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of this connection that its client is gone."""
        super().connection_lost(exc)
        self._drop(self._answering)
        self._drop(self.cycle)
        self.pipeline.clear()

    def shutdown(self) -> None:
        """Close after an answer that says so, or once no request has come for a while."""
        if self._stopping or self.state is State.REFUSED:
            return
        self._stopping = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False
            self._last = True
        self.loop.call_later(self.limits.last_idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        begun = self.busy or self.state is not State.HEADER or self.header_read
        if not begun and not self.transport.is_closing():
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cast(Cycle, cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request that waits, or with the refusal of one.

        uvicorn's keep-alive timer is not started: ``Connection.look`` does without one.
        """
        self.server_state.total_requests += 1
        cast(Cycle, self._answering).end()
        if self.transport.is_closing():
            return
        if self.landing is None:
            self.flow.resume_reading()
        else:
            # A large body waits for its own request, though the one before has asked for more.
            self.flow.pause_reading()
        if self._stopping:
            self.loop.call_later(self.limits.last_idle_seconds, self._end_if_idle)
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._answer(*self._refusal)

    def refuse(self, error: RequestError) -> None:
        """Answer ``error`` to the request that is coming, after the answers before it, and close.

        All that follows on this connection is ignored.
        """
        if self.state in ENDED:
            return
        coming: Cycle | None = None if self.state is State.HEADER else self.cycle
        self.state = following(self.state, State.REFUSED)
        client = "{}:{}".format(*self.client) if self.client else "a client"
        self.logger.info("%s refused: %d, %s", client, row_for(error).status, error.message)
        begun = coming is not None and coming.response_started
        record = self._refused(error, None if begun else coming)
        self._drop(coming)
        self.pipeline = deque(pair for pair in self.pipeline if pair[0] is not coming)
        if self.busy and self._answering is not coming:
            self._refusal = error, record
        elif begun:
            self.transport.close()
        else:
            self._answer(error, record)

    def _refused(self, error: RequestError, coming: Cycle | None) -> Record:
        """Count the refusal of the request that is ``coming``, or of one without a header."""
        row = row_for(error)
        record = coming or Record()
        if coming is None:
            record.begin(self.counters)
        record.problem = row.name
        record.end(row.status)
        return record

    def _answer(self, error: RequestError, record: Record) -> None:
        self.transport.write(refusal(error, self.server_state.default_headers, record.request_id))
        self.transport.close()

    def _drop(self, cycle: Cycle | None) -> None:
        """Tell the application that nobody waits for this answer, and count the request."""
        if cycle is None or cycle.response_complete:
            return
        cycle.end()
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle is self.cycle and self.landing is not None:
            self.landing.fail()
