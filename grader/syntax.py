"""Reads the syntax trees of untrusted sources: which code runs, what it imports, which paths it builds.

To avoid false positives, some code counts as not run: functions that nothing calls; the body of a switch (`if DEBUG`,
`if mode == "train"`, `if __name__ == "__main__"`); both branches of a test of the machine; the body of a `try`, which
may fail, unless it always runs and every `except` raises again; an `except`, if the modules that its `try` imports are
there. If such code does run, the rehearsal finds its errors.
"""

import ast
import contextlib
import posixpath
from collections.abc import Iterable, Iterator
from functools import cached_property

IN_ZIP = "<zip>/"  # stands for the folder of the unpacked zip in paths
DYNAMIC = {"globals", "locals", "vars", "exec", "eval", "setattr", "__getattr__", "__path__", "*"}  # may bind any name
MACHINE = set("hasattr find_spec environ getenv platform system uname modules isinstance".split())  # names that test it
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Source:
    """A file of the zip that model.py imports. idle: see uncalled. known: modules that can be imported."""

    def __init__(self, file: str, tree: ast.Module, idle: set[ast.AST], known: set[str]):
        self.file, self.tree = file, tree
        self.nodes = dict(walk(tree, idle, known))  # {node: whether it runs}
        self.run = [node for node, runs in self.nodes.items() if runs]
        self.values: dict[str, ast.expr] = {}  # see constants

    def at(self, node: ast.AST) -> dict[str, str | int]:
        """The file and line of a node, as details of a finding."""
        return {"file": self.file, "line": node.lineno, "at": f" line {node.lineno}"}

    @cached_property
    def top(self) -> dict[str, list[ast.AST]]:
        """{name: nodes that bind it at module level}; "*": imports that may bind any name."""
        found: dict[str, list[ast.AST]] = {}
        for node in own_nodes(self.tree.body):
            names = [here.split(".")[0] for _, _, here in imported(node)]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names = [node.id]
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.MatchAs, ast.MatchStar)):
                names = [node.name]
            for name in filter(None, names):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def bound(self) -> set[str]:
        """Names that can be imported from this module, and the calls in it that may bind others (DYNAMIC)."""
        declared = {name for node in self.nodes if isinstance(node, ast.Global) for name in node.names}
        return set(self.top) | declared | ({called(node) for node in self.nodes} & DYNAMIC)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """{name in this file: what it was imported as, in full}"""
        fulls = [(here, package + name) for node in self.nodes for package, name, here in imported(node)]
        return {here.split(".")[0]: full if here != full else full.split(".")[0] for here, full in fulls}

    @cached_property
    def rebound(self) -> set[str]:
        """Names that are assigned or are parameters: they may no longer mean what an import or a `def` bound."""
        stored = {n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return stored | {n.arg for n in self.nodes if isinstance(n, ast.arg)}

    @cached_property
    def annotations(self) -> set[ast.AST]:
        """Nodes in annotations that Python does not evaluate: of local variables; with a __future__ import, all."""
        every = list(self.nodes)
        if ("__future__.", "annotations") not in [part[:2] for n in every for part in imported(n)]:
            functions = (n for n in every if isinstance(n, FUNCTIONS))
            every = [n for function in functions for n in own_nodes(function.body) if isinstance(n, ast.AnnAssign)]
        given = [getattr(n, "annotation", None) or getattr(n, "returns", None) for n in every]
        return {inner for node in given if node for inner in ast.walk(node)}

    def meaning(self, node: ast.expr | None) -> ast.expr | None:
        """An expression, or the one that a name stands for."""
        return self.values.get(dotted(node), node)

    def path(self, node: ast.expr | None) -> str | None:
        """The value of an expression of constants, os.path, pathlib and __file__; None if it is not known."""
        self.fuel = [None] * 50
        with contextlib.suppress(LookupError, TypeError):  # TypeError: a function of MADE with other arguments
            return self.evaluate(node)

    def evaluate(self, node: ast.expr | None) -> str:
        """As `path`, which calls it, but raises LookupError if the value is not known."""
        self.fuel.pop()  # one step; raises IndexError, a LookupError, when empty
        part = self.evaluate
        if (name := dotted(node)) in self.values:
            text = part(self.values.pop(name))  # removed meanwhile: it may depend on itself
            self.values[name] = ast.Constant(text)
            return text
        match node:
            case ast.Constant(str() as text):
                return text
            case ast.Name("__file__"):
                return IN_ZIP + self.file
            case ast.FormattedValue(value, -1, None):
                return part(value)
            case ast.JoinedStr(pieces):
                return "".join(map(part, pieces))
            case ast.BinOp(left, ast.Add(), right):
                return part(left) + part(right)
            case ast.BinOp(left, ast.Div(), right):
                return posixpath.join(part(left), part(right))
            case ast.Attribute(base, "parent"):
                return above(part(base))
            case ast.Call(ast.Attribute(base, method), args, []) if method in METHODS:
                return METHODS[method](*map(part, [base, *args]))
            case ast.Call(function, args, []):
                name = dotted(function) if last(function) == "join" else last(function)  # str has a join, too
                return MADE[name](*map(part, args))
        raise LookupError

    def public(self, node: ast.AST) -> str:
        """The full name of an imported object, such as "numpy.load" for np.load; "" for anything else."""
        root, _, rest = dotted(node).partition(".")
        full = self.aliases.get(root, "") if root not in self.rebound else ""
        return f"{full}.{rest}" if full and rest else full


def uncalled(trees: Iterable[ast.Module]) -> set[ast.AST]:
    """Functions that neither module-level code nor Model mentions, directly or not, such as left-over training code.

    trees: of all files that model.py imports. A method of Model counts as called if its name is mentioned, a method of
    another class if the class is mentioned or decorated, since Keras calls some by itself (call, build, get_config).
    """
    said: dict[ast.AST | None, set[str]] = {None: {"Model", "predict"}}  # {function: names in it}; None: outside
    by_name: dict[str, list[ast.AST]] = {}
    todo: list[tuple[ast.AST, ast.AST | None, str]] = [(tree, None, "") for tree in trees]
    while todo:
        node, owner, group = todo.pop()  # owner: the function around; group: the name that its methods go by
        if isinstance(node, (ast.Name, ast.Attribute)):
            said[owner].add(last(node))
        elif isinstance(node, ast.alias) and node.asname:
            said[owner].add(node.name)
        elif isinstance(node, ast.ClassDef):
            owner, group = None, "Model" if node.decorator_list else node.name if node.name != "Model" else ""
        elif isinstance(node, FUNCTIONS):
            by_name.setdefault(group or node.name, []).append(node)
            todo += [(decorator, None, "") for decorator in node.decorator_list]
            said[node], owner, group = set(), node, ""
        if not is_main(node):
            todo += [(child, owner, group) for child in ast.iter_child_nodes(node)]
    names = said[None] | {name for name in by_name if name.startswith("__")}
    while names:
        for function in by_name.pop(names.pop(), []):
            names |= said[function]
    return {function for left in by_name.values() for function in left}


def is_main(node: ast.AST) -> bool:
    """Whether a node is an `if` that asks for `__name__ == "__main__"`."""
    asked = ast.walk(node.test) if isinstance(node, ast.If) else ()
    equal = [n for n in asked if isinstance(n, ast.Compare) and isinstance(n.ops[0], ast.Eq)]
    return any("__name__" in map(last, (n.left, *n.comparators)) for n in equal)


def walk(tree: ast.Module, idle: set[ast.AST], known: set[str]) -> Iterator[tuple[ast.AST, bool]]:
    """Yield (node, whether it surely runs at the grader and no `except` catches its errors)."""
    todo, strict = [(tree, True)], set()
    while todo:
        node, runs = todo.pop()
        yield node, runs
        strict.update(strict_tries(node))
        unsure = doubted(node, known) - ({"body"} if node in strict else set())
        unsure |= {"body"} if node in idle else set()  # its defaults and annotations are still evaluated
        runs = runs and not is_main(node)
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            inside = runs and field not in unsure
            todo += [(child, inside) for child in children if isinstance(child, ast.AST)]


def doubted(node: ast.AST, known: set[str]) -> set[str]:
    """Fields of a statement that may fail, or that run only if there is a certain file, version, mode or name. known:
    modules that can be imported; if a `try` imports only such modules, its `except` counts as not run."""
    if isinstance(node, ast.Try) and node.handlers:
        tried = {module.split(".")[0] for module, _ in imports(n for part in node.body for n in ast.walk(part))}
        return {"body", "handlers"} if tried and tried <= known else {"body"}
    if not isinstance(node, (ast.If, ast.IfExp)):
        return {"cases"} if isinstance(node, ast.Match) else set()
    if isinstance(node.test, ast.Constant):
        return {"orelse"} if node.test.value else {"body"}
    asked = {last(n) for n in ast.walk(node.test)}
    if asked & MACHINE or any("version" in name.lower() for name in asked):
        return {"body", "orelse"}  # which one runs depends on the machine
    if asked & {"exists", "isfile", "isdir", "is_file"}:
        unsure, other = ("orelse", "body") if isinstance(node.test, ast.UnaryOp) else ("body", "orelse")
        return set() if gives_up(getattr(node, other)) else {unsure}  # if the program stops without the file
    words = [n for n in ast.walk(node.test) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    switch = isinstance(node.test, (ast.Name, ast.Attribute)) or (isinstance(node.test, ast.Compare) and words)
    return {"body"} if switch else set()


def strict_tries(node: ast.AST) -> Iterator[ast.Try]:
    """Each `try` that a module, __init__ or predict always reaches and whose `except` blocks all end the program."""
    if isinstance(node, ast.Module) or getattr(node, "name", "") in ("__init__", "predict"):
        for part in getattr(node, "body", ()):
            if isinstance(part, ast.Try) and all(gives_up(handler.body) for handler in part.handlers):
                yield part
            if any(isinstance(inner, ast.Return) for inner in own_nodes([part])):
                return


def gives_up(body: list[ast.stmt] | ast.expr) -> bool:
    """Whether a block ends with a `raise`, with a call that exits the program, or with an endless loop."""
    end = body[-1] if isinstance(body, list) and body else None
    endless = isinstance(end, ast.While) and isinstance(end.test, ast.Constant) and end.test.value
    leaves = isinstance(end, ast.Expr) and called(end.value) in ("exit", "quit", "_exit", "abort")
    return bool(endless or leaves or isinstance(end, ast.Raise))


def imported(node: ast.AST) -> list[tuple[str, str, str]]:
    """[(package, name, local name)]: (".nets.", "vit", "net") for `from .nets import vit as net`; [] if no import."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return []
    module = getattr(node, "module", None)
    package = "." * getattr(node, "level", 0) + (f"{module}." if module else "")
    return [(package, alias.name, alias.asname or alias.name) for alias in node.names]


def imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yield (name of an imported module or object, node), also for importlib and variables that choose a backend."""
    for node in nodes:
        names = [package + name for package, name, _ in imported(node)]
        match node:
            case ast.Call(args=[ast.Constant(str() as name), *_]) if called(node) in ("import_module", "__import__"):
                names = [name]
            case ast.Call(args=[ast.Constant(key), ast.Constant(value)]) if called(node) in ("setdefault", "putenv"):
                names = backend(key, value)
            case ast.Assign([ast.Subscript(slice=ast.Constant(key)), *_], ast.Constant(value)):
                names = backend(key, value)
        yield from ((name, node) for name in names)


def backend(key: object, value: object) -> list[str]:
    """The package that an environment variable makes Keras or TensorFlow import, if any."""
    if key == "TF_USE_LEGACY_KERAS" and str(value).lower() in ("1", "true"):
        return ["tf_keras"]
    return [value] if key == "KERAS_BACKEND" and isinstance(value, str) else []


def absolute(module: str, importer: str) -> str:
    """The absolute name of a module that the file `importer` imports; leading dots stand for its parent folders."""
    dots = len(module) - len(module.lstrip("."))
    base = posixpath.dirname(importer).split("/") if dots else []
    return ".".join(filter(None, [*base[: len(base) - dots + 1], *module.split(".")]))


def module_files(module: str, importer: str) -> list[str]:
    """Paths in the zip that a module and its parent packages could have; the module's own are last."""
    parts = absolute(module, importer).split(".")
    return ["/".join(parts[:n]) + end for n in range(1, len(parts) + 1) for end in ("/__init__.py", ".py")]


def dotted(node: ast.AST) -> str:
    """The text of an expression of names and dots, such as "os.path.join"; "" for any other expression."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def last(node: ast.AST | None) -> str:
    """The last name of an expression: "join" for os.path.join and for join; "" if it does not end in a name."""
    return getattr(node, "attr", getattr(node, "id", ""))


def called(node: ast.AST) -> str:
    """The last name of the called function: "load_model" for keras.models.load_model(...); "" if node is no call."""
    return last(getattr(node, "func", None))


def arguments(call: ast.Call, *names: str) -> dict[str, ast.expr]:
    """{parameter: expression} of a call's arguments. names: the parameters for positional arguments, in order."""
    return dict(zip(names, call.args, strict=False)) | {k.arg: k.value for k in call.keywords}


def own_nodes(body: list[ast.AST]) -> Iterator[ast.AST]:
    """Nodes of a block in order, without the contents of its functions, classes and `if __name__ == "__main__"`."""
    todo = body[::-1]
    while todo:
        node = todo.pop()
        yield node
        if is_main(node):
            todo += reversed(node.orelse)
        elif not isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            todo += reversed(list(ast.iter_child_nodes(node)))


def together(trees: dict[str, ast.Module], known: set[str]) -> dict[str, Source]:
    """{file: Source} for each tree. Source.values holds the file's `constants` and those it imports from others."""
    idle = uncalled(trees.values())
    sources = {file: Source(file, tree, idle, known) for file, tree in trees.items()}
    calls = [node for source in sources.values() for node in source.nodes if isinstance(node, ast.Call)]
    given = {called(node) for node in calls if node.args or node.keywords} - {"Model"}  # called without arguments
    for source in sources.values():
        source.values = constants(source.nodes, given)
    for source in reversed(sources.values()):
        for package, name, here in (part for node in source.nodes for part in imported(node)):
            paths = reversed(module_files(package or name, source.file))
            other = next((sources[path] for path in paths if path in sources), source)
            for wanted in [name] if package else list(other.values):
                text = other.path(other.values.get(wanted)) if other is not source else None
                if text is not None:
                    source.values.setdefault(here if package else f"{here}.{wanted}", ast.Constant(text))
    return sources


def constants(nodes: Iterable[ast.AST], given: set[str]) -> dict[str, ast.expr]:
    """{name: expression} of variables, attributes of self and parameters that have only one value. given: last names of
    functions that are called with arguments, so that defaults may be replaced."""
    values: dict[str, list[ast.expr | None]] = {"": [None]}  # "": targets without a name, not known
    classes = {inner: node.name for node in nodes if isinstance(node, ast.ClassDef) for inner in node.body}
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                values.setdefault(dotted(target), []).append(node.value)
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            args, name = node.args.posonlyargs + node.args.args, getattr(node, "name", None)
            others = name in given or (name == "__init__" and classes.get(node) in given)  # callers may pass others
            defaults = [] if others else node.args.defaults
            for arg, default in zip(args, [None] * (len(args) - len(defaults)) + defaults, strict=True):
                values.setdefault(arg.arg, []).append(default)
    return {name: found[0] for name, found in values.items() if len(found) == 1 and found[0] is not None}


def above(path: str) -> str:
    """The parent of a file or folder; for the zip's root, a path outside the zip."""
    return f"{path}/.." if path == IN_ZIP.rstrip("/") or path.endswith("..") else posixpath.dirname(path)


MADE = {  # {name: what it returns} of functions that make paths, and of methods of a Path
    **dict.fromkeys(("Path", "PurePath", "join", "path.join", "os.path.join"), posixpath.join),
    **dict.fromkeys(("abspath", "realpath", "str", "fspath", "normpath", "expanduser"), lambda path, *_: path),
    **dict.fromkeys(("getcwd", "cwd"), lambda: "."),
    "dirname": above,
}
METHODS = {
    **dict.fromkeys(("resolve", "absolute"), lambda path, *_: path),
    "joinpath": posixpath.join,
    "with_name": lambda path, name: posixpath.join(above(path), name),
}
