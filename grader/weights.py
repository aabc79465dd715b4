"""The weights in a zip: whole or not, and what is in .keras, .h5, SavedModel, .npy and pickle files. Nothing is loaded.

check_weights(file, entries, code, known)     file: the open zip; code: what its sources load, see registry.py
"""

from __future__ import annotations

import io
import json
import posixpath
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from grader import hdf5, keras_files, pickles
from grader.codes import Finding, finding
from grader.registry import Code, Load

MAX_CONFIG = 4 << 20  # bytes of a .keras file's config.json
MAX_RATIO, SMALL = 200, 10 << 20  # how tightly a file may be packed; bytes below which it may be any
WHOLE_RATIO, WHOLE_SMALL = 20, 100 << 20  # the same of a whole zip
MAX_DIRECTORY = 2 << 20  # bytes of a zip's directory: zipfile makes an object of every 46
OPENING, OPCODE, SPARSE = 20_000, 40, 128  # cost, of Code.left, of a file, an opcode; bytes from nothing that cost 1
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".sav", ".dill", ".npy")
UNPICKLE = {"load", "Unpickler", "loads", "read_pickle"}
MODELS = (".keras", ".h5", ".hdf5")


def check_weights(file: zipfile.ZipFile, entries: dict, code: Code, known: frozenset[str]) -> Iterator[Finding]:
    """Findings on every file of the zip that holds weights. known: modules that an import finds at the grader."""
    for name, entry in entries.items():
        why = hdf5.pointer(entry.head)
        try:
            if not why and name.endswith((".h5", ".hdf5")):
                why = hdf5.broken(entry.head, entry.size)
                if not why and code.loads(name) and spend(code, OPENING):
                    with copied(file, name) as stream:
                        yield from check_h5(stream, name, code)
            elif not why and name.endswith(".keras") and spend(code, OPENING):
                with copied(file, name) as stream:
                    yield from check_keras(stream, name, code)
            elif not why and name.endswith(PICKLES) and code.calls & UNPICKLE and code.speaks_of(name):
                if spend(code, OPENING):
                    yield from check_pickle(file, name, entry.head, known, code)
        except (*READ_ERRORS, zipfile.BadZipFile) as error:
            why = str(error) or type(error).__name__
        if why:
            yield finding("KER05", file=name, why=why)
    yield from check_loads(set(entries), code)
    yield from check_manifest(entries)


def spend(code: Code, cost: int) -> bool:
    """Take the cost of a look into a file from what is left, so that no zip takes long; False: nothing was left."""
    there = code.left > 0
    code.left -= cost
    return there


READ_ERRORS = (EOFError, OSError, ValueError, OverflowError, NotImplementedError, RuntimeError, IndexError)


@contextmanager
def copied(file: zipfile.ZipFile, name: str):
    """One file of the zip as a stream that can be read from anywhere."""
    with tempfile.TemporaryFile() as copy:
        with file.open(name) as stream:
            while chunk := stream.read(1 << 20):
                copy.write(chunk)
        copy.seek(0)
        yield copy


def packed_tightly(info: zipfile.ZipInfo) -> bool:
    """Whether a file claims to be far larger than what it is packed into: what fills a disk."""
    return info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1)


def directory(stream: io.IOBase) -> int:
    """Bytes of a zip's directory, as its end claims them; 0 where there is none."""
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - (1 << 16) - 98))
    tail = stream.read()
    at = len(tail) - 22 if tail[-22:-18] == b"PK\x05\x06" else tail.rfind(b"PK\x05\x06")
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07" and tail[at - 76 : at - 72] == b"PK\x06\x06":  # zip64
        return struct.unpack_from("<Q", tail, at - 76 + 40)[0]
    return struct.unpack_from("<L", tail, at + 12)[0] if 0 <= at <= len(tail) - 22 else 0


def inner_zip(stream: io.IOBase) -> zipfile.ZipFile:
    """A zip that lies in the zip; BadZipFile where its directory is too large to be read."""
    if directory(stream) > MAX_DIRECTORY:
        raise zipfile.BadZipFile("its directory is too large")
    return zipfile.ZipFile(stream)


def parsed(data: bytes | str, what: str) -> dict:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise zipfile.BadZipFile(f"its {what} is damaged") from error
    if not isinstance(found, dict):
        raise zipfile.BadZipFile(f"its {what} is damaged")
    return found


