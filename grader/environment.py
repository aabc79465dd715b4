"""The Python environment of a rehearsal: a given interpreter without the packages that the grader lacks.

    environment.lay_out(folder, "/usr/bin/python3.11", packages=("cv2",))
    folder/bin/python                  imports TensorFlow and cv2, but not SciPy, as the grader's does

It is a virtual environment with links to the distributions that the grader's image has: all others are missing.
"""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

from grader.source import GRADER_PACKAGES

# Of tensorflow/tensorflow:2.17.0. A longer version matches, too (1.26.4 matches 1.26).
GRADER_VERSIONS = {"python": "3.11", "tensorflow": "2.17.0", "keras": "3.4.1", "numpy": "1.26"}
SHOWN = {"python": "Python", "tensorflow": "TensorFlow", "keras": "Keras", "numpy": "numpy"}
# `google` is a folder that many distributions share; the grader has protobuf's part of it.
ALLOWED = (GRADER_PACKAGES - {"google"}) | {"google.protobuf", "clang", "pasta"}
LOOK = """
import importlib.metadata, json, os, platform, sys
sys.path.remove("")
found = []
for dist in importlib.metadata.distributions():
    place, entries = str(dist.locate_file("")), set()
    record = dist.read_text("RECORD") or dist.read_text("top_level.txt") or ""
    for line in record.splitlines():
        first, *rest = line.split(",")[0].strip('"').split("/")
        first = first if os.path.lexists(os.path.join(place, first)) else first + ".py"  # of a top_level.txt
        shared = rest and not first.endswith("-info") and not os.path.exists(os.path.join(place, first, "__init__.py"))
        entries.add(first + "/" + rest[0] if shared else first)
    entries = sorted(e for e in entries if e.split("/")[0] not in ("..", "__pycache__", "bin"))
    name, requires = dist.metadata["Name"] or "", dist.requires or []
    found.append({"name": name, "version": dist.version, "place": place, "entries": entries, "requires": requires})
print(json.dumps({"version": platform.python_version(), "distributions": found,
                  "base": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)}))
"""


@functools.lru_cache(maxsize=4)
def look(python: str) -> dict:
    """Version, base executable and distributions of an interpreter. Raises ValueError if it cannot be run."""
    try:
        done = subprocess.run([python, "-E", "-c", LOOK], capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{python} is no Python that can be run ({error})") from None


def modules(distribution: dict) -> set[str]:
    """Names that can be imported from a distribution; "google.protobuf" if it shares the folder `google`."""
    entries = [entry.split("/") for entry in distribution["entries"]]
    entries = [parts for parts in entries if not parts[0].endswith(("-info", ".libs", ".pth"))]
    return {".".join(part.split(".")[0] for part in parts) for parts in entries}


def plain(name: str) -> str:
    """A distribution's name, normalised as on PyPI."""
    return re.sub(r"[-_.]+", "-", name).lower()


def owners(python: str) -> dict[str, str]:
    """{module: its distribution}; the first part of a module's name is a key, too."""
    distributions = look(python)["distributions"]
    return {name: plain(d["name"]) for d in distributions for m in modules(d) for name in (m, m.split(".")[0])}


def missing(python: str, packages: tuple[str, ...]) -> list[str]:
    """Those of the modules `packages` that the interpreter lacks."""
    return [name for name in packages if name not in owners(python)]


def kept(python: str, packages: tuple[str, ...] = ()) -> list[dict]:
    """The interpreter's distributions that the grader has, and those of the modules `packages` with dependencies."""
    distributions, named = look(python)["distributions"], owners(python)
    requires = {plain(d["name"]): d["requires"] for d in distributions}
    found = {plain(d["name"]) for d in distributions if modules(d) & ALLOWED}
    todo = [named[name] for name in packages if name in named]
    for name in todo:  # which grows meanwhile
        if name in requires and name not in found:
            found.add(name)
            todo += [plain(re.match(r"[\w.-]+", line)[0]) for line in requires[name] if "extra ==" not in line]
    return [d for d in distributions if plain(d["name"]) in found]


def hidden(python: str, packages: tuple[str, ...] = ()) -> list[str]:
    """Names of the interpreter's modules that are hidden from a rehearsal."""
    seen = kept(python, packages)
    names = {name for d in look(python)["distributions"] if d not in seen for name in modules(d)}
    return sorted(name for name in names if name[:1] != "_" and all(map(str.isidentifier, name.split("."))))


def versions(python: str) -> dict[str, str | None]:
    """Versions of Python, tensorflow, keras and numpy; None for what is not installed."""
    facts = look(python)
    found = {name: d["version"] for d in facts["distributions"] for name in modules(d) if name in GRADER_VERSIONS}
    return {name: {**found, "python": facts["version"]}.get(name) for name in GRADER_VERSIONS}


def differing(found: dict[str, str | None]) -> list[str]:
    """Names whose version differs from the grader's."""
    return [name for name, there in GRADER_VERSIONS.items() if not f"{found[name]}.".startswith(f"{there}.")]


def phrase(found: dict[str, str | None], names: list[str] | None = None) -> str:
    """'Python 3.11.7, TensorFlow 2.17.0, ...', or of these names only."""
    return ", ".join(f"{SHOWN[name]} {found[name]}" if found[name] else f"no {SHOWN[name]}" for name in names or found)


def lay_out(folder: Path, python: str, packages: tuple[str, ...] = ()) -> Path:
    """Make the environment in `folder`, which must not exist. Returns its site-packages.

    It links rather than copies, so that libraries find other libraries that lie beside them.
    """
    facts = look(python)
    site = folder / "lib" / f"python{facts['version'].rpartition('.')[0]}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(facts["base"])
    settings = f"home = {os.path.dirname(facts['base'])}\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(settings)
    for distribution in kept(python, packages):
        for entry in distribution["entries"]:
            link = site / entry
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.realpath(os.path.join(distribution["place"], entry)))
    return site
