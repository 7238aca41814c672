"""The servers that answer for one engine: which are up, what each has loaded, where a row goes.

A server gets questions only after its check: its base model has the name it had, gives the recorded greedy
answers, and every adapter that is wanted is loaded there. A server that comes back has lost its adapters, and
is given them again before that. Adapters have names that are never used twice: a name means one set of
weights, whatever the server keeps of it in caches.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.vllm.greedy_answers import LEAST_AGREEMENT, GreedyAnswer, agreement
from lte_runtime.answer.engine.vllm.server import Served, VllmServer
from lte_runtime.errors import LteError, NotFound, Refused, Retry
from lte_runtime.types import AdapterRef

log = logging.getLogger(__name__)
LOOK_S = 2.0
"""Time between two looks at a server that is up. A server takes longer than that to start."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0
"""Back-off of looks at a server that is away."""
TRIAL_PROMPT = (0, 1, 2, 3)
"""Token ids that every vocabulary has."""


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter as servers are given it, with the greedy answers of its manifest."""

    ref: AdapterRef
    directory: Path
    base_answers: tuple[GreedyAnswer, ...] = ()
    answers: tuple[GreedyAnswer, ...] = ()


@dataclass(eq=False)
class Member:
    """A server and what is known of it. `served` is None while it gets no questions; `problem` says why."""

    server: VllmServer
    served: Served | None = None
    problem: str = "not reached yet"
    names: dict[LoadedAdapter, str] = field(default_factory=dict)
    base_checked: bool = False
    streams: set[asyncio.Timeout] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pool:
    """All of it runs on one event loop, but `problems` and `up`. Several engines may share a server: each
    knows its own names by their beginning."""

    def __init__(self, servers: Sequence[VllmServer], on_change: Callable[[], None]) -> None:
        self._members = [Member(server) for server in servers]
        self._prefix = f"lte-{uuid.uuid4().hex[:8]}."
        self._wanted: list[LoadedAdapter] = []
        self._base = ""
        self._on_change = on_change
        self._turn, self._loads = itertools.count(), itertools.count(1)

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(member.problem for member in self._members if member.served is None)

    @property
    def up(self) -> int:
        """How many servers get questions."""
        return sum(member.served is not None for member in self._members)

    @property
    def context(self) -> int:
        """Tokens that every server reads."""
        return min(member.served.context for member in self._members if member.served)

    async def version(self) -> str:
        return await self._chosen(None).server.version()

    # -- rows --------------------------------------------------------------------------------------

    async def answer(self, row: GenerationRow, adapter: LoadedAdapter | None, ends: frozenset[int]) -> None:
        """Gives the row its tokens until it ends. What breaks off goes on behind the tokens that are there,
        on another server or on the same; raises `Retry` when there is none."""
        for _ in range(len(self._members) + 1):
            member = self._chosen(adapter)
            try:
                await self._stream(member, row, adapter, ends)
            except (NotFound, Retry, TimeoutError) as error:
                if not row.finish:
                    log.warning("an answer broke off: %s", str(error) or member.problem)
                    await self._look_again(member)
            if row.finish:
                return
        raise Retry("every vLLM server broke off: ask again later")

    def _chosen(self, adapter: LoadedAdapter | None) -> Member:
        """The server with the fewest rows, of equals the next one in turn."""
        able = [m for m in self._members if m.served and (adapter is None or adapter in m.names)]
        if not able:
            raise Retry("no vLLM server can answer: " + ("; ".join(self.problems) or "none has the adapter"))
        start = next(self._turn)
        return min(able, key=lambda m: (len(m.streams), (able.index(m) - start) % len(able)))

    async def _stream(
        self, member: Member, row: GenerationRow, adapter: LoadedAdapter | None, ends: frozenset[int]
    ) -> None:
        model = member.names[adapter] if adapter else self._base
        prompt = [*row.request.token_ids, *row.tokens]
        limit = row.request.max_new_tokens - len(row.tokens)
        async with _ended_by(member), aclosing(member.server.tokens(model, prompt, limit, ends)) as pieces:
            async for tokens in pieces:
                for token in tokens:
                    if not row.finish:
                        row.push(token)
                        row.interrupt(time.monotonic())
                by_itself = row.tokens[-1] in ends or len(row.tokens) == row.request.max_new_tokens
                if row.finish and not by_itself:
                    return  # the server stops when nobody listens; else its connection can be used again
        if not row.finish:
            raise Retry(f"vLLM at {member.server.url} ended in the middle of an answer")

    async def _look_again(self, member: Member) -> None:
        """After a row broke off: is the server lost, restarted, or was it this row alone?"""
        async with member.lock:
            if member.served is None:
                return
            try:
                await self._look(member)
            except LteError as error:
                self._lose(member, str(error))

    # -- adapters ----------------------------------------------------------------------------------

    async def load(self, adapter: LoadedAdapter) -> None:
        """Loads and tries the adapter on every server; on none when one refuses it.

        Raises `Refused`, and `Retry` while one is away: two servers must not answer by two adapters. Only
        the first adapter does not wait: nothing is exchanged for it.
        """
        if self._wanted and self.problems:
            raise Retry("a swap needs every vLLM server: " + "; ".join(self.problems))
        able = [member for member in self._members if member.served]
        if not able:
            raise Retry("no vLLM server can load an adapter: " + "; ".join(self.problems))
        self._wanted.append(adapter)
        try:
            for member in able:
                async with member.lock:
                    await self._give(member, adapter)
        except BaseException:
            self.drop(adapter)
            raise

    def drop(self, adapter: LoadedAdapter) -> None:
        """Unloads the adapter everywhere, soon; nobody uses it any more."""
        self._wanted.remove(adapter)
        for member in self._members:
            member.wake.set()

    async def _give(self, member: Member, adapter: LoadedAdapter) -> None:
        """Loads the adapter under a new name and tries it, unless it is there."""
        if adapter in member.names:
            return
        await self._check_base(member, adapter)
        name = f"{self._prefix}{adapter.ref.id}.{next(self._loads)}"
        await member.server.load(name, adapter.directory)
        base = await member.server.scores(self._base, TRIAL_PROMPT)
        if base == await member.server.scores(name, TRIAL_PROMPT):
            raise Refused(
                f"adapter {adapter.ref.id} has no effect at {member.server.url}: scores are those of the base"
            )
        await self._compare(member, name, adapter.answers, f"adapter {adapter.ref.id}")
        member.names[adapter] = name

    async def _check_base(self, member: Member, adapter: LoadedAdapter) -> None:
        if adapter.base_answers and not member.base_checked:
            await self._compare(member, self._base, adapter.base_answers, "the base model")
            member.base_checked = True

    async def _compare(self, member: Member, model: str, expected: Sequence[GreedyAnswer], what: str) -> None:
        """Raises `Refused` where the server's greedy answers are not those that were recorded."""
        if not expected:
            return
        answers = [await self._greedy(member, model, item) for item in expected]
        share = agreement(expected, answers)
        if share < LEAST_AGREEMENT:
            raise Refused(
                f"vLLM at {member.server.url} gives {share:.0%} of the greedy tokens recorded for {what} at "
                f"alignment, at least {LEAST_AGREEMENT:.0%} are needed: it serves other weights"
            )

    async def _greedy(self, member: Member, model: str, item: GreedyAnswer) -> list[int]:
        pieces = member.server.tokens(model, item.prompt, len(item.answer))
        return [token async for tokens in pieces for token in tokens]

    # -- looking after the servers -------------------------------------------------------------------

    async def first_look(self) -> None:
        """Waits until a server is up. Raises `Refused` for one that can never be: people have to act."""
        for wait_s in _back_off():
            for member in self._members:
                try:
                    await self._look(member)
                except (NotFound, Retry) as error:
                    member.problem = str(error)
            if self.up:
                return
            log.warning("waiting for vLLM: %s", "; ".join(self.problems))
            await asyncio.sleep(wait_s)

    async def watch(self) -> None:
        """Looks at all servers for ever."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(self._watch(member))

    async def _watch(self, member: Member) -> None:
        waits = _back_off()
        while True:
            member.wake.clear()
            try:
                async with member.lock:
                    await self._look(member)
            except Exception as error:
                if not isinstance(error, LteError):
                    log.exception("a look at vLLM at %s failed", member.server.url)
                self._lose(member, str(error))
            if member.served is None:
                await asyncio.sleep(next(waits))
            else:
                waits = _back_off()
                await _first_of(member.wake, LOOK_S)

    async def _look(self, member: Member) -> None:
        """Whether the server still has what it had; what is wanted is loaded, what is not is unloaded."""
        served = await member.server.served()
        self._base = self._base or served.base
        if served.base != self._base:
            raise Refused(f"vLLM at {member.server.url} serves {served.base}, not {self._base}")
        lost = [adapter for adapter, name in member.names.items() if name not in served.adapters]
        if lost and member.served:
            self._lose(member, f"vLLM at {member.server.url} has lost its adapters: it was restarted")
        for adapter in lost:
            del member.names[adapter]
        for adapter in [*self._wanted]:
            if member.served is None:
                await self._check_base(member, adapter)
                await self._give(member, adapter)
        for adapter in [adapter for adapter in member.names if adapter not in self._wanted]:
            del member.names[adapter]
        ours = {name for name in served.adapters if name.startswith(self._prefix)}
        for name in ours - set(member.names.values()):
            await member.server.unload(name)
        if member.served is None:
            log.info("vLLM at %s answers for %s", member.server.url, self._base)
            member.served, member.problem = served, ""
            self._on_change()

    def _lose(self, member: Member, problem: str) -> None:
        """No questions for the server until the next look has passed; its rows go elsewhere."""
        if member.served is not None:
            log.warning("%s", problem)
        member.served, member.problem, member.base_checked = None, problem, False
        now = asyncio.get_running_loop().time()
        for stream in member.streams:
            stream.reschedule(now)
        member.wake.set()
        self._on_change()

    async def close(self) -> None:
        """Unloads what this engine loaded, where a server is up."""
        for member in self._members:
            try:
                for name in member.names.values() if member.served else ():
                    await member.server.unload(name)
            except LteError as error:
                log.warning("an adapter stays on a server: %s", error)
            await member.server.close()


def _back_off() -> Iterator[float]:
    """Seconds to wait between looks at a server that is away, without end."""
    wait_s = FIRST_WAIT_S
    while True:
        yield wait_s
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


@asynccontextmanager
async def _ended_by(member: Member) -> AsyncIterator[None]:
    """Within it the loss of the server raises TimeoutError."""
    async with asyncio.timeout(None) as stream:
        member.streams.add(stream)
        try:
            yield
        finally:
            member.streams.discard(stream)


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after that time."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
