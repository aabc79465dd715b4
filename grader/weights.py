"""Checks the weights in a zip without loading them: completeness; contents of .keras, .h5, .npy and pickle files.

check_weights(file, entries, code, known)     file: the open zip; code: what its sources load, see registry.py
"""

import _compat_pickle
import ast
import bz2
import contextlib
import gzip
import json
import lzma
import math
import operator
import pickletools
import posixpath
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from grader import keras_files
from grader.codes import Finding, finding
from grader.registry import Registry

MAX_RATIO, SMALL = 200, 10 << 20  # largest compression ratio of a file; bytes below which any will do
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".sav", ".dill")
UNPICKLE = {"load", "Unpickler", "loads", "read_pickle"}
MAX_OPCODES = 20_000  # read of one pickle: a module is named early, with its first object
ARRAY = b"\x93NUMPY"  # first bytes of a .npy file
PROTOCOLS = [bytes((0x80, number)) for number in range(2, 6)]  # first bytes of a pickle
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
MODELS = (".keras", ".h5", ".hdf5")
WEIGHTS, MANIFEST = "weights/model.weights.h5", "weights/manifest.json"  # of this project's own submissions
# All exceptions that zipfile and zlib are known to raise on damaged zips.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error,
              RuntimeError, IndexError, lzma.LZMAError)  # fmt: skip


def check_weights(file: zipfile.ZipFile, entries: dict, code: Registry, known: frozenset[str]) -> Iterator[Finding]:
    """Findings on every file of the zip that holds weights. known: modules that can be imported at the grader."""
    for name, entry in entries.items():
        try:
            if entry.head.startswith(b"version https://git-lfs"):
                raise zipfile.BadZipFile("it is a Git LFS pointer; run git lfs pull")
            if name.endswith((".h5", ".hdf5")):
                check_whole(entry.head, entry.size)
                if code.opening(name) or code.opening(name, "load_weights"):
                    yield from check_h5(copied(file, name), name, code)
            elif name.endswith(".keras"):
                yield from check_keras(copied(file, name), name, code)
            elif code.calls & UNPICKLE and code.speaks_of(name):
                needs = needed(file, name, entry.head)
                lacks = [] if code.renames else sorted(needs - known)
                yield from (finding("KER09", file=name, name=module) for module in lacks)
                if needs and name in code.arrays:
                    why = "it holds Python's objects, which np.load takes only with allow_pickle=True"
                    yield finding("KER05", file=name, why=why)
        except ZIP_ERRORS as error:
            yield finding("KER05", file=name, why=str(error) or type(error).__name__)
    yield from check_loads(set(entries), code)
    yield from check_manifest(entries)


def check_whole(head: bytes, size: int, what: str = "it") -> None:
    """Raise BadZipFile if a file of `size` bytes beginning with `head` is no complete HDF5 file, by its superblock."""
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if size > 8 else 255, size)
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise zipfile.BadZipFile(f"{what} is not HDF5" if size else f"{what} is empty")
    if size < at + 8:
        raise zipfile.BadZipFile(f"the beginning of {what} is damaged")
    if size < (end := struct.unpack_from("<Q", head, at)[0]):
        raise zipfile.BadZipFile(f"{what} has {size} of {end} bytes")


def copied(file: zipfile.ZipFile, name: str) -> BinaryIO:
    """A seekable copy of one file of the zip, in a temporary file."""
    copy = tempfile.TemporaryFile()
    with file.open(name) as stream:
        shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


def packed_tightly(info: zipfile.ZipInfo) -> bool:
    """Whether a file has the compression ratio of a zip bomb, which would fill a disk."""
    return info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1)


def parsed(data: bytes | str, what: str) -> dict:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(data), dict):
            return found
    raise zipfile.BadZipFile(f"its {what} is damaged")


def check_keras(stream: BinaryIO, name: str, code: Registry) -> Iterator[Finding]:
    """Check a .keras file, itself a zip: completeness, version of Keras, config. Raises BadZipFile if it is damaged."""
    with stream, zipfile.ZipFile(stream) as file:
        weights = "model.weights.npz" if "model.weights.npz" in file.namelist() else "model.weights.h5"
        for member in ("metadata.json", "config.json", weights):
            if member not in file.namelist():
                raise zipfile.BadZipFile(f"it has no {member}")
            if packed_tightly(info := file.getinfo(member)):
                raise zipfile.BadZipFile(f"its {member} claims {info.file_size / 1e6:.0f} MB")
        metadata, config = (parsed(file.read(m), m) for m in ("metadata.json", "config.json"))
        with file.open(weights) as inner:
            head = inner.read(4096)
            while inner.read(1 << 20):  # at the end the checksum is compared
                pass
        if weights.endswith(".h5") or not head:
            check_whole(head, file.getinfo(weights).file_size, f"its {weights}")
    version, compiled = str(metadata.get("keras_version")), config.pop("compile_config", None)
    yield from keras_files.check_model(name, version, config, compiled, code, legacy=False)


def check_h5(stream: BinaryIO, name: str, code: Registry) -> Iterator[Finding]:
    """Check an .h5 file. The config of a whole model is in attributes of the root; a file of weights has none."""
    import h5py

    with stream, h5py.File(stream, "r") as file:
        if how := misnamed(file, name):
            loads = code.opening(name, "load_weights")
            yield from (finding("KER08", **load.said, name=name, how=how) for load in loads)
        said = {key: as_text(file.attrs.get(key)) for key in ("keras_version", "model_config", "training_config")}
    if said["model_config"]:
        config, compiled = (parsed(said[key] or "{}", key) for key in ("model_config", "training_config"))
        yield from keras_files.check_model(name, said["keras_version"], config, compiled, code, legacy=True)
    else:
        how = "a file of weights without the network"
        yield from (finding("KER08", **load.said, name=name, how=how) for load in code.opening(name) if load.path)


