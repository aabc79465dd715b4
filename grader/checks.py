"""Static checks of a submission zip. They run nothing in it and do not need TensorFlow.

    from grader.checks import check_within_limits
    for finding in check_within_limits("submission.zip"): print(finding.code, finding)

This file checks the container (names, sizes, compression), source.py the Python sources, weights.py the weights.
"""

import contextlib
import hashlib
import multiprocessing
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from grader.codes import Finding, finding, refused
from grader.source import KNOWN, check_sources, module_names
from grader.weights import MANIFEST, WEIGHTS, ZIP_ERRORS, check_weights, packed_tightly
from grader.worker import ERAS, NEWEST

MAX_MB = 15_000  # a user's quota; a zip of 4.4 GB has been accepted
SLOW_MB = 2000  # uploads above this often break off
COPY_MB = 100  # above this, warn that the result holds a copy of the submission
PREDICTIONS = ("predictions.npy", "progress.json")  # what the ingestion program writes
MAX_FILE_NAME, MAX_ENTRY_NAME, MAX_ENTRIES = 64, 1000, 10_000
MAX_PART_NAME = 255  # bytes that Linux allows
MAX_UNPACKED = 15 * 10**9  # bytes
WHOLE_RATIO, WHOLE_SMALL = 20, 100 << 20  # largest compression ratio; unpacked bytes below which any will do
SECONDS, PACE, MEMORY = 2, 20_000_000, 500_000_000  # CPU seconds, plus 1 for each PACE bytes; memory in bytes
MOST = 20  # findings of one code at most
READ = (MANIFEST, "metadata", "metadata.yaml")
SHOWN = 5  # names of leftovers in a finding
SHORT = 4096  # bytes kept of files that are neither sources nor in READ
JUNK = re.compile(
    r"(?:^|/)(?:(__MACOSX|__pycache__|\.ipynb_checkpoints|\.git|\.idea|\.vscode)(?:/|$)|(\._)[^/]*$"
    r"|(\.DS_Store|Thumbs\.db|desktop\.ini)$)|(\.py[co])$",
    re.IGNORECASE,
)
JUNK_ENDS = {1: "/*", 2: "*", 3: "", 4: ""}  # of the pattern for `zip -d`, by group of JUNK
ODD_NAMES = {  # {pattern: why an entry with such a name would not unpack under it}
    r"^$|[\0-\x1f\x7f-\x9f]": "has no name or control characters in it",
    r"\\": "has backslashes",
    r"^(/|[A-Za-z]:)": "is an absolute path",
    r"(^|/)\.\.?(/|$)|//": "climbs out of its folder or has empty parts",
}


class Entry(NamedTuple):
    head: bytes  # its beginning; all of sources and of READ
    size: int
    sha256: str  # only of WEIGHTS


def check_within_limits(path: str | Path, *how) -> list[Finding]:
    """Run check_zip in a child process with limits on CPU time and memory: a hostile zip may use much or crash it.

    Adds ZIP14 if it does: an error while reading the container, a warning at sources and weights.
    Raises ImportError if this Python lacks a package that the check needs.
    """
    limits = {"seconds": SECONDS + os.stat(path).st_size // PACE, "memory": MEMORY // 10**6}
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=check_and_send, args=(send, limits, path, *how))
    process.start()
    send.close()
    found = [finding("ZIP14", "error", **limits)]
    with contextlib.suppress(EOFError):
        while True:
            found = receive.recv()
    process.join()
    if isinstance(found, ImportError):
        raise found
    return found


