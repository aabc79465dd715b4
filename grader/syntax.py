"""Syntax trees of foreign sources, and what they tell: what runs, what is imported, what a path comes to.

Functions that nothing calls and `if __name__ == "__main__"` count as not run. So does the body of a `try`, since it may
fail, unless it surely runs and every `except` raises again. The rehearsal runs it all.
"""

from __future__ import annotations

import ast
import posixpath
import warnings
from collections.abc import Callable, Iterable, Iterator

IN_ZIP = "<zip>/"  # where __file__ is, while paths are worked out
Nodes = list[tuple[ast.AST, bool]]  # what walk gives


def parse(source: bytes) -> ast.Module:
    """The tree of a source that compiles; SyntaxError, ValueError, RecursionError or MemoryError of any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in foreign code are not our reader's concern
        tree = ast.parse(source)
        compile(tree, "model.py", "exec", dont_inherit=True)  # finds what parses and cannot run: a `return` outside
        return tree


def mentions(condition: ast.expr) -> set[str]:
    """Names of variables and attributes that occur in a condition."""
    return {getattr(n, "id", getattr(n, "attr", None)) for n in ast.walk(condition)} - {None}


def uncalled(trees: Iterable[ast.Module]) -> set[ast.AST]:
    """Functions that neither an import nor Model nor anything they mention names, such as left-over training code.

    trees: of all files that model.py reaches. Methods of Model are found by their names. Those of another class count
    as run where the class is mentioned or decorated: Keras calls them by itself (call, build, get_config).
    """
    said: dict[ast.AST | None, set[str]] = {None: {"Model", "predict"}}  # names in each function, and outside of all
    by_name: dict[str, list[ast.AST]] = {}
    todo: list[tuple[ast.AST, ast.AST | None, str]] = [(tree, None, "") for tree in trees]
    while todo:
        node, owner, group = todo.pop()  # the function around the node; the name under which its methods are found
        if isinstance(node, (ast.Name, ast.Attribute)):
            said[owner].add(getattr(node, "id", getattr(node, "attr", "")))
        elif isinstance(node, ast.alias) and node.asname:
            said[owner].add(node.name)
        elif isinstance(node, ast.ClassDef):
            owner, group = None, "Model" if node.decorator_list else node.name if node.name != "Model" else ""
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
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
    return isinstance(node, ast.If) and "__name__" in {getattr(n, "id", "") for n in ast.walk(node.test)}


def unsure(node: ast.AST) -> str | None:
    """The branch of an `if` that runs only where some file was found to be there, or never, as for TYPE_CHECKING.

    Where the other branch ends the program, it has to run.
    """
    if isinstance(node, ast.If) and dotted(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return "body"
    if isinstance(node, (ast.If, ast.IfExp)) and mentions(node.test) & {"exists", "isfile", "isdir", "is_file"}:
        doubted, other = ("orelse", "body") if isinstance(node.test, ast.UnaryOp) else ("body", "orelse")
        return None if isinstance(node, ast.If) and gives_up(getattr(node, other)) else doubted
    return None


def strict_tries(node: ast.AST) -> Iterator[ast.Try]:
    """Each `try` that a module, __init__ or predict comes to in any case and whose every `except` ends the program."""
    if isinstance(node, ast.Module) or getattr(node, "name", "") in ("__init__", "predict"):
        for part in getattr(node, "body", ()):
            if isinstance(part, ast.Try) and all(gives_up(handler.body) for handler in part.handlers):
                yield part
            if isinstance(part, (ast.If, ast.For, ast.While, ast.With, ast.Try)) and any(
                isinstance(inner, ast.Return) for inner in ast.walk(part)
            ):
                return


def gives_up(body: list[ast.stmt]) -> bool:
    """Whether a block ends by raising, by leaving the program, or not at all."""
    last = body[-1] if body else None
    left = called(last.value) if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) else ""
    endless = isinstance(last, ast.While) and isinstance(last.test, ast.Constant)
    return endless or isinstance(last, ast.Raise) or left in ("exit", "quit", "_exit", "abort")


def asks_version(node: ast.AST) -> bool:
    """An `if` on what versions or names are there: only one of its branches fits each machine."""
    asked = isinstance(node, (ast.If, ast.IfExp)) and mentions(node.test)
    return bool(asked) and any(name in ("hasattr", "find_spec") or "version" in name.lower() for name in asked)


def walk(tree: ast.Module, idle: set[ast.AST]) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether nothing will run it, or an `except` stands by in case it fails. idle: see uncalled."""
    todo, strict = [(tree, False)], set()
    while todo:
        node, guarded = todo.pop()
        yield node, guarded
        strict.update(strict_tries(node))
        tried = "body" if isinstance(node, ast.Try) and node.handlers and node not in strict else None
        guarded, doubted, asks = guarded or node in idle or is_main(node), unsure(node), asks_version(node)
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            inside = guarded or field in (tried, doubted) or (asks and field != "test")
            todo += [(child, inside) for child in children if isinstance(child, ast.AST)]


