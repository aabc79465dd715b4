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
from grader.source import check_sources

GRADER_KERAS = "3.4.1"  # of tensorflow/tensorflow:2.17.0
MAX_MB = 2048  # a larger zip breaks off on upload; the largest that is known to have passed had 1.3 GB
COPY_MB = 100  # above this, a second copy of the submission in its own result is worth a word
MAX_FILE_NAME, MAX_ENTRY_NAME, MAX_ENTRIES = 64, 200, 10_000
MAX_RATIO, MAX_UNPACKED = 200, 8 << 30  # bytes
KEEP = 4 << 20  # bytes read of any file that is judged by its text

# Everything that zipfile and zlib are known to raise on bytes that are not a healthy zip.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error,
              NotImplementedError, RuntimeError, IndexError)  # fmt: skip
JUNK = re.compile(
    r"(^|/)(__MACOSX|__pycache__|\.ipynb_checkpoints|\.git|\.idea|\.vscode)(/|$)"
    r"|(^|/)(\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)$|\.py[co]$",
    re.IGNORECASE,
)


@dataclass
class Entry:
    """What one pass over a file in the zip leaves: its first bytes (all, up to KEEP), size and SHA-256."""

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
    with open(path, "rb"):
        pass
    if len(path.name) > MAX_FILE_NAME or path.suffix != ".zip":
        yield finding("ZIP06", name=path.name, length=len(path.name), limit=MAX_FILE_NAME)
    size = path.stat().st_size / 1e6
    if size > max_mb:
        yield finding("ZIP11", size=f"{size:.0f}", limit=f"{max_mb:.0f}")


def check_names(file: zipfile.ZipFile) -> Iterator[Finding]:
    """Judge the directory of the zip: names, kinds, sizes and methods as they are claimed."""
    infos = file.infolist()
    if len(infos) > MAX_ENTRIES:
        yield finding("ZIP10", name="the zip", claim=f"{len(infos)} entries (at most {MAX_ENTRIES})")
        return
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_UNPACKED:
        yield finding("ZIP10", name="the zip", claim=f"{unpacked / 1e9:.1f} GB once unpacked")
    seen: dict[str, str] = {}
    for info in infos:
        name = info.filename
        mode = info.external_attr >> 16
        how = odd_name(info)
        if how:
            yield finding("ZIP07", name=name, how=how)
            continue
        if JUNK.search(name):
            yield finding("ZIP05", name=name, pattern=JUNK.search(name)[0].strip("/") + "*")
        longest = max(map(len, name.split("/")))
        if len(name) > MAX_ENTRY_NAME or longest > 100:
            yield finding("ZIP06", name=name, length=len(name), limit=MAX_ENTRY_NAME)
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
    with file.open(info) as stream:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
            if size > info.file_size:
                raise zipfile.BadZipFile(f"{info.filename} is larger than it claims")
            digest.update(chunk)
            head += chunk[: KEEP - len(head)]
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is shorter than it claims")
    return Entry(head, size, digest.hexdigest())


def check_metadata(entries: dict[str, Entry]) -> Iterator[Finding]:
    named = [name for name in ("metadata", "metadata.yaml") if name in entries]
    for name in named:
        if re.search(rb"^\s*['\"]?command['\"]?\s*:", entries[name].head, re.MULTILINE):
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
            if file.getinfo(member).file_size > 64 << 20:
                raise zipfile.BadZipFile(f"its {member} is too large to be one")
        try:
            version = str(json.loads(file.read("metadata.json"))["keras_version"])
            config = json.loads(file.read("config.json"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise zipfile.BadZipFile("its metadata.json or config.json is damaged") from error
    if release(version) > release(GRADER_KERAS):
        yield finding("KER01", file=name, version=version, grader=GRADER_KERAS)
    compiled = config.pop("compile_config", None) if isinstance(config, dict) else None
    seen = set()
    for part in objects(config):
        class_name = str(part.get("class_name"))
        if class_name in seen:
            continue
        seen.add(class_name)
        if class_name == "Lambda":
            yield finding("KER03", file=name, name=str((part.get("config") or {}).get("name", "Lambda")))
        elif is_foreign(part) and not re.search(rf"\bclass {re.escape(class_name)}\b", code):
            yield finding("KER02", file=name, name=str(part.get("registered_name") or class_name))
    if not re.search(r"compile\s*=\s*False", code):
        custom = next((part for part in objects(compiled) if is_foreign(part)), None)
        if custom and not re.search(rf"\b(class|def) {re.escape(str(custom.get('class_name')))}\b", code):
            yield finding("KER04", file=name, name=str(custom.get("registered_name") or custom.get("class_name")))


def release(version: str) -> tuple[int, ...]:
    """(3, 4) of "3.4.1": files change between minor releases, not within one."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def objects(config) -> Iterator[dict]:
    """Every serialised object in a Keras config, at any depth."""
    todo = [config]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if "class_name" in part and "config" in part:
                yield part
            todo += part.values()
        elif isinstance(part, list):
            todo += part


def is_foreign(part: dict) -> bool:
    """True for an object that is not Keras's own: registered under a package, or from another module."""
    module, registered = str(part.get("module") or "keras"), str(part.get("registered_name") or "")
    return ">" in registered or module.split(".")[0] not in ("keras", "builtins")
