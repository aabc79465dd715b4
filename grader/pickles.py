"""The modules that a pickle would import, read from its opcodes: nothing in it is run.

modules(stream) -> {"sklearn.linear_model._logistic", ...}
"""

from __future__ import annotations

import _compat_pickle
import contextlib
import pickletools
from itertools import islice
from typing import BinaryIO

MAX_OPCODES = 20_000  # of one pickle; a module is named with its first object, so early


def modules(stream: BinaryIO) -> set[str]:
    """Names of modules in the first pickle of a stream, as far as it can be read and up to MAX_OPCODES opcodes."""
    found, memo, strings, protocol = set(), {}, [None, None], 0
    with contextlib.suppress(ValueError, IndexError, OverflowError, MemoryError, EOFError, OSError):
        for opcode, argument, _ in islice(pickletools.genops(stream), MAX_OPCODES):
            if opcode.name.endswith(("UNICODE", "UNICODE8")):
                strings = [strings[-1], argument]
            elif opcode.name.endswith("GET"):
                strings = [strings[-1], memo.get(argument)]
            elif opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
                memo[len(memo) if argument is None else argument] = strings[-1]
            else:
                if opcode.name == "PROTO":
                    protocol = argument
                elif opcode.name in ("GLOBAL", "INST"):
                    found.add(argument.split(" ")[0])
                elif opcode.name == "STACK_GLOBAL" and strings[0]:
                    found.add(strings[0])
                strings = [strings[-1], None]
    renamed = _compat_pickle.IMPORT_MAPPING if protocol < 3 else {}  # as pickle does with those of Python 2
    return {renamed.get(name, name) for name in found}


def modules_of_array(stream: BinaryIO) -> set[str]:
    """`modules` of a .npy file, which holds a pickle where its array is of objects."""
    head = stream.read(12)
    size = 2 if head[6:7] == b"\1" else 4
    header = head[8 + size :] + stream.read(int.from_bytes(head[8 : 8 + size], "little") - (4 - size))
    return modules(stream) if head.startswith(b"\x93NUMPY") and b"'|O'" in header else set()
