"""What is inside the weights of a submission, judged against what the grader's Keras takes. Nothing is loaded.

    check_model(config, "net.keras", code, loads)     one whole model's config; `code` says what the sources register

The table keras_table.json is made from the grader's Keras by tests/keras_table.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from grader.codes import Finding, finding
from grader.registry import Code, Load

GRADER_KERAS = "3.4.1"  # of tensorflow/tensorflow:2.17.0
BUILTIN = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
POPPED = {"batch_input_shape", "axis", "module", "function_type", "output_shape_type", "output_shape_module"}  # of .h5


@functools.cache
def table() -> dict:
    return json.loads((Path(__file__).parent / "keras_table.json").read_text())


@functools.cache
def held(module: str) -> frozenset[str] | None:
    """The names in a public module of Keras, tensorflow.keras, TensorFlow or numpy of the grader; None of any other."""
    names = table()["names"].get(module)
    if names is None and module.startswith("tensorflow.keras."):
        names = table()["names"].get(module.removeprefix("tensorflow."))
    return None if names is None else frozenset(names.split())


@functools.cache
def by_name() -> dict[str, list[str | None]]:
    """{class name: the arguments of every class of that name}, as a whole-model .h5 looks them up."""
    found: dict[str, list[str | None]] = {name: [] for name in table()["layers"].split()}
    for place, arguments in table()["classes"].items():
        if not place.startswith("keras.src."):
            found.setdefault(place.split(".")[-1], []).append(arguments)
    return found


@functools.cache
def functions() -> frozenset[str]:
    """Names that Keras finds without a module."""
    places = [place.split(".") for place in table()["functions"]]
    return frozenset(parts[-1] for parts in places if parts[1] in BUILTIN)


class Doubt(NamedTuple):
    """Why one object of a config does not come to life: a code and the words for it."""

    code: str
    name: str
    how: str


def check_model(
    name: str, config: dict, compiled: object, code: Code, loads: list[Load], legacy: bool
) -> Iterator[Finding]:
    """Findings on a whole model: its network `config` and what it was compiled with. legacy: of an .h5 file."""
    every = {(doubt.code, doubt.name): doubt for doubt in judged(config, code, legacy) if doubt}
    for doubt in every.values():
        if doubt.code == "KER03":
            refuses = not legacy and code.safe and any(load.safe for load in loads)
            yield finding("KER03", "error" if refuses else "warning", file=name)
        else:
            yield finding(doubt.code, file=name, name=doubt.name, how=doubt.how)
    doubts = judged(compiled, code, legacy) if any(load.compiles for load in loads) else None
    doubt = doubts and (next((d for d in doubts if d and d.code != "KER03"), None) or stuck(compiled, code, legacy))
    if doubt:
        taken = f"the grader's Keras does not take as it stands there ({doubt.how})"
        yield finding("KER04", file=name, name=doubt.name, how=taken if doubt.code == "KER07" else doubt.how)


def judged(config: object, code: Code, legacy: bool) -> Iterator[Doubt | None]:
    """What is to be said of each object in a config."""
    for part in objects(config):
        named = {key: part[key] for key in ("module", "registered_name") if key in part}
        named = {key: v if v is None or isinstance(v, str) else type(v).__name__ for key, v in named.items()}
        inside = part["config"] if isinstance(part["config"], (dict, str)) else None
        yield judge(part | named | {"config": inside}, code, legacy)


def stuck(compiled: object, code: Code, legacy: bool) -> Doubt | None:
    """A loss that an .h5 names in a way at which load_model of the grader's Keras stops."""
    if not legacy or not isinstance(compiled, dict):
        return None
    loss, metrics = compiled.get("loss"), compiled.get("metrics")
    given = [("loss", loss)] + [("metrics", name) for name in metrics or [] if isinstance(metrics, list)]
    for kind, name in given:
        if isinstance(name, str) and name in table()["stuck"][kind].split() and name not in code.passed:
            return Doubt("KER04", name, "Keras 3.4.1 does not find by its short name in an .h5 file")
    if isinstance(loss, str) and not (loss in functions() or loss in by_name() or known(loss, code)):
        return Doubt("KER04", loss, "neither the grader's Keras has nor the sources pass as custom_objects")
    return None