def misnamed(file, name: str) -> str:
    """Why load_weights, which tells the format from the name of an .h5 file, cannot read this one; "" if it can."""
    older = "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)
    newer = not older and ("layers" in file or "_layer_checkpoint_dependencies" in file)
    if name.endswith(".weights.h5"):
        return "whose weights Keras 2 wrote, or a whole model: its name must not end in .weights.h5" if older else ""
    return "whose weights Keras 3 wrote: its name must end in .weights.h5" if newer else ""


def as_text(value) -> str:
    """An attribute's text; "" if it holds none."""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else ""


def needed(file: zipfile.ZipFile, name: str, head: bytes) -> set[str]:
    """Packages that unpickling a file needs: a pickle, a compressed pickle, object arrays in .npy and .npz files."""
    needs = set()
    if name.endswith(".npz"):
        with copied(file, name) as stream, zipfile.ZipFile(stream) as arrays:
            needs = set().union(*(array_modules(arrays.open(i), i.file_size) for i in arrays.infolist()))
    elif head.startswith(ARRAY):
        needs = array_modules(file.open(name), file.getinfo(name).file_size)
    elif name.endswith(PICKLES) or head.startswith((*PROTOCOLS, *PACKED)):
        opened = next((way for magic, way in PACKED.items() if head.startswith(magic)), lambda stream: stream)
        needs = modules(opened(file.open(name)))
    return {module.split(".")[0] for module in needs}


def array_modules(stream: BinaryIO, size: int) -> set[str]:
    """`modules` of the pickle in a .npy file of `size` bytes, if it holds objects. Raises BadZipFile if it is short."""
    head = stream.read(12)
    if not head.startswith(ARRAY):
        return set()
    width = 2 if head[6:7] == b"\1" else 4  # of the header's length
    begin = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    header = head[8 + width :] + stream.read(begin - 12)
    if b"'|O'" in header:
        return modules(stream)
    try:
        described = ast.literal_eval(header.decode("latin1"))
        kind, count = described["descr"], math.prod(map(operator.index, described["shape"]))
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        raise zipfile.BadZipFile("its header is damaged") from None
    item = re.match(r"[<>|=]?([a-zA-Z])(\d+)", str(kind))  # of structured types, nothing
    end = begin + count * int(item[2]) * (4 if item[1] == "U" else 1) if item else 0
    if size < end:
        raise zipfile.BadZipFile(f"it has {size:,} of {end:,} bytes")
    return set()


def modules(stream: BinaryIO) -> set[str]:
    """Names of modules in the first pickle of a stream, as far as it can be parsed; the pickle is not run."""
    found, memo, strings, protocol = set(), {}, [None, None], 0  # strings: the last two that were pushed
    with contextlib.suppress(ValueError, IndexError, OverflowError, MemoryError, EOFError, OSError):
        for opcode, argument, _ in islice(pickletools.genops(stream), MAX_OPCODES):
            name, text = opcode.name, None
            if name.endswith(("UNICODE", "UNICODE8")):
                text = argument
            elif name.endswith("GET"):
                text = memo.get(argument)
            elif name.endswith("PUT") or name == "MEMOIZE":
                memo[len(memo) if argument is None else argument] = strings[-1]
                continue
            elif name == "PROTO":
                protocol = argument
            elif name in ("GLOBAL", "INST"):
                found.add(argument.split(" ")[0])
            elif name == "STACK_GLOBAL" and strings[0]:
                found.add(strings[0])
            strings = [strings[-1], text]
    renamed = _compat_pickle.IMPORT_MAPPING if protocol < 3 else {}  # as pickle renames modules of Python 2
    return {renamed.get(name, name) for name in found}


def check_loads(names: set[str], code: Registry) -> Iterator[Finding]:
    """Calls that load what Keras 3 cannot: a SavedModel folder, a TensorFlow checkpoint, a file of another suffix."""
    saved = {posixpath.dirname(name) for name in names if posixpath.basename(name) == "saved_model.pb"}
    models = any(name.endswith(MODELS) for name in names)
    for load in [load for loads in code.loads.values() for load in loads]:
        other = "which ends neither in .keras nor in .h5" if load.path and not load.path.endswith(MODELS) else ""
        if load.said["call"] == "load_weights":
            how = "a TensorFlow checkpoint" if other and f"{load.path}.index" in names else other
        elif load.path in saved or (load.path is None and saved and not models):
            how = "a SavedModel folder"
        else:
            how = other if load.path in names else ""
        if how:
            yield finding("KER08", **load.said, name=load.path or min(saved), how=how)


def check_manifest(entries: dict) -> Iterator[Finding]:
    """Compare the SHA-256 of weights/model.weights.h5 with the one in weights/manifest.json."""
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, RecursionError):
        manifest = json.loads(entries[MANIFEST].head)
        said = [manifest["sha256"], manifest.get("next", manifest)["sha256"]]  # `next`: of a run killed while writing
        if entries[WEIGHTS].sha256 not in said:
            yield finding("KER06", file=WEIGHTS)
