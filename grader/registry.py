"""What the sources of a zip give Keras when it loads a file: registered classes, custom objects, options.

code = registry.Code(); code.add("model.py", nodes, values, own)   for each file that model.py reaches
code.unread(sources)                                             for the others
code.loads("net.keras")                                         how model.py loads it
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from grader.syntax import IN_ZIP, Nodes, called, definitions, dotted, gives, work_out

SCOPES = ("custom_object_scope", "CustomObjectScope")


@dataclass
class Load:
    """One call of load_model or load_weights: of which file (None: unknown), and the options of load_model."""

    path: str | None
    line: int
    file: str
    call: str
    compiles: bool
    safe: bool


@dataclass
class Code:
    registered: set[str] = field(default_factory=set)  # "package>name"
    passed: set[str] = field(default_factory=set)  # keys of custom_objects
    open: bool = False  # custom objects are passed that cannot be read here
    safe: bool = True  # no enable_unsafe_deserialization()
    defined: dict[str, set[str]] = field(default_factory=dict)  # {module: names at its top level}
    idle: dict[str, str] = field(default_factory=dict)  # {class or function: the file that model.py never imports}
    models: list[Load] = field(default_factory=list)
    weights: list[Load] = field(default_factory=list)
    arrays: set[str] = field(default_factory=set)  # files that np.load opens without allow_pickle
    texts: set[str] = field(default_factory=set)  # every constant text and its last part, taken for a path
    calls: set[str] = field(default_factory=set)  # last names of all that is called, where it runs

    def add(self, file: str, nodes: Nodes, values: dict[str, ast.expr], own: set[str]) -> None:
        """own: functions of the zip, whose names are not taken for those of Keras."""
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.defined[module] = set().union(*map(gives, definitions(nodes[0][0].body)))
        for node, guarded in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.update((node.value, re.split(r"[/\\]", node.value)[-1]))
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    self.register(decorator, node.name, values)
            elif isinstance(node, ast.Assign):
                self.assign(node, values)
            elif isinstance(node, ast.Call):
                its_own = dotted(node.func).removeprefix("self.") in own or called(node) in own & {"load_weights"}
                self.call(node, guarded or its_own, file, values)

    def unread(self, sources: dict[str, bytes]) -> None:
        """The files that model.py does not reach."""
        for file, source in sources.items():
            for name in re.findall(rb"^(?:class|def)\s+(\w+)", source, re.MULTILINE):
                self.idle.setdefault(name.decode("utf-8", "replace"), file)

    def register(self, decorator: ast.expr, name: str, values: dict[str, ast.expr]) -> None:
        if not isinstance(decorator, ast.Call) or called(decorator) != "register_keras_serializable":
            return
        given = {k.arg: k.value for k in decorator.keywords}
        given = dict(zip(("package", "name"), decorator.args, strict=False)) | given
        package = text(given["package"], values) if "package" in given else "Custom"
        own = text(given["name"], values) if "name" in given else name
        if package is None or own is None:
            self.open = True
        else:
            self.registered.add(f"{package}>{own}")

    def assign(self, node: ast.Assign, values: dict[str, ast.expr]) -> None:
        """get_custom_objects()["Plain"] = Plain"""
        for target in node.targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Call):
                if called(target.value) == "get_custom_objects":
                    self.take(ast.Dict([target.slice], [node.value]), values)

    def call(self, node: ast.Call, guarded: bool, file: str, values: dict[str, ast.expr]) -> None:
        name, given = called(node), {k.arg: k.value for k in node.keywords}
        if not guarded:
            self.calls.add(name)
        if isinstance(node.func, ast.Call) and node.args:  # register_keras_serializable("Blood")(Plain)
            self.register(node.func, dotted(node.args[0]), values)
        owner = getattr(node.func, "value", None)
        if name == "update" and isinstance(owner, ast.Call) and called(owner) == "get_custom_objects":
            self.take(node.args[0] if node.args else None, values)
        if name in SCOPES and node.args:
            self.take(node.args[0], values)
        if name == "enable_unsafe_deserialization":
            self.safe = False
        if name == "load_model":
            given = dict(zip(("filepath", "custom_objects", "compile", "safe_mode"), node.args, strict=False)) | given
        if "custom_objects" in given:
            self.take(given["custom_objects"], values)
        if dotted(node.func) in ("np.load", "numpy.load") and node.args[:1] and not node.args[2:] and not guarded:
            if "allow_pickle" not in given:
                self.arrays.add(name_in_zip(work_out(node.args[0], values, file) or ""))
        if name in ("load_model", "load_weights") and not guarded:
            path = given.get("filepath") or (node.args[0] if node.args else None)
            options = [is_true(given.get(key), values) for key in ("compile", "safe_mode")]
            load = Load(path and work_out(path, values, file), node.lineno, file, name, *options)
            (self.models if name == "load_model" else self.weights).append(load)

    def take(self, given: ast.expr | None, values: dict[str, ast.expr]) -> None:
        """Custom objects, as a dict that can be read here or as anything else."""
        given = values.get(dotted(given), given) if given is not None and dotted(given) else given
        if isinstance(given, ast.Constant) and given.value is None:
            return
        if isinstance(given, ast.Call) and dotted(given.func) == "dict" and not given.args:
            self.passed |= {k.arg for k in given.keywords if k.arg}
            self.open = self.open or any(k.arg is None for k in given.keywords)
        elif isinstance(given, ast.Dict):
            names = [key is not None and text(key, values) for key in given.keys]
            self.passed |= {name for name in names if name}
            self.open = self.open or not all(names)
        else:
            self.open = True

    def loads(self, file: str) -> list[Load]:
        """The calls of load_model that do or may open this file of the zip."""
        sure = [load for load in self.models if load.path is not None and name_in_zip(load.path) == file]
        return sure or [load for load in self.models if load.path is None and self.speaks_of(file)]

    def speaks_of(self, file: str) -> bool:
        """Whether a text in the sources could be the file's name or the end or stem of it."""
        name = file.split("/")[-1]
        stem, _, suffix = name.rpartition(".")
        return bool({name, stem or name, f".{suffix}", f"*.{suffix}"} & self.texts)


def name_in_zip(path: str) -> str:
    """The name that a path, as work_out gives it, has in the zip."""
    return path.removeprefix(IN_ZIP).removeprefix("./").rstrip("/")


def text(node: ast.expr, values: dict[str, ast.expr]) -> str | None:
    if isinstance(node, ast.Attribute) and node.attr == "__name__":
        return dotted(node.value) or None
    return work_out(node, values, "model.py")


def is_true(node: ast.expr | None, values: dict[str, ast.expr]) -> bool:
    """Whether an option is on, as it is where it is not given or not known."""
    node = values.get(dotted(node), node) if node is not None and dotted(node) else node
    return not (isinstance(node, ast.Constant) and node.value is False)