def known(name: object, code: Code) -> bool:
    return code.open or name in code.passed or name in code.registered


def judge(part: dict, code: Code, legacy: bool) -> Doubt | None:
    """Look one object up as Keras does, and compare its arguments with the constructor's."""
    what, config = part["class_name"], part["config"]
    if what == "__lambda__" or (what == "Lambda" and not known("Lambda", code)):
        return Doubt("KER03", "Lambda", "")
    if what.startswith("__"):
        return None
    if what == "function":
        name = config if isinstance(config, str) else what
        return None if function_found(part, code) else missing(name, name, code)
    registered = part.get("registered_name") or what
    if known(registered, code) or (legacy and known(what, code)):
        return None
    module = part.get("module")
    if module is None and not ("module" in part or not legacy):
        places = by_name().get(what)
        taken = None if places is None else None if None in places or not places else " ".join(places)
        return missing(registered, what, code) if places is None else unfit(what, config, taken, POPPED)
    place = f"{module}.{what}"
    if place in table()["classes"]:
        return unfit(what, config, table()["classes"][place], set())
    return None if in_module(str(module), what, code) else missing(registered, what, code)


def unfit(what: str, config: object, taken: str | None, popped: set[str]) -> Doubt | None:
    more = set(config) - set(taken.split()) - popped if isinstance(config, dict) and taken is not None else set()
    return Doubt("KER07", what, ", ".join(sorted(map(str, more)))) if more else None


def in_module(module: str, name: str, code: Code) -> bool:
    """Whether Keras finds a name by importing the module that a file names for it."""
    if module in code.defined:
        return name in code.defined[module]
    return module.split(".")[0] in ("tensorflow", "numpy")


def function_found(part: dict, code: Code) -> bool:
    name, module = part["config"], part.get("module")
    if not isinstance(name, str):
        return False
    if known(name, code) or known(part.get("registered_name"), code):
        return True
    if module == "builtins":
        return name in functions() or any(key.endswith(name) for key in code.passed | code.registered)
    places = table()["functions"]
    if str(module).split(".")[0] == "keras":
        return f"{module}.{name}" in places or any(place.endswith(f".{name}") for place in places)
    return in_module(str(module), name, code)


def missing(registered: object, name: str, code: Code) -> Doubt:
    """Say what could be meant by an object that is not found."""
    package, _, plain = str(registered).rpartition(">")
    others = sorted(key for key in code.registered if key.rpartition(">")[2] == plain)
    if others:
        how = f"the sources register as {others[0]}"
    elif any(name in names or plain in names for names in code.defined.values()):
        how = "the sources define, but neither register nor pass as custom_objects"
    elif name in code.idle or plain in code.idle:
        how = f"only {code.idle.get(plain) or code.idle[name]} defines, which model.py never imports"
    else:
        how = "neither the grader's Keras nor model.py defines"
    return Doubt("KER02", str(registered), how)


def objects(config: object) -> Iterator[dict]:
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


def versions(name: str, version: str, loads: list[Load]) -> Iterator[Finding]:
    """A word on a file of another Keras: older ones wrote other .keras files, newer ones mostly the same."""
    if loads and release(version) > release(GRADER_KERAS):
        yield finding("KER01", "warning", file=name, version=version, grader=GRADER_KERAS)
    elif loads and name.endswith(".keras") and release(version) < (3,):
        yield finding("KER01", "error", file=name, version=version, grader=GRADER_KERAS)


def release(version: str) -> tuple[int, ...]:
    """(3, 4) of "3.4.1": files change between minor releases, not within one."""
    parts = [part for part in version.replace("-", ".").split(".")[:2] if part.isdigit() and len(part) < 9]
    return tuple(map(int, parts))