def imports(nodes: Nodes) -> Iterator[tuple[str, int, bool]]:
    """(module, line, guarded) of every import, those through importlib with a constant name too."""
    for node, guarded in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, guarded
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module or ""
            yield dots + module, node.lineno, guarded
            for alias in node.names:  # `from package import module`
                yield f"{dots}{module}.{alias.name}" if module else f"{dots}{alias.name}", node.lineno, guarded
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value, node.lineno, guarded
        elif backend := set_backend(node):
            yield backend, node.lineno, guarded


def set_backend(node: ast.AST) -> str | None:
    """The package that a statement makes Keras or TensorFlow import, by an environment variable, or None."""
    pair = ()
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        pair = (node.targets[0].slice, node.value)
    elif isinstance(node, ast.Call) and called(node) in ("setdefault", "putenv"):
        pair = node.args
    key, value = ([getattr(part, "value", None) for part in pair] + [None, None])[:2]
    if key == "TF_USE_LEGACY_KERAS" and str(value).lower() in ("1", "true"):
        return "tf_keras"
    return value if key == "KERAS_BACKEND" and isinstance(value, str) else None


def fallbacks(nodes: Nodes, known: set[str]) -> set[ast.AST]:
    """What stands by, under an `except`, in case imports fail that all succeed at the grader."""
    found = set()
    for node, _ in nodes:
        if isinstance(node, ast.Try) and node not in found:
            tried = list(imports([(inner, True) for part in node.body for inner in ast.walk(part)]))
            if tried and all(module.split(".")[0] in known for module, _, _ in tried):
                found |= {inner for handler in node.handlers for inner in ast.walk(handler)}
    return found


def module_files(module: str, importer: str) -> list[str]:
    """Where in the zip a module could be: its file, its package, the packages above it."""
    dots = len(module) - len(module.lstrip("."))
    base = posixpath.dirname(importer).split("/") if dots else []
    base = [part for part in base[: len(base) - dots + 1] if part]
    parts = base + [part for part in module.lstrip(".").split(".") if part]
    paths = ["/".join(parts[: n + 1]) + "/__init__.py" for n in range(len(parts))]
    return [*paths, "/".join(parts) + ".py"] if parts else []


def dotted(node: ast.AST) -> str:
    """ "os.path.join" of that expression; "" of what is more than a few names and dots."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def called(node: ast.Call) -> str:
    """The last name of what is called: load_model of keras.models.load_model(...)."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What stands in a function, but not in those inside it."""
    todo = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the level of the module, those under `if`, `try` and `with` too, where an import runs them."""
    for node in (node for node in body if not is_main(node)):
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from definitions(getattr(node, field, []))


def gives(node: ast.stmt) -> set[str]:
    """Names that a statement binds at its own level; "*" for those that cannot be told."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {getattr(part, "name", getattr(part, "id", "")) for part in (node, *targets)}


def required(node: ast.FunctionDef) -> list[str]:
    """Names of the parameters without a default, `self` included."""
    args = node.args
    positional = [a.arg for a in args.posonlyargs + args.args]
    positional = positional[: len(positional) - len(args.defaults)]
    return positional + [a.arg for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None]


