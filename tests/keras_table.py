"""What the grader's Keras takes: every class that a file can name, and the arguments of its constructor.

    python tests/keras_table.py > grader/keras_table.json    under Keras 3.4.1 and Python 3.11; the checks only read it

`classes` maps the place where Keras looks (keras.layers.Dense) to its arguments in one line, or to null where it takes
any or where that could not be tried. `plain` is the same by the names alone that a whole-model .h5 has, for every class
of that name. `functions` are names, too, with true where Keras finds them without a module.
`names` are what code finds in public modules of Keras, tensorflow.keras, TensorFlow and numpy; those of the first two
are all that can be imported there; a module of tensorflow.keras that is absent is as in keras. `stuck` are losses and
metrics that such an .h5 may hold as strings and that load_model of this version stops at. `standard` is the standard
library of the grader's Python, 3.11, on Linux, less tkinter, which is a package of its own there.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import types
from pathlib import Path

# Values for arguments without a default, and arguments of older files that some classes still take.
SAMPLES = {
    "units": 2, "filters": 2, "kernel_size": 1, "rate": 0.1, "factor": 0.1, "height": 8, "width": 8,
    "height_factor": 0.1, "width_factor": 0.1, "scale": 1.0, "stddev": 0.1, "num_heads": 1, "key_dim": 2,
    "input_dim": 2, "output_dim": 2, "n": 2, "target_shape": [4], "dims": [1], "axes": 1, "learning_rate": 0.1,
    "initial_learning_rate": 0.1, "decay_steps": 2, "decay_rate": 0.1, "name": "float32", "activation": "relu",
    "num_classes": 2, "precision": 0.5, "recall": 0.5, "specificity": 0.5, "sensitivity": 0.5, "num_bins": 2,
    "num_tokens": 2, "function": "relu", "max_value": 1.0, "batch_shape": [None, 2], "value": 0.1,
    "target_class_ids": [0], "factors": 0.1, "boundaries": [1], "values": [1.0, 2.0], "end_learning_rate": 0.1,
    "alpha": 0.1, "first_decay_steps": 2, "bin_boundaries": [0.5], "groups": 1, "pool_size": 2,
    "equation": "ab,bc->ac", "output_shape": [2], "mode": "int8", "source_name": "float32",
}  # fmt: skip
WINDOWS = {"_msi", "_winapi", "msilib", "msvcrt", "nt", "winreg", "winsound"}
TK = {"_tkinter", "idlelib", "tkinter", "turtle", "turtledemo"}
OLDER = ("decay", "is_legacy_optimizer", "jit_compile", "input_shape", "batch_input_shape", "input_dim", "ragged", "lr",
         "implementation", "time_major", "weights", "fn", "input_length", "epsilon", "alpha")  # fmt: skip
MORE = {
    "InputLayer": {"batch_shape": [None, 2]}, "Activation": {"activation": "relu"}, "BatchNormalization": {"axis": 1},
    "UnitNormalization": {"axis": 1}, "Resizing": {"height": 8, "width": 8}, "Lambda": {"function": len},
    "Discretization": {"bin_boundaries": [0.5]}, "Normalization": {"mean": 0.0, "variance": 1.0},
    "CategoryEncoding": {"num_tokens": 2}, "RandomCrop": {"height": 8, "width": 8},
}  # fmt: skip


def accepts(cls: type, config: dict) -> bool:
    try:
        cls.from_config(json.loads(json.dumps(config)))
        return True
    except Exception:
        return False


def arguments(cls: type) -> str | None:
    """The names that from_config takes, by signature and by trial; None where it takes any name or cannot be tried."""
    from keras.saving import serialize_keras_object as serialize

    if cls.__name__ in ("Model", "Functional", "Sequential"):
        return None
    names, needed = set(), {}
    for owner in cls.__mro__:
        parameters = inspect.signature(owner.__init__).parameters if "__init__" in vars(owner) else {}
        names |= {p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not needed and parameters:
            needed = {k: p for k, p in parameters.items() if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD}
        if parameters and not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            break
    try:
        given = MORE.get(cls.__name__) or {k: SAMPLES[k] for k in needed if k != "self"}
        config = json.loads(json.dumps(serialize(cls(**given))))["config"]
    except Exception:
        config = None
    if config is None or not accepts(cls, config) or accepts(cls, {**config, "no_such_argument": 1}):
        return None
    names |= set(config) | {old for old in OLDER if accepts(cls, {**config, old: 0.1 if old == "alpha" else None})}
    return " ".join(sorted(names - {"self"}))


def symbols() -> dict[str, object]:
    """Every class and function of the public API, and the models that a file names by their source module."""
    import keras
    from keras.src import api_export

    found, todo, seen = dict(api_export.REGISTERED_NAMES_TO_OBJS), [("keras", keras)], set()
    while todo:
        place, module = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, value in vars(module).items():
            if isinstance(value, types.ModuleType) and value.__name__.startswith(("keras.api", "keras.src.activ")):
                todo.append((f"{place}.{name}", value))
            elif isinstance(value, (type, types.FunctionType)) and not name.startswith("_") and ".api" not in place:
                found.setdefault(f"{place}.{name}", value)
    public = set(map(id, found.values()))
    for module in [m for name, m in sys.modules.items() if name.startswith("keras.src.")]:
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__ and id(value) not in public:
                found[f"{module.__name__}.{name}"] = value
    return found


def stuck() -> dict[str, str]:
    from keras.src import losses, metrics

    def stops(module, name) -> bool:
        try:
            module.deserialize(name)
            return False
        except Exception:
            return True

    tried = {"loss": losses, "metrics": metrics}
    return {
        key: " ".join(sorted(n for n in module.ALL_OBJECTS_DICT if isinstance(n, str) and stops(module, n)))
        for key, module in tried.items()
    }


def names() -> dict[str, str]:
    """{module: its names}, as a program finds them that has imported no part of a package by itself."""
    import keras
    import numpy
    import tensorflow

    found = {}
    for package in (numpy, tensorflow):
        inside = {path.name.split(".")[0] for path in Path(package.__file__).parent.iterdir()}
        lazy = {name for name in ("math", "testing") if hasattr(package, name)}
        found[package.__name__] = {*dir(package), *inside, *lazy}
    for alias, name in (("keras", "keras.api"), ("tensorflow.keras", "keras._tf_keras.keras")):
        found[alias] = set(dir(keras if alias == "keras" else tensorflow.keras))
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
            found[alias + module.name.removeprefix(name)] = set(dir(importlib.import_module(module.name)))
    same = {name for name in found if found[name] == found.get(name.removeprefix("tensorflow."))} - {"tensorflow"}
    kept = {k: v for k, v in sorted(found.items()) if k not in same or not k.startswith("tensorflow.")}
    return {k: " ".join(sorted(n for n in v if n[0] != "_" or n == "__version__")) for k, v in kept.items()}


def table() -> dict:
    import keras
    from keras.src import layers

    classes, functions = {}, {}
    for place, value in sorted(symbols().items()):
        kind, name = place.split(".")[1], place.split(".")[-1]
        if isinstance(value, type) and hasattr(value, "from_config") and "._legacy" not in place:
            classes[place] = arguments(value)
        elif isinstance(value, types.FunctionType) and kind in FUNCTIONS:
            functions[name] = functions.get(name, False) or kind != "ops"
    named = {n: v for n, v in vars(layers).items() if isinstance(v, type) and issubclass(v, layers.Layer)}
    plain = {name: [] for name in sorted({*named, "InputLayer", "Functional", "Model", "Sequential"})}
    for place, taken in classes.items():
        if not place.startswith("keras.src."):
            plain.setdefault(place.split(".")[-1], []).append(taken)
    return {
        "keras": keras.__version__,
        "functions": functions,
        "standard": " ".join(sorted(sys.stdlib_module_names - WINDOWS - TK)),
        "stuck": stuck(),
        "names": names(),
        "classes": classes,
        "plain": {name: " ".join(every) if every and None not in every else None for name, every in plain.items()},
    }


FUNCTIONS = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints", "ops")

if __name__ == "__main__":
    print(json.dumps(table(), indent=0))