def check_and_send(send, limits: dict[str, int], path: str | Path, *how) -> None:
    """In the child: send the container's findings and ZIP14, in case it crashes later; then all, or the ImportError."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # as far as the system supports it
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"]))
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for h5py's numpy: each thread would use memory
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, held + MEMORY))
    ended = finding("ZIP14", "warning", **limits)
    with contextlib.suppress(MemoryError, RecursionError):
        try:
            send.send(check_zip(path, *how, then=lambda found: send.send([*found, ended])))
        except ImportError as error:
            send.send(error)


def check_zip(
    path: str | Path, profile: str = "an2dl", packages: tuple[str, ...] = (), era: str = NEWEST, then=lambda found: None
) -> list[Finding]:
    """All findings on a zip, each once, in the order in which a run would meet them; empty for a healthy zip.

    profile, era: as in worker.py. packages: more modules that the grader has. then: given the container's findings.
    """
    path = Path(path)
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe or reading a device may block
        return [finding("ZIP03", why="it is no regular file")]
    found = list(check_file(path))
    if refused([f for f in found if f.code == "ZIP11"]):
        return found
    try:
        with zipfile.ZipFile(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in the sources
            found += check_names(file, path.stat().st_size)
            if refused([f for f in found if f.code not in ("ZIP01", "ZIP06")]):
                return in_order(found)  # reading on could be unsafe
            entries = {info.filename: read_entry(file, info) for info in file.infolist() if not info.is_dir()}
            found += check_metadata(entries, era)
            then(in_order(found))
            if "model.py" in entries:
                sources = {name: entry.head for name, entry in entries.items() if name.endswith(".py")}
                said, code = check_sources(sources, set(entries), profile, packages, not ERAS[era].over_predictions)
                found += said
                found += check_weights(file, entries, code, KNOWN | module_names(sources) | set(packages))
    except ZIP_ERRORS as error:
        found.append(finding("ZIP03", why=str(error) or type(error).__name__))
    return in_order(found)


# Beginnings of codes, in the order of a run: unpacking, import of model.py (syntax, imports), Model(), predict.
ORDER = "ZIP MET PY01 IMP04 IMP01 IMP02 IMP05 PY02 PY03 PATH KER08 KER05 KER01 KER PY05 PY06 PY04 NET IMP03".split()


def in_order(found: list[Finding]) -> list[Finding]:
    """Sort findings by ORDER and line; merge those that differ only in the line, with a count; keep MOST of a code."""
    kinds: dict[tuple[str, str, str], list[Finding]] = {}
    for f in sorted(found, key=lambda f: int((re.search(r" line (\d+)", f.wrong) or [0, 0])[1])):
        kinds.setdefault((f.code, f.level, re.sub(r" line \d+", "", f.wrong)), []).append(f)
    codes: dict[tuple[str, str], list[Finding]] = {}
    for (code, level, _), (first, *more) in kinds.items():
        note = f" ({len(more) + 1} times)" if more else ""
        codes.setdefault((code, level), []).append(first._replace(wrong=first.wrong + note))
    for same in codes.values():
        if len(same) > MOST:
            last = same[MOST - 1]
            same[MOST - 1 :] = [last._replace(wrong=f"{last.wrong} (and {len(same) - MOST} more)")]
    shown = (f for same in codes.values() for f in same)
    return sorted(shown, key=lambda f: [not f.code.startswith(start) for start in ORDER])  # by the first that matches


def check_file(path: Path) -> Iterator[Finding]:
    size = path.stat().st_size
    if len(path.name) > MAX_FILE_NAME:
        yield finding("ZIP06", name=path.name, how=f"has {len(path.name)} characters, more than {MAX_FILE_NAME}")
    if path.suffix != ".zip":
        yield finding("ZIP06", name=path.name, how="does not end in .zip")
    if size > SLOW_MB * 1e6:
        yield finding("ZIP11", "error" if size > MAX_MB * 1e6 else "warning", size=f"{size / 1e6:.0f}")


def check_names(file: zipfile.ZipFile, size: int) -> Iterator[Finding]:
    """Check the central directory of a zip of `size` bytes: names, file types, claimed sizes, compression methods."""
    infos = file.infolist()
    if len(infos) > MAX_ENTRIES:
        yield finding("ZIP10", name="the zip", claim=f"{len(infos)} entries (at most {MAX_ENTRIES})")
        return
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_UNPACKED or (unpacked > WHOLE_SMALL and unpacked > WHOLE_RATIO * size):
        yield finding("ZIP10", name="the zip", claim=f"{unpacked / 1e9:.1f} GB once unpacked, from {size / 1e6:.1f} MB")
    seen: dict[str, set[str]] = {}  # {name in lower case: names}
    for info in infos:
        name = info.filename
        odd = [how for pattern, how in ODD_NAMES.items() if re.search(pattern, info.orig_filename)]
        if odd:  # zipfile cleans `filename`, not `orig_filename`
            yield finding("ZIP07", name=name, how=odd[0])
            continue
        yield from check_entry(info)
        if name.split("/")[0] in PREDICTIONS:
            yield finding("ZIP13", name=name)
        key = name.rstrip("/")
        same = seen.setdefault(key.casefold(), set())
        if same:
            yield finding("ZIP09", "error" if key in same else "warning", name=name, other=min(same))
        same.add(key)
    files = {info.filename for info in infos if not info.is_dir() and len(info.filename) <= MAX_ENTRY_NAME}
    yield from check_leftovers(sorted(info.filename for info in infos))
    for name in sorted(files):  # a file where another entry needs a folder
        for folder in (name[:at] for at, letter in enumerate(name) if letter == "/"):
            for other in sorted(seen.get(folder.casefold(), set()) & files):
                yield finding("ZIP09", "error" if other == folder else "warning", name=name, other=other)
    if "model.py" not in files:
        nested = sorted(n for n in files if n.split("/")[-1] == "model.py" and not JUNK.search(n))
        inside = nested[0].removesuffix("model.py") if nested else inside_another(file, infos)
        yield finding("ZIP01" if nested else "ZIP02", where=inside)


def check_entry(info: zipfile.ZipInfo) -> Iterator[Finding]:
    name = info.filename
    if len(name) > MAX_ENTRY_NAME or any(len(part.encode()) > MAX_PART_NAME for part in name.split("/")):
        how = f"has parts of more than {MAX_PART_NAME} bytes, or is longer than {MAX_ENTRY_NAME} characters"
        yield finding("ZIP06", name=name, how=how)
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield finding("ZIP08", name=name)
    if packed_tightly(info):
        yield finding("ZIP10", name=name, claim=f"{info.file_size / 1e6:.0f} MB from {info.compress_size} bytes")
    if info.flag_bits & 0x1:
        yield finding("ZIP04", name=name, how="encrypted")
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        method = {9: "Deflate64", 93: "Zstandard"}.get(info.compress_type, f"method {info.compress_type}")
        yield finding("ZIP04", name=name, how=f"compressed with {method}")


def check_leftovers(names: list[str]) -> Iterator[Finding]:
    """One finding on all leftovers, with patterns for `zip -d` that delete them (its * matches slashes, too)."""
    junk = [match for match in map(JUNK.search, names) if match]
    if junk:
        patterns = sorted({f"'*{match[match.lastindex]}{JUNK_ENDS[match.lastindex]}'" for match in junk})
        shown = [match.string for match in junk[:SHOWN]] + ["..."] * (len(junk) > SHOWN)
        yield finding("ZIP05", n=len(junk), name=", ".join(shown), patterns=" ".join(patterns))


def inside_another(file: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> str:
    """A phrase that names the zip inside the zip that holds model.py; empty if there is none."""
    for info in [info for info in infos if info.filename.lower().endswith(".zip")][:3]:
        with contextlib.suppress(*ZIP_ERRORS), file.open(info) as stream, zipfile.ZipFile(stream) as inner:
            if any(name.split("/")[-1] == "model.py" for name in inner.namelist()):
                return f": it lies in {info.filename}, a zip inside the zip; upload that one"
    return ""


def read_entry(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    """Read one file to its end, which checks the CRC, in pieces of 1 MB. Raises BadZipFile if it is too short."""
    digest, head, size = hashlib.sha256(), b"", 0
    keep = info.file_size if info.filename.endswith(".py") or info.filename in READ else SHORT
    with file.open(info) as stream:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
            if info.filename == WEIGHTS:
                digest.update(chunk)
            head += chunk[: keep - len(head)]
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is shorter than it claims")
    return Entry(head, size, digest.hexdigest())


def has_command(metadata: bytes) -> bool:
    """Whether a metadata file, read as YAML as the worker does, holds a command that is not empty."""
    import yaml  # imported here: building a zip needs the standard library only

    with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
        # As nodes only: resolving aliases and tags could take unlimited memory and time.
        root = yaml.compose(metadata.decode("utf-8-sig", errors="ignore"), Loader=yaml.SafeLoader)
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        return any(key.value == "command" and value.value and not value.tag.endswith(":null") for key, value in pairs)
    return False


def check_metadata(entries: dict[str, Entry], era: str) -> Iterator[Finding]:
    named = [name for name in ("metadata", "metadata.yaml") if name in entries]
    yield from (finding("MET01", name=name) for name in named if has_command(entries[name].head))
    size = sum(entry.size for entry in entries.values()) / 1e6
    if not named and size > COPY_MB and not ERAS[era].over_predictions:
        yield finding("ZIP12", size=f"{size:.0f}")
