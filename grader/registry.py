"""What the sources of a zip pass to Keras when it loads a file: registered classes, custom objects, options.

registry = Registry(); registry.add(source, own); registry.unread({file that model.py does not import: its text})
registry.opening("net.keras")        the calls of load_model that load this file
"""

import ast
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from grader.syntax import IN_ZIP, Source, arguments, called, dotted

GLOBAL = "get_custom_objects"
PARAMETERS = {  # {function: its parameters, in order}
    "load_model": ("filepath", "custom_objects", "compile", "safe_mode"),
    "load_weights": ("filepath",),
    "load": ("file", "mmap_mode", "allow_pickle"),
    **dict.fromkeys(("custom_object_scope", "CustomObjectScope", "update"), ("custom_objects",)),
}


class Load(NamedTuple):
    """One call of load_model or load_weights: the file in the zip (None: not known) and load_model's options."""

    path: str | None
    said: dict[str, str]  # details of a finding: file, line, name of the function
    compiles: bool
    safe: bool


@dataclass
class Registry:
    registered: set[str] = field(default_factory=set)  # "package>name"
    passed: set[str] = field(default_factory=set)  # keys of custom_objects
    open: bool = False  # custom objects with unknown names are passed
    renames: bool = False  # unpickling may look names up elsewhere
    safe: bool = True  # no enable_unsafe_deserialization()
    defined: dict[str, set[str]] = field(default_factory=dict)  # {module: names at its top level}
    idle: dict[str, str] = field(default_factory=dict)  # {class or function: its file, which model.py never imports}
    loads: dict[str, list[Load]] = field(default_factory=lambda: {"load_weights": [], "load_model": []})
    arrays: set[str | None] = field(default_factory=set)  # files that np.load opens without allow_pickle
    texts: set[str] = field(default_factory=set)  # every string and, if it is a path, its file name
    calls: set[str] = field(default_factory=set)  # last names of functions called in code that runs

    def add(self, source: Source, own: set[str]) -> None:
        """Read a file that model.py imports. own: functions of the zip, not to be taken for Keras's of equal name."""
        module = source.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.defined[module] = set(source.top)
        for node, runs in source.nodes.items():
            replaced = isinstance(node, ast.Subscript) and dotted(node.value) == "sys.modules"
            self.renames |= replaced or getattr(node, "name", "") in ("find_class", "__main__")
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.update((node.value, re.split(r"[/\\]", node.value)[-1]))
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    self.register(decorator, node.name, source)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and called(node.value) == GLOBAL:
                self.take(ast.Dict([node.slice], [node.slice]), source)  # get_custom_objects()["Plain"] = Plain
            elif isinstance(node, ast.Call):
                its_own = dotted(node.func).removeprefix("self.") in own or called(node) in own & {"load_weights"}
                self.call(node, runs and not its_own, source)

    def unread(self, sources: dict[str, bytes]) -> None:
        for file, source in sources.items():
            for name in re.findall(rb"^(?:class|def)\s+(\w+)", source, re.MULTILINE):
                self.idle.setdefault(name.decode("utf-8", "replace"), file)

    def register(self, call: ast.expr, name: str, source: Source) -> None:
        if called(call) == "register_keras_serializable":
            given = {"package": ast.Constant("Custom"), "name": ast.Constant(name)} | arguments(call, "package", "name")
            names = [text(given[key], source) for key in ("package", "name")]
            if None in names:
                self.open = True
            else:
                self.registered.add(">".join(names))

    def call(self, node: ast.Call, runs: bool, source: Source) -> None:
        name, given = called(node), arguments(node, *PARAMETERS.get(called(node), ()))
        if isinstance(node.func, ast.Call) and node.args:  # register_keras_serializable("Blood")(Plain)
            self.register(node.func, dotted(node.args[0]), source)
        passes = called(getattr(node.func, "value", None)) == GLOBAL if name == "update" else "custom_objects" in given
        if passes:  # `update` counts only on get_custom_objects()
            self.take(given.get("custom_objects"), source)
        self.safe &= name != "enable_unsafe_deserialization"
        if not runs:
            return
        self.calls.add(name)
        if dotted(node.func) in ("np.load", "numpy.load") and "file" in given and "allow_pickle" not in given:
            self.arrays.add(name_in_zip(given["file"], source))
        if name in self.loads:
            path, said = name_in_zip(given.get("filepath"), source), source.at(node) | {"call": name}
            options = (getattr(source.meaning(given.get(key)), "value", None) for key in ("compile", "safe_mode"))
            self.loads[name].append(Load(path, said, *(option is not False for option in options)))  # True: not known

    def take(self, given: ast.expr | None, source: Source) -> None:
        """Note the names in an expression for custom objects; unless it is a dict of known names, set `open`."""
        match source.meaning(given):
            case ast.Constant(None):
                names = []
            case ast.Call(ast.Name("dict"), [], keywords):
                names = [k.arg for k in keywords]
            case ast.Dict(keys):
                names = [key and text(key, source) for key in keys]
            case _:
                names = [None]
        self.passed.update(filter(None, names))
        self.open |= not all(names)

    def opening(self, file: str, call: str = "load_model") -> list[Load]:
        """The calls of load_model or load_weights that open this file of the zip; else those of load_model that may."""
        sure = [load for load in self.loads[call] if load.path == file]
        may = call == "load_model" and self.speaks_of(file)
        return sure or [load for load in self.loads[call] if load.path is None and may]

    def knows(self, name: str | None) -> bool:
        """Whether Keras may find an object of the sources under this name."""
        return self.open or name in self.passed or name in self.registered

    def speaks_of(self, file: str) -> bool:
        """Whether a string in the sources is the name, the stem or the suffix of the file."""
        name = file.split("/")[-1]
        stem, _, suffix = name.rpartition(".")
        return bool({name, stem or name, f".{suffix}", f"*.{suffix}"} & self.texts)


def name_in_zip(node: ast.expr | None, source: Source) -> str | None:
    """The path of an expression, relative to the zip's root; None if it is not known."""
    path = source.path(node)
    return path and path.removeprefix(IN_ZIP).removeprefix("./").rstrip("/")


def text(node: ast.expr, source: Source) -> str | None:
    if isinstance(node, ast.Attribute) and node.attr == "__name__":
        return dotted(node.value) or None
    return source.path(node)
