"""The modules that a pickle would import, read from its opcodes: nothing in it is run.

modules(stream) -> {"sklearn.linear_model._logistic", ...}
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from itertools import islice
from typing import BinaryIO

MAX_OPCODES = 20_000  # of one pickle; a module is named with its first object, so early
STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def modules(stream: BinaryIO) -> set[str]:
    """Names of modules in the first pickle of a stream, as far as it can be read and up to MAX_OPCODES opcodes."""
    found, memo, strings, protocol = set(), {}, [None, None], 0
    try:
        for opcode, argument, _ in islice(pickletools.genops(stream), MAX_OPCODES):
            if opcode.name in STRINGS:
                strings = [strings[-1], argument]
            elif opcode.name in GETS:
                strings = [strings[-1], memo.get(argument)]
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = strings[-1]
            elif opcode.name in PUTS:
                memo[argument] = strings[-1]
            else:
                if opcode.name == "PROTO":
                    protocol = argument
                elif opcode.name in ("GLOBAL", "INST"):
                    found.add(renamed(argument.split(" ")[0], protocol))
                elif opcode.name == "STACK_GLOBAL" and strings[0]:
                    found.add(renamed(strings[0], protocol))
                strings = [strings[-1], None]
    except (ValueError, IndexError, OverflowError, UnicodeError, MemoryError, EOFError, OSError):
        pass  # what was read so far counts
    return found


def renamed(module: str, protocol: int) -> str:
    """The Python 3 name of a module of Python 2's standard library, which pickle translates, too."""
    return _compat_pickle.IMPORT_MAPPING.get(module, module) if protocol < 3 else module


def modules_of_array(stream: BinaryIO) -> set[str]:
    """`modules` of a .npy file, which holds a pickle where its array is of objects."""
    head = stream.read(12)
    size = 2 if head[6:7] == b"\1" else 4
    header = head[8 + size :] + stream.read(int.from_bytes(head[8 : 8 + size], "little") - (4 - size))
    return modules(stream) if head.startswith(b"\x93NUMPY") and b"'|O'" in header else set()