def check_keras(stream: io.IOBase, name: str, code: Code) -> Iterator[Finding]:
    """Look into a .keras file, itself a zip: whether it is whole, who saved it, what its network is made of."""
    with inner_zip(stream) as file:
        names = set(file.namelist())
        for member in ("metadata.json", "config.json"):
            if member not in names:
                raise zipfile.BadZipFile(f"it has no {member}")
            if file.getinfo(member).file_size > MAX_CONFIG:
                raise zipfile.BadZipFile(f"its {member} is too large to be one")
        weights = next((name for name in ("model.weights.h5", "model.weights.npz") if name in names), None)
        if weights is None:
            raise zipfile.BadZipFile("it has no model.weights.h5")
        infos = [file.getinfo(member) for member in ("metadata.json", "config.json", weights)]
        empty = max(0, infos[2].file_size - infos[2].compress_size) // SPARSE
        if not spend(code, infos[0].file_size + infos[1].file_size + empty):
            return
        metadata, config = (parsed(file.read(m), m) for m in ("metadata.json", "config.json"))
        check_inner(file, weights)
    loads = code.loads(name)
    yield from keras_files.versions(name, str(metadata.get("keras_version")), loads)
    if loads and keras_files.release(str(metadata.get("keras_version")))[:1] >= (3,):
        compiled = config.pop("compile_config", None)
        yield from keras_files.check_model(name, config, compiled, code, loads, legacy=False)


def check_inner(file: zipfile.ZipFile, weights: str) -> None:
    """Read the weights inside a .keras file to their end; BadZipFile says what is wrong with them."""
    info, size, head = file.getinfo(weights), 0, b""
    if packed_tightly(info):
        raise zipfile.BadZipFile(f"its {weights} claims {info.file_size / 1e6:.0f} MB")
    try:
        with file.open(info) as stream:
            while (chunk := stream.read(1 << 20)) and size <= info.file_size:
                head, size = head or chunk[:4096], size + len(chunk)
    except (*READ_ERRORS, zipfile.BadZipFile) as error:
        raise zipfile.BadZipFile(f"its {weights} is damaged: {error}") from error
    why = hdf5.broken(head, size) if weights.endswith(".h5") else None if size else "it is empty"
    if why:
        raise zipfile.BadZipFile(f"its {weights}: {why}")


def check_h5(stream: io.IOBase, name: str, code: Code) -> Iterator[Finding]:
    """A whole model in an .h5 file, by the attributes of its root; a file of weights alone has none."""
    said = hdf5.root_texts(stream)
    loads = code.loads(name)
    if said is None:
        return
    if not said.get("model_config"):
        sure = [load for load in loads if load.path]
        yield from (not_loadable(load, name, "a file of weights without the network") for load in sure)
        return
    yield from keras_files.versions(name, said.get("keras_version", ""), loads)
    if not spend(code, sum(map(len, said.values()))):
        return
    config = parsed(said["model_config"], "model_config")
    compiled = parsed(said["training_config"], "training_config") if said.get("training_config") else None
    yield from keras_files.check_model(name, config, compiled, code, loads, legacy=True)


def check_pickle(file, name: str, head: bytes, known: frozenset[str], code: Code) -> Iterator[Finding]:
    start = pickles.pickled(head) if name.endswith(".npy") else 0
    if start is None:
        return
    with file.open(name) as stream:
        stream.read(start)
        found, count = pickles.modules(stream, max(1, min(pickles.MAX_OPCODES, code.left // OPCODE)))
        spend(code, count * OPCODE)
        needs = {module.split(".")[0] for module in found}
    for module in sorted(needs - known)[: keras_files.MOST]:
        yield finding("KER09", file=name, name=module)


def check_loads(names: set[str], code: Code) -> Iterator[Finding]:
    """Calls of load_model on what Keras 3 does not load: a SavedModel folder, another ending."""
    saved = {posixpath.dirname(name) for name in names if posixpath.basename(name) == "saved_model.pb"}
    for load in code.models:
        path = load.path and load.path.removeprefix("<zip>/").removeprefix("./").rstrip("/")
        how = None
        if path in saved or (load.path is None and saved and not any(name.endswith(MODELS) for name in names)):
            how = "a SavedModel folder"
        elif path in names and not path.endswith(MODELS):
            how = "which ends neither in .keras nor in .h5"
        if how:
            yield not_loadable(load, path or sorted(saved)[0], how)


def not_loadable(load: Load, path: str, how: str) -> Finding:
    return finding("KER08", file=load.file, at=f" line {load.line}", name=path, how=how)


def check_manifest(entries: dict) -> Iterator[Finding]:
    """The weights that a manifest of this package describes."""
    try:
        manifest = json.loads(entries["weights/manifest.json"].head)
        said = [manifest["sha256"], manifest.get("next", manifest)["sha256"]]  # `next`: of a run killed as it wrote
        weights = entries["weights/model.weights.h5"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return
    if weights.sha256 not in said:
        yield finding("KER06", file="weights/model.weights.h5")
