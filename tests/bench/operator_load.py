"""Many requests at once, or at a steady rate, from a process of its own, so that whoever measures is not the limit.

Run as a program it reads one `Order` from the first line of its standard input and prints the answers' codes with their counts;
a steady order ends when standard input is closed.
"""

import asyncio
import itertools
import json
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import aiohttp
from tests.cluster.control_plane import ADMIN, ControlPlane
from tests.cluster.layout import REPOSITORY

CONNECTIONS = 32
"""Requests under way at the same time."""

STEADY_CONNECTIONS = 4
"""The same for a steady load."""

MERGE_PATCH = "application/merge-patch+json"
"""Content type of a patch that sets some fields."""

TURN = "{turn}"
"""In a body that is sent again and again, the number of the turn: a patch that changes nothing is no update."""


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    body: Any = None
    content: str = "application/json"


@dataclass(frozen=True)
class Order:
    """What to send, where, as whom."""

    server: str
    authority: str
    certificate: str
    key: str
    requests: list[dict[str, Any]]
    per_second: float | None = None
    """None sends every request once, as fast as it goes; a number repeats them at that rate."""

    @classmethod
    def make(cls, plane: ControlPlane, requests: Sequence[Request], per_second: float | None = None) -> Self:
        """An order as administrator."""
        pki = plane.authority
        files = (pki.certificate, pki.certificate_of(ADMIN), pki.key_of(ADMIN))
        return cls(plane.server, *map(str, files), [asdict(request) for request in requests], per_second)


class Load:
    """The process."""

    def __init__(self, plane: ControlPlane, requests: Sequence[Request], per_second: float | None = None) -> None:
        command = [sys.executable, "-m", __name__]
        self._expected = len(requests)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(Order.make(plane, requests, per_second))) + "\n")
        self._process.stdin.flush()

    def end(self) -> Counter[int]:
        """Waits for the answers, or ends a steady load; returns how many there were of each code."""
        answers, _ = self._process.communicate()
        counts = Counter({int(code): count for code, count in json.loads(answers).items()})
        assert all(code < 300 for code in counts), f"the API server refuses the load: {counts}"
        return counts


def send(plane: ControlPlane, requests: Sequence[Request]) -> None:
    """Sends requests and waits for their answers."""
    sent = Load(plane, requests).end()
    assert sent.total() == len(requests), f"{sent} answers to {len(requests)} requests"


@contextmanager
def steady(plane: ControlPlane, request: Request, per_second: float) -> Iterator[None]:
    """Repeats a request while the block runs."""
    load = Load(plane, [request], per_second)
    try:
        yield
    finally:
        load.end()


async def play(order: Order) -> Counter[int]:
    """Sends what is ordered."""
    context = ssl.create_default_context(cafile=order.authority)
    context.load_cert_chain(order.certificate, order.key)
    answers: Counter[int] = Counter()
    requests = [Request(**request) for request in order.requests]
    connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS)
    async with aiohttp.ClientSession(order.server, connector=connector) as session:

        async def one(request: Request, turn: int) -> None:
            headers = {"Content-Type": request.content}
            body = None if request.body is None else json.dumps(request.body).replace(TURN, str(turn))
            async with session.request(request.method, request.path, data=body, headers=headers) as answer:
                await answer.read()
                answers[answer.status] += 1

        if order.per_second is None:
            await asyncio.gather(*(one(request, 0) for request in requests))
        else:
            await _at_rate(order.per_second, requests, one)
    return answers


async def _at_rate(per_second: float, requests: Sequence[Request], one: Any) -> None:
    """Few at a time, and none to catch up: many patches of one object only conflict with each other in the server."""
    closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    began, behind, pending = time.monotonic(), 0, set[asyncio.Task[None]]()
    for number, request in enumerate(itertools.cycle(requests)):
        wait = began + (number + behind) / per_second - time.monotonic()
        behind += int(max(-wait, 0) * per_second)
        await asyncio.wait({closed}, timeout=max(wait, 0))
        if closed.done():
            break
        pending.add(asyncio.create_task(one(request, number)))
        if len(pending) >= STEADY_CONNECTIONS:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*pending)


def main() -> None:
    """Plays the order on standard input."""
    order = Order(**json.loads(sys.stdin.readline()))
    sys.stdout.write(json.dumps(asyncio.run(play(order))))


if __name__ == "__main__":
    main()
