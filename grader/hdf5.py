"""The text attributes at the root of an HDF5 file, read without the HDF5 library: nothing of a foreign file is run.

    root_texts(stream) -> {"keras_version": "3.4.1", "model_config": "{...}", ...}

After the HDF5 File Format Specification, version 3.0: superblocks 0 and 1 and object headers of version 1, which is
what h5py writes unless told otherwise, Keras included. Of other files it reads nothing, which is no verdict on them.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_READ, EACH = 16 << 20, 64  # bytes that are read of one file, and what a read counts for at least
MAX_MESSAGES = 10_000  # of one header
ATTRIBUTE, CONTINUATION, TEXT, VARIABLE = 0x0C, 0x10, 3, 9


def pointer(head: bytes) -> str | None:
    """What is wrong with a file that Git LFS has yet to fetch, by its first bytes; None of any other."""
    return "it is a Git LFS pointer; run git lfs pull" if head.startswith(b"version https://git-lfs") else None


def broken(head: bytes, size: int) -> str | None:
    """Why a file of `size` bytes that begins with `head` is no whole HDF5 file, by its superblock, or None."""
    if why := pointer(head):
        return why
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "it is empty" if not size else "it is not HDF5"
    version = head[8] if size > 8 else 255
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
    if at is None or size < at + 8:
        return "its beginning is damaged"
    end = struct.unpack_from("<Q", head, at)[0]
    return f"it has {size} of {end} bytes" if size < end else None


class Reader:
    """A stream that can be read from anywhere, until MAX_READ bytes are read; ValueError where there are no more."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.left = stream, MAX_READ

    def read(self, at: int, n: int) -> bytes:
        self.left -= n + EACH
        if self.left < 0:
            raise ValueError("too large")
        self.stream.seek(at)
        data = self.stream.read(n)
        if len(data) < n:
            raise ValueError("it ends too early")
        return data


def root_texts(stream: BinaryIO) -> dict[str, str] | None:
    """{name: text} of the root group's attributes, "" where one holds no single text; None if they cannot be read."""
    found, reader = {}, Reader(stream)
    try:
        start = reader.read(0, 96)
        version = start[8]
        if version > 1 or start[13:15] != b"\x08\x08":  # addresses and lengths of 8 bytes
            return None
        for kind, body in messages(reader, struct.unpack_from("<Q", start, 64 if version == 0 else 68)[0]):
            if kind == ATTRIBUTE:
                name, text = attribute(reader, body)
                found[name] = text or ""
    except (ValueError, struct.error, IndexError, OverflowError, OSError):
        return None
    return found


def messages(reader: Reader, at: int):
    """(kind, contents) of each message of the version 1 object header at an address."""
    version, _, count, _, size = struct.unpack("<BBHII", reader.read(at, 12))
    if version != 1:
        raise ValueError("another version")
    blocks, seen = [(at + 16, size)], 0
    for begin, length in blocks:
        block, here = reader.read(begin, length), 0
        while here + 8 <= length and seen < min(count, MAX_MESSAGES):
            kind, n = struct.unpack_from("<HH", block, here)
            body = block[here + 8 : here + 8 + n]
            if kind == CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", body))
            yield kind, body
            here, seen = here + 8 + n, seen + 1


def attribute(reader: Reader, body: bytes) -> tuple[str, str | None]:
    """Name of an attribute, and its text where it is one."""
    version, _, name_size, type_size, space_size = struct.unpack_from("<BBHHH", body)
    at = 9 if version == 3 else 8

    def piece(size: int) -> bytes:
        nonlocal at
        part, at = body[at : at + size], at + (-(-size // 8) * 8 if version == 1 else size)
        return part

    name = piece(name_size).rstrip(b"\0").decode("utf-8", "replace")
    datatype = piece(type_size)
    piece(space_size)
    if datatype[0] & 0x0F == TEXT:
        return name, body[at:].rstrip(b"\0").decode("utf-8", "replace")
    if datatype[0] & 0x0F == VARIABLE and datatype[1] & 0x0F == 1:
        length, heap, index = struct.unpack_from("<IQI", body, at)
        return name, heap_object(reader, heap, index)[:length].decode("utf-8", "replace")
    return name, None


def heap_object(reader: Reader, heap: int, wanted: int) -> bytes:
    """One object of a global heap collection."""
    head = reader.read(heap, 16)
    size = struct.unpack_from("<Q", head, 8)[0]
    if head[:4] != b"GCOL":
        raise ValueError("no heap")
    at = 16
    while at + 16 <= size:
        index, _, _, n = struct.unpack("<HHIQ", reader.read(heap + at, 16))
        if index == wanted:
            return reader.read(heap + at + 16, n)
        if not index:
            break
        at += 16 + -(-n // 8) * 8
    raise ValueError("no such object")
