"""The examples that every fuzz test runs on: a fixed corpus, and what seeds make of it.

An example is a function of its format and its number, so a failure names all that repeats it.
LOSSD_FUZZ_EXAMPLES is the number of examples a format.

The corpus lies in ``corpus/FORMAT/accepted`` and ``refused``, for what a reader does with it. A V2
file is called ``NAME.LENGTH.CODING``, as the headers of its request say, each "no" where they say
nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

from service.codecs import CODECS, Codec, Limits, npy
from service.codecs.base import Arrays, Message
from tests.fuzz import makers, makers_v2
from tests.fuzz.makers_v2 import Body
from tests.service.codecs import infers, npys, npzs, safetensors_bodies, samples

EXAMPLES = int(os.environ.get("LOSSD_FUZZ_EXAMPLES", "10000"))
LIMITS = Limits(decoded_bytes=1 << 14)

_CORPUS = Path(__file__).parent / "corpus"

# What the damaged JSON is made of.
TOKENS = (
    *rb"""[ ] { } , : " \ - + . e E 0 1 00 1e5 1e-400 1e39 1e999 70000 NaN "NaN" -Infinity
    "-Infinity" Infinity null true "a" [] [[ ]] ],[ 0.5 -0.0 "dtype":"float64", "labels":[0],
    """.split(),
    *(b" ", b"\n", b"\t", b"\x00", b"\xff", b"\xc3\xa9", b"9" * 19, b"9" * 25, b"[" * 32),
)


@cache
def corpus(name: str, verdict: str = "*") -> list[Body]:
    """The committed bodies of a format, or of one ``verdict``."""
    return [_body(name, path) for path in sorted(_CORPUS.glob(f"{name}/{verdict}/*"))]


def _body(name: str, path: Path) -> Body:
    if name != "infer":
        return Body(path.read_bytes())
    _, length, coding = path.name.rsplit(".", 2)
    return Body(
        path.read_bytes(),
        None if length == "no" else int(length),
        None if coding == "no" else coding,
    )


@cache
def _seeds(name: str) -> list[Body]:
    """The corpus, and the small bodies that the format's own tests refuse or take."""
    refused = {
        "safetensors": safetensors_bodies.REFUSED,
        "npy": npys.REFUSED,
        "npz": npzs.REFUSED,
    }.get(name, {})
    taken = npzs.ACCEPTED.values() if name == "npz" else ()
    small = (*taken, *(body for body, _ in refused.values()))
    return corpus(name) + [Body(body) for body in small if 0 < len(body) < 4096]


def _json(rng: random.Random) -> bytes:
    """A body that is right, after one to six changes of a token."""
    body = bytearray(rng.choice(corpus("json", "accepted")).raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(body) + 1)
        to = min(len(body), at + rng.choice((0, 1, 1, 2, 5, 30)))
        match rng.randrange(5):
            case 0:
                body[at:to] = b""
            case 1:
                body[at:to] = rng.choice(TOKENS)
            case 2:
                body[at:at] = rng.choice(TOKENS)
            case 3:
                body[at:at] = body[at:to] * rng.randrange(1, 4)
            case _:
                body[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(body)


_MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "safetensors": makers.safetensors,
    "npy": makers.npy,
    "npz": makers.npz,
}


def example(name: str, number: int) -> Body:
    """A seed, a seed or a made body that is damaged, or a made one that may lie."""
    seeds = _seeds(name)
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(number)
    choice = rng.randrange(4)
    if name == "json":
        return Body(_json(rng))
    if choice == 0:
        seed = rng.choice(seeds)
        return Body(makers.mutated(rng, seed.raw), seed.header_length, seed.coding)
    if name == "infer":
        return makers_v2.infer(rng)
    body = _MAKERS[name](rng)
    return Body(makers.mutated(rng, body) if choice == 1 else body)


def codec(name: str, body: Body) -> Codec:
    """Codec that reads ``body``; V2 has one a request, as the service makes it."""
    if name == "infer":
        return infers.inference(body.header_length, coding=body.coding, limits=LIMITS)
    if name == "npy":
        return _Npy()
    return next(codec for codec in CODECS if codec.name == name)


class _Npy(Codec):
    """A single .npy file, as the codec of archives reads it."""

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        return Message({"a": npy.decode(body, limits, where="a.npy")}, {})

    def encode(self, arrays: Arrays) -> bytes:
        return b""

    def aligned_at(self, prefix: bytes) -> int | None:
        return npy.data_start(prefix)


def decode(codec: Codec, body: memoryview) -> Message:
    """Decode ``body`` by the calls that the service makes, in its order."""
    if not codec.at_once(body):
        codec.decoded_bytes(body)
    return codec.decode(body, samples.NAMES, LIMITS)