def decorators(node: ast.FunctionDef) -> list[str]:
    return [getattr(d, "id", getattr(d, "attr", "?")) for d in node.decorator_list]


def given_arguments(nodes: Nodes) -> set[str]:
    """Last names of what is called with arguments; less Model, which the grader calls without."""
    return {called(n) for n, _ in nodes if isinstance(n, ast.Call) and (n.args or n.keywords)} - {"Model"}


def constants(nodes: Nodes, given: set[str]) -> dict[str, ast.expr]:
    """{name: expression} of variables, attributes of self and parameters that are given one value only.

    given: see given_arguments.
    """
    values: dict[str, list[ast.expr]] = {}
    classes = {inner: node.name for node, _ in nodes if isinstance(node, ast.ClassDef) for inner in node.body}
    for node, _ in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                values.setdefault(dotted(target), []).append(node.value)
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            args, name = node.args.posonlyargs + node.args.args, getattr(node, "name", None)
            defaults = [None] * (len(args) - len(node.args.defaults)) + list(node.args.defaults)
            if name in given or (name == "__init__" and classes.get(node) in given):  # its callers may give another one
                defaults = [None] * len(args)
            for arg, default in zip(args, defaults, strict=True):
                values.setdefault(arg.arg, []).append(default)
    return {name: found[0] for name, found in values.items() if len(found) == 1 and found[0] is not None}


def work_out(node: ast.expr, values: dict[str, ast.expr], file: str, fuel: list[int] | None = None) -> str | None:
    """The path that an expression of constants, os.path, pathlib and __file__ comes to; None where it is open.

    `fuel`: steps left, so that no expression takes long. What a name comes to is kept in `values`.
    """
    fuel = [50] if fuel is None else fuel
    fuel[0] -= 1
    if fuel[0] < 0:
        return None

    def part(n: ast.expr) -> str | None:
        return work_out(n, values, file, fuel)

    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name) and node.id == "__file__":
        return IN_ZIP + file
    if name := dotted(node) if dotted(node) in values else "":
        text = part(values.pop(name))  # gone meanwhile, for it may depend on itself
        if text is not None:
            values[name] = ast.Constant(text)
        return text
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        base = part(node.value)
        return None if base is None else above(base)
    if isinstance(node, ast.FormattedValue):
        return part(node.value) if node.conversion == -1 and node.format_spec is None else None
    if isinstance(node, ast.JoinedStr):
        return joined([part(value) for value in node.values], "".join)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Add)):
        join = posixpath.join if isinstance(node.op, ast.Div) else "{}{}".format
        return joined([part(node.left), part(node.right)], lambda parts: join(*parts))
    return call_out(node, part) if isinstance(node, ast.Call) and not node.keywords else None


def joined(parts: list[str | None], join: Callable[[list[str]], str]) -> str | None:
    """What `join` makes of the parts; None where one is open."""
    return None if None in parts else join(parts)


def call_out(node: ast.Call, part: Callable[[ast.expr], str | None]) -> str | None:
    """The path that a call of os.path or pathlib comes to; part(expression) is that of its parts."""
    name, args = called(node), [part(a) for a in node.args]
    if name in ("resolve", "absolute") and isinstance(node.func, ast.Attribute):
        return part(node.func.value)
    if name == "getcwd" or (name == "cwd" and not args):
        return "."
    if not args or None in args:
        return None
    if name in ("Path", "PurePath") or dotted(node.func) in ("join", "path.join", "os.path.join"):
        return joined(args, lambda parts: posixpath.join(*parts))
    if name in ("with_name", "joinpath") and isinstance(node.func, ast.Attribute):
        base = part(node.func.value)
        return joined([base and above(base) if name == "with_name" else base, *args],
                      lambda parts: posixpath.join(*parts))  # fmt: skip
    if name in ("abspath", "realpath", "str", "fspath", "normpath", "expanduser"):
        return args[0]
    return above(args[0]) if name == "dirname" else None


def above(path: str) -> str:
    """The folder that holds a file or folder; that of the zip's root is none of the zip's."""
    return f"{path}/.." if path == IN_ZIP.rstrip("/") or path.endswith("..") else posixpath.dirname(path)
