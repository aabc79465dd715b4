"""The weights in a zip: whole or not, and what is in .keras, .h5, SavedModel, .npy and pickle files. Nothing is loaded.

check_weights(file, entries, code, known)     file: the open zip; code: what its sources load, see registry.py
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import posixpath
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from grader import keras_files, pickles
from grader.codes import Finding, finding
from grader.registry import Code, Load, name_in_zip

MAX_RATIO, SMALL = 200, 10 << 20  # how tightly a file may be packed; bytes below which it may be any
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".sav", ".dill")
UNPICKLE = {"load", "Unpickler", "loads", "read_pickle"}
PROTOCOLS = [bytes((0x80, number)) for number in range(2, 6)]  # with which a pickle begins
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
MODELS = (".keras", ".h5", ".hdf5")
# Everything that zipfile and zlib are known to raise on bytes that are not a healthy zip.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error,
              NotImplementedError, RuntimeError, IndexError, lzma.LZMAError)  # fmt: skip


def check_weights(file: zipfile.ZipFile, entries: dict, code: Code, known: frozenset[str]) -> Iterator[Finding]:
    """Findings on every file of the zip that holds weights. known: modules that an import finds at the grader."""
    for name, entry in entries.items():
        why = pointer(entry.head)
        try:
            if not why and name.endswith((".h5", ".hdf5")):
                why = broken(entry.head, entry.size)
                if not why and (code.loads(name) or weights_of(name, code)):
                    with copied(file, name) as stream:
                        yield from check_h5(stream, name, code)
            elif not why and name.endswith(".keras"):
                with copied(file, name) as stream:
                    yield from check_keras(stream, name, code)
            elif not why and code.calls & UNPICKLE and code.speaks_of(name):
                needs = needed(file, name, entry.head)
                yield from (finding("KER09", file=name, name=module) for module in sorted(needs - known))
                if needs and name in code.arrays:
                    why = "it holds Python's objects, which np.load takes only with allow_pickle=True"
        except ZIP_ERRORS as error:
            why = str(error) or type(error).__name__
        if why:
            yield finding("KER05", file=name, why=why)
    yield from check_loads(set(entries), code)
    yield from check_manifest(entries)


def pointer(head: bytes) -> str | None:
    """What is wrong with a file that Git LFS has yet to fetch, by its first bytes; None of any other."""
    return "it is a Git LFS pointer; run git lfs pull" if head.startswith(b"version https://git-lfs") else None


def broken(head: bytes, size: int) -> str | None:
    """Why a file of `size` bytes that begins with `head` is no whole HDF5 file, by its superblock, or None."""
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "it is empty" if not size else "it is not HDF5"
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if size > 8 else 255)
    if at is None or size < at + 8:
        return "its beginning is damaged"
    end = struct.unpack_from("<Q", head, at)[0]
    return f"it has {size} of {end} bytes" if size < end else None


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


def parsed(data: bytes | str, what: str) -> dict:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise zipfile.BadZipFile(f"its {what} is damaged")
    return found


def check_keras(stream: io.IOBase, name: str, code: Code) -> Iterator[Finding]:
    """Look into a .keras file, itself a zip: whether it is whole, who saved it, what its network is made of."""
    with zipfile.ZipFile(stream) as file:
        names = set(file.namelist())
        weights = "model.weights.npz" if "model.weights.npz" in names else "model.weights.h5"
        for member in ("metadata.json", "config.json", weights):
            if member not in names:
                raise zipfile.BadZipFile(f"it has no {member}")
            if packed_tightly(info := file.getinfo(member)):
                raise zipfile.BadZipFile(f"its {member} claims {info.file_size / 1e6:.0f} MB")
        metadata, config = (parsed(file.read(m), m) for m in ("metadata.json", "config.json"))
        check_inner(file, weights)
    loads = code.loads(name)
    yield from keras_files.versions(name, str(metadata.get("keras_version")), loads)
    if loads and keras_files.release(str(metadata.get("keras_version")))[:1] >= (3,):
        compiled = config.pop("compile_config", None)
        yield from keras_files.check_model(name, config, compiled, code, loads, legacy=False)


def check_inner(file: zipfile.ZipFile, weights: str) -> None:
    """Read the weights inside a .keras file to their end; BadZipFile says what is wrong with them."""
    size, head = 0, b""
    try:
        with file.open(weights) as stream:
            while chunk := stream.read(1 << 20):
                head, size = head or chunk[:4096], size + len(chunk)
    except ZIP_ERRORS as error:
        raise zipfile.BadZipFile(f"its {weights} is damaged: {error}") from error
    why = broken(head, size) if weights.endswith(".h5") else None if size else "it is empty"
    if why:
        raise zipfile.BadZipFile(f"its {weights}: {why}")


def check_h5(stream: io.IOBase, name: str, code: Code) -> Iterator[Finding]:
    """A whole model in an .h5 file, by the attributes of its root; a file of weights alone has none."""
    import h5py

    with h5py.File(stream, "r") as file:
        how = misnamed(file, name)
        yield from (not_loadable(load, name, how) for load in weights_of(name, code) if how)
        said = {key: as_text(file.attrs.get(key)) for key in ("keras_version", "model_config", "training_config")}
    loads = code.loads(name)
    if not said["model_config"]:
        sure = [load for load in loads if load.path]
        yield from (not_loadable(load, name, "a file of weights without the network") for load in sure)
        return
    yield from keras_files.versions(name, said["keras_version"], loads)
    config = parsed(said["model_config"], "model_config")
    compiled = parsed(said["training_config"], "training_config") if said["training_config"] else None
    yield from keras_files.check_model(name, config, compiled, code, loads, legacy=True)


def weights_of(name: str, code: Code) -> list[Load]:
    """The calls of load_weights that open this file of the zip."""
    return [load for load in code.weights if load.path and name_in_zip(load.path) == name]


def misnamed(file, name: str) -> str:
    """Why load_weights, which goes by the name of an .h5 file, would not read this one; "" where it would."""
    older = "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)
    newer = not older and ("layers" in file or "_layer_checkpoint_dependencies" in file)
    ending = name.endswith(".weights.h5")
    if older and ending:
        return "whose weights Keras 2 wrote, or a whole model: its name must not end in .weights.h5"
    return "whose weights Keras 3 wrote: its name must end in .weights.h5" if newer and not ending else ""


def as_text(value) -> str:
    """An attribute's text; "" where it holds none."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def needed(file: zipfile.ZipFile, name: str, head: bytes) -> set[str]:
    """Packages that a file's pickles need: a pickle, a packed one, or arrays of objects in .npy and .npz files."""
    opened = next((way for magic, way in PACKED.items() if head.startswith(magic)), None)
    if name.endswith(".npz"):
        with copied(file, name) as stream, zipfile.ZipFile(stream) as arrays:
            needs = set().union(*(pickles.modules_of_array(arrays.open(member)) for member in arrays.namelist()))
    elif name.endswith(PICKLES) or opened or head.startswith((b"\x93NUMPY", *PROTOCOLS)):
        with file.open(name) as stream:
            array = head.startswith(b"\x93NUMPY")
            needs = pickles.modules_of_array(stream) if array else pickles.modules(opened(stream) if opened else stream)
    else:
        needs = set()
    return {module.split(".")[0] for module in needs}


def check_loads(names: set[str], code: Code) -> Iterator[Finding]:
    """Calls on what Keras 3 does not load: a SavedModel folder, a TensorFlow checkpoint, another ending."""
    other = "which ends neither in .keras nor in .h5"
    for load in code.weights:
        if load.path and not load.path.endswith(MODELS):
            path = name_in_zip(load.path)
            yield not_loadable(load, path, "a TensorFlow checkpoint" if f"{path}.index" in names else other)
    saved = {posixpath.dirname(name) for name in names if posixpath.basename(name) == "saved_model.pb"}
    for load in code.models:
        path = load.path and name_in_zip(load.path)
        how = None
        if path in saved or (load.path is None and saved and not any(name.endswith(MODELS) for name in names)):
            how = "a SavedModel folder"
        elif path in names and not path.endswith(MODELS):
            how = other
        if how:
            yield not_loadable(load, path or sorted(saved)[0], how)


def not_loadable(load: Load, path: str, how: str) -> Finding:
    return finding("KER08", file=load.file, at=f" line {load.line}", call=load.call, name=path, how=how)


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
