"""Checks whether the grader's version of Keras can load a saved model, from its config. No model is loaded.

check_model("net.keras", "3.4.1", config, compiled, code, legacy=False)     `code`: what the sources register
"""

import json
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

from grader.codes import Finding, finding
from grader.registry import Registry

GRADER_KERAS = "3.4.1"  # of tensorflow/tensorflow:2.17.0
# Keys that Keras removes from the configs of .h5 files.
POPPED = {"batch_input_shape", "axis", "module", "function_type", "output_shape_type", "output_shape_module"}
TABLE = json.loads(Path(__file__).with_name("keras_table.json").read_text())  # see tests/keras_table.py
Doubt = namedtuple("Doubt", "code name how")  # why Keras cannot create an object: details of a finding, all texts
CLASSES, PLAIN, FUNCTIONS = TABLE["classes"], TABLE["plain"], TABLE["functions"]


def check_model(name: str, version: str, config: dict, compiled, code: Registry, legacy: bool) -> Iterator[Finding]:
    """Findings on a saved model, if the sources load it. legacy: it is an .h5 file, whose format older Keras shares."""
    loads, here, there = code.opening(name), release(GRADER_KERAS), release(version)
    foreign = there < (3,) and not legacy
    if loads and (there > here or foreign):
        yield finding("KER01", "warning" if there > here else "error", file=name, version=version, grader=GRADER_KERAS)
    if not loads or foreign:
        return
    lambdas = "error" if not legacy and code.safe and any(load.safe for load in loads) else "warning"
    for doubt in {(doubt.code, doubt.name): doubt for doubt in judged(config, code, legacy)}.values():
        yield finding(doubt.code, lambdas if doubt.code == "KER03" else None, file=name, name=doubt.name, how=doubt.how)
    compiles = any(load.compiles for load in loads)
    doubts = [*judged(compiled, code, legacy), *stuck(compiled, code, legacy)] if compiles else []
    for doubt in [doubt for doubt in doubts if doubt.code != "KER03"][:1]:
        taken = f"the grader's Keras does not take as it stands there ({doubt.how})"
        yield finding("KER04", file=name, name=doubt.name, how=taken if doubt.code == "KER07" else doubt.how)


def judged(config: object, code: Registry, legacy: bool) -> Iterator[Doubt]:
    """Yield a Doubt for each object in a config, at any depth, that Keras cannot create."""
    todo = [config]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str) and "config" in part:
                odd = [key for key in ("module", "registered_name") if not isinstance(part.get(key), str | None)]
                if doubt := judge(part | {key: type(part[key]).__name__ for key in odd}, code, legacy):
                    yield doubt
            todo += reversed(part.values())
        elif isinstance(part, list):
            todo += reversed(part)


def stuck(compiled: object, code: Registry, legacy: bool) -> Iterator[Doubt]:
    """Yield a Doubt for each loss and metric whose name in an .h5 file makes the grader's load_model fail."""
    if not legacy or not isinstance(compiled, dict):
        return
    loss, metrics = compiled.get("loss"), compiled.get("metrics")
    for kind, names in {"loss": [loss], "metrics": metrics if isinstance(metrics, list) else []}.items():
        for name in names:
            if isinstance(name, str) and name in TABLE["stuck"][kind].split() and name not in code.passed:
                yield Doubt("KER04", name, "Keras 3.4.1 does not find by its short name in an .h5 file")
    if isinstance(loss, str) and not (FUNCTIONS.get(loss) or loss in PLAIN or code.knows(loss)):
        yield Doubt("KER04", loss, "neither the grader's Keras has nor the sources pass as custom_objects")


def judge(part: dict, code: Registry, legacy: bool) -> Doubt | None:
    """Look up one object as Keras does and compare its arguments with the constructor's; None if they fit."""
    what, config, module = part["class_name"], part["config"], str(part.get("module"))
    if what == "__lambda__" or (what == "Lambda" and not code.knows("Lambda")):
        return Doubt("KER03", "Lambda", "")
    if what == "function":
        name = config if isinstance(config, str) else what
        return None if function_found(part, code) else missing(name, name, code)
    registered = part.get("registered_name") or what
    if what.startswith("__") or code.knows(registered) or (legacy and code.knows(what)):
        return None
    plain = legacy and "module" not in part
    takes, place = (PLAIN, what) if plain else (CLASSES, f"{module}.{what}")
    if place not in takes:
        return None if in_module(module, what, code) else missing(registered, what, code)
    if not isinstance(config, dict) or takes[place] is None:
        return None
    more = set(config) - set(takes[place].split()) - (POPPED if plain else set())
    return Doubt("KER07", what, ", ".join(sorted(map(str, more)))) if more else None


def in_module(module: str, name: str, code: Registry) -> bool:
    """Whether Keras finds a name in the module that the config states for it."""
    outside = module.split(".")[0] in ("tensorflow", "numpy")
    return name in code.defined[module] if module in code.defined else outside


def function_found(part: dict, code: Registry) -> bool:
    name, module = part["config"], str(part.get("module"))
    if not isinstance(name, str):
        return False
    if code.knows(name) or code.knows(part.get("registered_name")):
        return True
    if module == "builtins":
        return FUNCTIONS.get(name, False) or any(key.endswith(name) for key in code.passed | code.registered)
    return name in FUNCTIONS if module.split(".")[0] == "keras" else in_module(module, name, code)


def missing(registered: str, name: str, code: Registry) -> Doubt:
    """The Doubt on an object that is not found, with the likely reason."""
    plain = registered.rpartition(">")[2]
    others = sorted(key for key in code.registered if key.rpartition(">")[2] == plain)
    if others:
        how = f"the sources register as {others[0]}"
    elif any(name in names or plain in names for names in code.defined.values()):
        how = "the sources define, but neither register nor pass as custom_objects"
    elif file := code.idle.get(plain) or code.idle.get(name):
        how = f"only {file} defines, which model.py never imports"
    else:
        how = "neither the grader's Keras nor model.py defines"
    return Doubt("KER02", registered, how)


def release(version: str) -> tuple[int, ...]:
    """(3, 4) for "3.4.1": the file format changes between minor releases, not within one."""
    return tuple(int(part) for part in version.replace("-", ".").split(".")[:2] if part.isdigit() and len(part) < 9)
