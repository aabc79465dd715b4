"""Checks whether the grader's version of Keras can load a saved model, from its config. No model is loaded.

    check_model("net.keras", "3.4.1", config, compiled, code, legacy=False)     `code`: what the sources register

The table keras_table.json is made from the grader's Keras by tests/keras_table.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from grader.codes import Finding, finding
from grader.registry import Code

GRADER_KERAS = "3.4.1"  # of tensorflow/tensorflow:2.17.0
# Keys that Keras removes from the configs of .h5 files.
POPPED = {"batch_input_shape", "axis", "module", "function_type", "output_shape_type", "output_shape_module"}


@functools.cache
def table() -> dict:
    return json.loads((Path(__file__).parent / "keras_table.json").read_text())


def held(module: str) -> list[str] | None:
    """Names in a public module of the grader's Keras, tensorflow.keras, TensorFlow or numpy; None for other modules."""
    short = module.removeprefix("tensorflow.") if module.startswith("tensorflow.keras.") else module
    names = table()["names"].get(module, table()["names"].get(short))
    return None if names is None else names.split()


class Doubt(NamedTuple):
    """Why Keras cannot create an object from a config: a code and details of its finding."""

    code: str
    name: str
    how: str


def check_model(name: str, version: str, config: dict, compiled: object, code: Code, legacy: bool) -> Iterator[Finding]:
    """Findings on a saved model, if the sources load it: version of Keras, layers, losses and metrics.

    legacy: it is an .h5 file, whose format older versions of Keras share.
    """
    loads, here, there = code.loads(name), release(GRADER_KERAS), release(version)
    foreign = there < (3,) and not legacy
    if loads and (there > here or foreign):
        yield finding("KER01", "warning" if there > here else "error", file=name, version=version, grader=GRADER_KERAS)
    if not loads or foreign:
        return
    lambdas = "error" if not legacy and code.safe and any(load.safe for load in loads) else "warning"
    for doubt in {(doubt.code, doubt.name): doubt for doubt in judged(config, code, legacy)}.values():
        level = lambdas if doubt.code == "KER03" else None
        yield finding(doubt.code, level, file=name, name=doubt.name, how=doubt.how)
    if not any(load.compiles for load in loads):
        return
    doubts = [*judged(compiled, code, legacy), *stuck(compiled, code, legacy)]
    for doubt in [doubt for doubt in doubts if doubt.code != "KER03"][:1]:
        taken = f"the grader's Keras does not take as it stands there ({doubt.how})"
        yield finding("KER04", file=name, name=doubt.name, how=taken if doubt.code == "KER07" else doubt.how)


def judged(config: object, code: Code, legacy: bool) -> Iterator[Doubt]:
    """Yield a Doubt for each object in a config, at any depth, that Keras cannot create."""
    todo = [config]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str) and "config" in part:
                named = {key: part.get(key) for key in ("module", "registered_name")}
                odd = {key: type(v).__name__ for key, v in named.items() if not (v is None or isinstance(v, str))}
                if doubt := judge(part | odd, code, legacy):
                    yield doubt
            todo += reversed(part.values())
        elif isinstance(part, list):
            todo += reversed(part)


def stuck(compiled: object, code: Code, legacy: bool) -> Iterator[Doubt]:
    """Yield a Doubt for each loss and metric whose name in an .h5 file makes the grader's load_model fail."""
    if not legacy or not isinstance(compiled, dict):
        return
    loss, metrics = compiled.get("loss"), compiled.get("metrics")
    given = [("loss", loss)]
    if isinstance(metrics, list):
        given += [("metrics", name) for name in metrics]
    for kind, name in given:
        if isinstance(name, str) and name in table()["stuck"][kind].split() and name not in code.passed:
            yield Doubt("KER04", name, "Keras 3.4.1 does not find by its short name in an .h5 file")
    if isinstance(loss, str) and not (table()["functions"].get(loss) or loss in table()["plain"] or known(loss, code)):
        yield Doubt("KER04", loss, "neither the grader's Keras has nor the sources pass as custom_objects")


def known(name: object, code: Code) -> bool:
    return code.open or name in code.passed or name in code.registered


def judge(part: dict, code: Code, legacy: bool) -> Doubt | None:
    """Look up one object as Keras does and compare its arguments with the constructor's; None if they fit."""
    what, config, module = part["class_name"], part["config"], part.get("module")
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
    plain = legacy and "module" not in part
    takes, place = (table()["plain"], what) if plain else (table()["classes"], f"{module}.{what}")
    if place not in takes:
        return None if in_module(str(module), what, code) else missing(registered, what, code)
    if not isinstance(config, dict) or takes[place] is None:
        return None
    more = set(config) - set(takes[place].split()) - (POPPED if plain else set())
    return Doubt("KER07", what, ", ".join(sorted(map(str, more)))) if more else None


def in_module(module: str, name: str, code: Code) -> bool:
    """Whether Keras finds a name in the module that the config states for it."""
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
        return table()["functions"].get(name, False) or any(key.endswith(name) for key in code.passed | code.registered)
    if str(module).split(".")[0] == "keras":
        return name in table()["functions"]
    return in_module(str(module), name, code)


def missing(registered: object, name: str, code: Code) -> Doubt:
    """The Doubt on an object that is not found, with the likely reason."""
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


def release(version: str) -> tuple[int, ...]:
    """(3, 4) for "3.4.1": the file format changes between minor releases, not within one."""
    parts = [part for part in version.replace("-", ".").split(".")[:2] if part.isdigit() and len(part) < 9]
    return tuple(map(int, parts))
