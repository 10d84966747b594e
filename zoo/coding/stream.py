"""A `Message` as bytes, with what has to be known to decode it: a line of JSON, then the stacks."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.coding.bits_back import Message
from zoo.errors import UsageError

MAGIC = b"VAEZOO01"
MOST_LANES = 1 << 16


@dataclass(frozen=True)
class Header:
    """Of what, by what: ``shape`` of an image, hashes of the weights and of the pixels (uint8 values in the order in
    which they were stored), and what the networks computed on."""

    n: int
    shape: tuple[int, int, int]
    support: str
    bucket_bits: int
    lanes: int
    weights_sha256: str
    pixels_sha256: str
    torch: str
    processor: str
    threads: int
    device: str


def to_bytes(message: Message, header: Header) -> bytes:
    """The file's content."""
    told = zlib.compress(json.dumps(vars(header), separators=(",", ":")).encode(), 9)
    lengths = np.array([len(each) for each in message.words], dtype="<u4")
    words = np.concatenate([*message.words, np.zeros(0, np.uint32)]).astype("<u4")
    body = message.heads.astype("<u8").tobytes() + lengths.tobytes() + words.tobytes()
    return MAGIC + len(told).to_bytes(4, "little") + told + body


def from_bytes(content: bytes, name: str) -> tuple[Message, Header]:
    """The reverse of `to_bytes`; of what each image added nothing is known.

    Args:
        name: what the file is called in what is said of it.

    Raises:
        UsageError: it is no such file, or a part of it is missing.
    """
    header, at = _header(content, name)
    lanes = header.lanes
    heads = np.frombuffer(content, "<u8", lanes, at) if len(content) >= at + 12 * lanes else None
    if heads is None:
        raise UsageError(f"{name} is cut off.")
    at += 8 * lanes
    lengths = np.frombuffer(content, "<u4", lanes, at).astype(np.int64)
    at += 4 * lanes
    if len(content) != at + 4 * int(lengths.sum()):
        raise UsageError(f"{name} is cut off, or something was added to it.")
    ends = lengths.cumsum()
    stored = np.frombuffer(content, "<u4", int(lengths.sum()), at).astype(np.uint32)
    words = [stored[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return Message(header.n, heads.astype(np.uint64), words, header.bucket_bits, np.zeros(header.n), 0.0), header


def _header(content: bytes, name: str) -> tuple[Header, int]:
    begins = len(MAGIC) + 4
    if not content.startswith(MAGIC) or len(content) < begins:
        raise UsageError(f"{name} is not a file that `zoo compress` wrote.")
    ends = begins + int.from_bytes(content[len(MAGIC) : begins], "little")
    try:
        told: dict[str, Any] = json.loads(zlib.decompress(content[begins:ends]))
        told["shape"] = tuple(told["shape"])
        header = Header(**told)
        numbers = (header.n, *header.shape, header.bucket_bits, header.lanes, header.threads)
        known = all(type(number) is int for number in numbers)
        known = known and header.n >= 1 and 1 <= header.lanes <= MOST_LANES and 1 <= header.bucket_bits <= 20
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known:
        raise UsageError(f"{name} is damaged: its head cannot be read.")
    return header, ends
