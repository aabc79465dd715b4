"""Static checks of a submission zip: nothing in it is run, nothing is unpacked to disk, TensorFlow is not needed.

    from grader.checks import check_zip
    for finding in check_zip("submission.zip"): print(finding.code, finding)

Three rooms: the container (names, sizes, compression), the Python sources (source.py, by their syntax tree) and the
weights (what is inside a .keras file, whether an .h5 file is whole). The codes are in codes.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.codes import Finding, finding, refused
from grader.source import MAX_SOURCE, check_sources

GRADER_KERAS = "3.4.1"  # of tensorflow/tensorflow:2.17.0
MAX_MB = 2048  # a larger zip breaks off on upload; the largest that is known to have passed had 1.3 GB
COPY_MB = 100  # above this, a second copy of the submission in its own result is worth a word
PREDICTIONS = ("predictions.npy", "progress.json")  # what the ingestion program writes
MAX_FILE_NAME, MAX_ENTRY_NAME, MAX_PART_NAME, MAX_ENTRIES = 64, 200, 100, 10_000
MAX_RATIO, MAX_UNPACKED = 200, 4 << 30  # bytes
MAX_PYTHON, MAX_CONFIG = 32 << 20, 16 << 20  # bytes of all sources together, of a .keras file's config.json
SHORT = 4096  # bytes kept of files that are not judged by their text

# Everything that zipfile and zlib are known to raise on bytes that are not a healthy zip.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error,
              NotImplementedError, RuntimeError, IndexError)  # fmt: skip
# Losses, metrics and activations that a file may name without a module.
KERAS_FUNCTIONS = frozenset(
    "binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy "
    "categorical_crossentropy categorical_focal_crossentropy cosine_similarity dice elu exponential gelu "
    "hard_sigmoid hard_silu hard_swish hinge huber kl_divergence kullback_leibler_divergence leaky_relu linear "
    "log_cosh log_softmax logcosh mean_absolute_error mean_squared_error mish poisson relu relu6 selu sigmoid "
    "silu softmax softplus softsign sparse_categorical_accuracy sparse_categorical_crossentropy "
    "sparse_top_k_categorical_accuracy squared_hinge swish tanh top_k_categorical_accuracy tversky".split()
)
JUNK = re.compile(
    r"(^|/)(__MACOSX|__pycache__|\.ipynb_checkpoints|\.git|\.idea|\.vscode)(/|$)"
    r"|(^|/)(\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)$|\.py[co]$",
    re.IGNORECASE,
)


@dataclass
class Entry:
    """What one pass over a file in the zip leaves: its first bytes (of sources and JSON all), size and SHA-256."""

    head: bytes
    size: int
    sha256: str


def check_zip(
    path: str | Path, profile: str = "strict", packages: tuple[str, ...] = (), max_mb: float = MAX_MB
) -> list[Finding]:
    """Findings of every kind, in the order of reading; empty for a healthy zip. `packages`: more that the grader has.

    Raises OSError where the file itself cannot be opened. Never raises on what is inside.
    """
    path = Path(path)
    found = list(check_file(path, max_mb))
    if refused([f for f in found if f.code == "ZIP10"]):
        return found
    try:
        with zipfile.ZipFile(path) as file:
            found += check_names(file)
            if refused([f for f in found if f.code not in ("ZIP01", "ZIP05", "ZIP06")]):
                return found  # reading on could be unsafe
            entries = {info.filename: read_entry(file, info) for info in file.infolist() if not info.is_dir()}
            found += check_metadata(entries)
            if "model.py" in entries:
                sources = {name: entry.head for name, entry in entries.items() if name.endswith(".py")}
                names, code = set(entries), b"\n".join(sources.values()).decode("utf-8", "replace")
                found += check_sources(sources, names, profile, packages)
                found += check_weights(file, entries, code)
    except ZIP_ERRORS as error:
        found.append(finding("ZIP03", why=str(error) or type(error).__name__))
    return found


def check_file(path: Path, max_mb: float) -> Iterator[Finding]:
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    if len(path.name) > MAX_FILE_NAME:
        yield finding(
            "ZIP06", name=path.name, how=f"has {len(path.name)} characters, at most {MAX_FILE_NAME} are allowed"
        )
    if path.suffix != ".zip":
        yield finding("ZIP06", name=path.name, how="does not end in .zip")
    if size > max_mb * 1e6:
        yield finding("ZIP11", size=f"{size / 1e6:.0f}", limit=f"{max_mb:.0f}")
    at = len(tail) - 22 if tail[-22:-18] == b"PK\x05\x06" else tail.rfind(b"PK\x05\x06")
    directory = struct.unpack_from("<L", tail, at + 12)[0] if 0 <= at <= len(tail) - 22 else 0
    if directory > MAX_ENTRIES * (46 + 2 * MAX_ENTRY_NAME):  # before zipfile makes an object of every entry
        yield finding("ZIP10", name="the zip", claim=f"a directory of {directory / 1e6:.0f} MB")


def check_names(file: zipfile.ZipFile) -> Iterator[Finding]:
    """Judge the directory of the zip: names, kinds, sizes and methods as they are claimed."""
    infos = file.infolist()
    if len(infos) > MAX_ENTRIES:
        yield finding("ZIP10", name="the zip", claim=f"{len(infos)} entries (at most {MAX_ENTRIES})")
        return
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_UNPACKED:
        yield finding("ZIP10", name="the zip", claim=f"{unpacked / 1e9:.1f} GB once unpacked")
    python = sum(info.file_size for info in infos if info.filename.endswith(".py"))
    if python > MAX_PYTHON:
        yield finding("ZIP10", name="the zip", claim=f"{python / 1e6:.0f} MB of Python sources")
    seen: dict[str, str] = {}
    for info in infos:
        name = info.filename
        mode = info.external_attr >> 16
        how = odd_name(info)
        if how:
            yield finding("ZIP07", name=name, how=how)
            continue
        if JUNK.search(name):
            yield finding("ZIP05", name=name, pattern=f"*{JUNK.search(name)[0].strip('/')}*")
        if name.split("/")[0] in PREDICTIONS:
            yield finding("ZIP13", name=name)
        if len(name) > MAX_ENTRY_NAME or max(map(len, name.split("/"))) > MAX_PART_NAME:
            yield finding("ZIP06", name=name, how=f"has parts of more than {MAX_PART_NAME} characters, or is longer "
                                                  f"than {MAX_ENTRY_NAME}")  # fmt: skip
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield finding("ZIP08", name=name)
        key = name.rstrip("/").casefold()
        if key in seen:
            yield finding("ZIP09", name=name, other=seen[key])
        seen[key] = name
        if info.file_size > 10 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            yield finding("ZIP10", name=name, claim=f"{info.file_size / 1e6:.0f} MB from {info.compress_size} bytes")
        if info.flag_bits & 0x1:
            yield finding("ZIP04", name=name, how="encrypted")
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = {9: "Deflate64", 12: "BZIP2", 14: "LZMA", 93: "Zstandard"}.get(info.compress_type)
            yield finding("ZIP04", name=name, how=f"compressed with {method or f'method {info.compress_type}'}")
    files = {info.filename for info in infos if not info.is_dir()}
    for name in files:  # a file where another entry needs a folder
        parts = name.casefold().split("/")
        for depth in range(1, len(parts)):
            other = seen.get("/".join(parts[:depth]))
            if other in files:
                yield finding("ZIP09", name=name, other=other)
    if "model.py" not in files:
        nested = sorted(n for n in files if n.split("/")[-1] == "model.py" and not JUNK.search(n))
        if nested:
            yield finding("ZIP01", where=nested[0].rpartition("/")[0] + "/")
        else:
            yield finding("ZIP02")


def odd_name(info: zipfile.ZipInfo) -> str | None:
    """Why a name would not unpack as it stands, or None. `orig_filename` still has what zipfile cleans away."""
    name = info.orig_filename
    if not name or any(not c.isprintable() for c in name):
        return "has no name or control characters in it"
    if "\\" in name:
        return "has backslashes"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "climbs out of its folder or has empty parts"
    if re.search(r"[<>:\"|?*]", name) or any(part != part.rstrip(". ") for part in name.removesuffix("/").split("/")):
        return "has characters that some systems do not allow"
    return None


def read_entry(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    """Read one file to its end, so that its CRC is checked; never more than it claims, and in small pieces."""
    digest, head, size = hashlib.sha256(), b"", 0
    keep = MAX_SOURCE + 1 if info.filename.endswith((".py", ".json", "metadata", "metadata.yaml")) else SHORT
    with file.open(info) as stream:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
            if size > info.file_size:
                raise zipfile.BadZipFile(f"{info.filename} is larger than it claims")
            digest.update(chunk)
            head += chunk[: keep - len(head)]
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is shorter than it claims")
    return Entry(head, size, digest.hexdigest())


def has_command(metadata: bytes) -> bool:
    """Whether a metadata file, read as YAML as the worker reads it, holds a command that is not empty."""
    import yaml  # here, so that a zip can be built by a Python that has the standard library alone

    try:
        content = yaml.safe_load(metadata[: 1 << 16].decode("utf-8-sig", errors="ignore"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and bool(content.get("command"))


def check_metadata(entries: dict[str, Entry]) -> Iterator[Finding]:
    named = [name for name in ("metadata", "metadata.yaml") if name in entries]
    for name in named:
        if has_command(entries[name].head):
            yield finding("MET01", name=name)
    size = sum(entry.size for entry in entries.values()) / 1e6
    if not named and size > COPY_MB:
        yield finding("ZIP12", size=f"{size:.0f}")


def check_weights(file: zipfile.ZipFile, entries: dict[str, Entry], code: str) -> Iterator[Finding]:
    for name, entry in entries.items():
        why = None
        if entry.head.startswith(b"version https://git-lfs"):
            why = "it is a Git LFS pointer; run git lfs pull"
        elif name.endswith((".h5", ".hdf5")):
            why = broken_hdf5(entry)
        elif name.endswith(".keras"):
            with tempfile.TemporaryFile() as copy:
                with file.open(name) as stream:
                    while chunk := stream.read(1 << 20):
                        copy.write(chunk)
                try:
                    yield from check_keras_file(copy, name, code)
                except ZIP_ERRORS as error:
                    why = str(error) or type(error).__name__
        if why:
            yield finding("KER05", file=name, why=why)
    try:
        manifest = json.loads(entries["weights/manifest.json"].head)
        said, weights = manifest["sha256"], entries["weights/model.weights.h5"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    if said != weights.sha256:
        yield finding("KER06", file="weights/model.weights.h5")


def broken_hdf5(entry: Entry) -> str | None:
    """Why an HDF5 file is not whole, from its superblock (HDF5 File Format Specification, section II.A), or None."""
    if not entry.head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "it is empty" if not entry.size else "it is not HDF5"
    version = entry.head[8] if entry.size > 8 else 255
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
    if at is None or entry.size < at + 8:
        return "its beginning is damaged"
    end = struct.unpack_from("<Q", entry.head, at)[0]
    return f"it has {entry.size} of {end} bytes" if entry.size < end else None


def check_keras_file(stream: io.IOBase, name: str, code: str) -> Iterator[Finding]:
    """Look into a .keras file, itself a zip: who saved it, and what its network is made of."""
    with zipfile.ZipFile(stream) as file:
        for member in ("metadata.json", "config.json", "model.weights.h5"):
            if member not in file.namelist():
                raise zipfile.BadZipFile(f"it has no {member}")
        for member in ("metadata.json", "config.json"):
            if file.getinfo(member).file_size > MAX_CONFIG:
                raise zipfile.BadZipFile(f"its {member} is too large to be one")
        try:
            version = str(json.loads(file.read("metadata.json"))["keras_version"])
            config = json.loads(file.read("config.json"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise zipfile.BadZipFile("its metadata.json or config.json is damaged") from error
    if release(version) > release(GRADER_KERAS):
        yield finding("KER01", file=name, version=version, grader=GRADER_KERAS)
    compiled = config.pop("compile_config", None) if isinstance(config, dict) else None
    registers = re.search(r"custom_object|register_keras_serializable", code)
    seen = set()
    for part in objects(config):
        what = part["class_name"]
        if what in ("Lambda", "__lambda__"):
            what = "Lambda"
        if what in seen:
            continue
        seen.add(what)
        if what == "Lambda":
            yield finding("KER03", file=name)
        elif is_foreign(part) and not (registers and defines(code, part)):
            yield finding("KER02", file=name, name=title(part))
    if not re.search(r"compile\s*=\s*False", code):
        custom = next((part for part in objects(compiled) if is_foreign(part)), None)
        if custom and not (registers and defines(code, custom)):
            yield finding("KER04", file=name, name=title(custom))


def release(version: str) -> tuple[int, ...]:
    """(3, 4) of "3.4.1": files change between minor releases, not within one."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def objects(config) -> Iterator[dict]:
    """Every serialised object in a Keras config, at any depth."""
    todo = [config]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str) and "config" in part:
                yield part
            todo += reversed(part.values())
        elif isinstance(part, list):
            todo += reversed(part)


def title(part: dict) -> str:
    """The name under which Keras would look for an object: a function's own, else as it was registered."""
    return str(
        part["config"] if part["class_name"] == "function" else part.get("registered_name") or part["class_name"]
    )


def defines(code: str, part: dict) -> bool:
    name = title(part).rpartition(">")[2]
    return bool(re.search(rf"\b(class|def)\s+{re.escape(name)}\b", code))


def is_foreign(part: dict) -> bool:
    """True for an object that Keras 3 on TensorFlow does not find by itself.

    Keras writes its own classes with their module, custom ones without one or registered as package>name, functions
    as class "function" with the bare name, and under another backend some of its own with that backend's module.
    """
    module, registered = part.get("module"), str(part.get("registered_name") or "")
    if part["class_name"] == "function":
        return str(part["config"]) not in KERAS_FUNCTIONS
    if module is None:
        return bool(registered) or part["class_name"] == "__lambda__"
    return str(module).split(".")[0] not in ("keras", "builtins") or bool(
        re.search(r"\.backend\.(torch|jax)", str(module))
    )
