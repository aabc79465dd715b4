"""Static checks of model.py and what it imports from its zip, by their syntax trees: nothing is run.

    check_sources({"model.py": b"..."}, names_in_the_zip, profile="strict", packages=())

Starts at model.py and follows its imports into the zip: other scripts in the zip are nobody's business, and neither
are functions that nothing calls and `if __name__ == "__main__"`. What is inside `try` with an `except` is taken for
a fallback and left alone, too; the rehearsal runs it.
"""

from __future__ import annotations

import ast
import builtins
import posixpath
import re
import symtable
import sys
import warnings
from collections.abc import Iterable, Iterator

from grader.codes import Finding, finding

# What `import` finds in tensorflow/tensorflow:2.17.0 besides the standard library of its Python 3.11.
GRADER_PACKAGES = frozenset(
    "absl astunparse certifi charset_normalizer flatbuffers gast google grpc h5py idna keras markdown markdown_it "
    "markupsafe mdurl ml_dtypes namex numpy opt_einsum optree packaging pip pkg_resources pygments requests rich "
    "setuptools six tensorboard tensorboard_data_server tensorflow tensorflow_io_gcs_filesystem termcolor "
    "typing_extensions urllib3 werkzeug wheel wrapt".split()
)
STANDARD = sys.stdlib_module_names | {"distutils", "imp", "asyncore", "asynchat", "smtpd"}
GRADER_MODULES = frozenset({"ingestion"})  # beside the ingestion program, hence first on sys.path
LIKELY_MODULES = frozenset("utils util helpers common score scoring evaluate data_io data_manager libscores".split())
MAX_SOURCE = 256 << 10  # bytes of one file
MODULE_NAMES = frozenset(dir(builtins)) | {"__file__", "__path__", "__builtins__", "__annotations__", "__class__"}
LOADERS = frozenset(
    "open load load_model load_weights loadtxt genfromtxt fromfile memmap File imread load_img read_csv read_text "
    "read_bytes loadmat restore".split()
)
IN_ZIP = "<zip>/"  # where __file__ is, while paths are worked out
Nodes = list[tuple[ast.AST, bool]]  # what walk gives
ELSEWHERE = ("/tmp", "/dev", "/proc", "/sys", "/app", "/etc")  # absolute, and there on any Linux machine


def check_sources(sources: dict[str, bytes], names: set[str], profile: str, packages: tuple[str, ...]) -> list[Finding]:
    """Findings for model.py and every module of the zip that it reaches. `names`: all files in the zip."""
    found, todo, done = [], ["model.py"], set()
    local = {name.split("/")[0].removesuffix(".py") for name in sources}
    known = STANDARD | GRADER_PACKAGES | local | set(packages)
    while todo:
        file = todo.pop()
        if file in done:
            continue
        done.add(file)
        try:
            tree = parse(sources[file])
            nodes = list(walk(tree))
            if any(dotted(node) == "sys.path" for node, _ in nodes):  # any folder of the zip may be on it
                known |= {part.removesuffix(".py") for name in sources for part in name.split("/")}
            spare = fallbacks(nodes, known)
            for module, line, guarded in imports([pair for pair in nodes if pair[0] not in spare]):
                root = module.split(".")[0]
                if module.startswith("."):
                    if file == "model.py" and not guarded:
                        found.append(finding("IMP04", file=file, line=line))
                elif root not in known and not guarded:
                    found.append(finding("IMP01", file=file, at=f" line {line}", name=root))
                elif root in local:
                    found += check_shadow(root)
                todo += [path for path in module_files(module, file) if path in sources]
            if file == "model.py":
                found += check_model(tree)
            found += check_names(sources[file], nodes, file)
            found += check_calls(nodes, file)
            found += check_paths(nodes, file, names, profile)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            found.append(finding("PY01", file=file, why=where or "nested too deeply"))
    return list(dict.fromkeys(found))


def parse(source: bytes) -> ast.Module:
    if len(source) > MAX_SOURCE:
        raise ValueError(f"larger than {MAX_SOURCE} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in foreign code are not our reader's concern
        return ast.parse(source)


def mentions(nodes: Iterable[ast.AST]) -> set[str]:
    """Names of variables and attributes that occur in the nodes."""
    inner = [n for node in nodes for n in ast.walk(node)]
    return {n.id for n in inner if isinstance(n, ast.Name)} | {n.attr for n in inner if isinstance(n, ast.Attribute)}


def uncalled(tree: ast.Module) -> set[ast.AST]:
    """Functions that neither the import nor Model nor anything they mention names, such as left-over training code."""
    functions = {node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    run = [node for node in tree.body if not isinstance(node, ast.ClassDef) and not is_main(node)]
    run += [node for owner in classes for node in [*owner.bases, *owner.body]]
    todo = mentions(node for node in run if node not in functions)
    todo |= mentions(decorator for f in functions for decorator in f.decorator_list)
    todo |= {f.name for f in functions if f.name == "predict" or f.name.startswith("__")}
    # Keras calls the methods of a layer (call, build, get_config) by itself
    todo |= {f.name for owner in classes if owner.name != "Model" for f in owner.body if f in functions}
    by_name: dict[str, list[ast.AST]] = {}
    for function in functions:
        by_name.setdefault(function.name, []).append(function)
    while todo:
        todo |= mentions(by_name.pop(todo.pop(), []))
    return {function for left in by_name.values() for function in left}


def is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in {getattr(n, "id", "") for n in ast.walk(node.test)}


def unsure(node: ast.AST) -> str | None:
    """The branch of an `if` that runs only where some file was found to be there, or never, as for TYPE_CHECKING."""
    if isinstance(node, ast.If) and dotted(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return "body"
    if isinstance(node, (ast.If, ast.IfExp)) and mentions([node.test]) & {"exists", "isfile", "isdir", "is_file"}:
        return "orelse" if isinstance(node.test, ast.UnaryOp) else "body"
    return None


def walk(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether nothing will run it, or an `except` stands by in case it fails."""
    todo, idle = [(tree, False)], uncalled(tree)
    while todo:
        node, guarded = todo.pop()
        yield node, guarded
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            tried = isinstance(node, ast.Try) and node.handlers and field == "body"
            inside = guarded or bool(tried) or node in idle or is_main(node) or field == unsure(node)
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


def fallbacks(nodes: Nodes, known: set[str]) -> set[ast.AST]:
    """What stands by, under an `except`, in case imports fail that all succeed at the grader."""
    found = set()
    for node, _ in nodes:
        if isinstance(node, ast.Try):
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


def check_shadow(root: str) -> Iterator[Finding]:
    if root in STANDARD | GRADER_PACKAGES | GRADER_MODULES:
        yield finding("IMP02", name=f"{root}.py")
    elif root in LIKELY_MODULES:
        yield finding("IMP03", name=f"{root}.py")


def dotted(node: ast.AST) -> str:
    """ "os.path.join" of that expression; "" of what is more than names and dots."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def called(node: ast.Call) -> str:
    """The last name of what is called: load_model of keras.models.load_model(...)."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the level of the module, those under `if`, `try` and `with` too."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from definitions(getattr(node, field, []))


def check_model(tree: ast.Module) -> Iterator[Finding]:
    """Model, its __init__ and its predict, as far as the file shows them."""
    model = None
    for node in definitions(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == "Model":
            model = node
        elif isinstance(node, ast.ImportFrom) and any((a.asname or a.name) in ("Model", "*") for a in node.names):
            if (node.module or "").split(".")[0] not in ("keras", "tensorflow") and model is None:
                return  # it comes from another file; the rehearsal will see it
        elif isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "Model" for t in node.targets):
            return
    if model is None:
        yield finding("PY02")
        return
    methods = {node.name: node for node in definitions(model.body) if isinstance(node, ast.FunctionDef)}
    inherits = any(getattr(base, "id", "") != "object" for base in model.bases)
    if "__init__" in methods:
        needed = required(methods["__init__"])[1:]
        if needed:
            yield finding("PY03", names=", ".join(needed))
    if "predict" in methods:
        predict = methods["predict"]
        own = 0 if "staticmethod" in decorators(predict) else 1
        takes = len(predict.args.posonlyargs + predict.args.args)
        needed = required(predict)
        if takes < own + 1 and not predict.args.vararg:
            yield finding("PY04", how=f"has a predict({', '.join(parameters(predict))}) that takes no images")
        elif len(needed) > own + 1:
            yield finding("PY04", how=f"has a predict that needs more than X ({', '.join(needed[own + 1 :])})")
    elif any(isinstance(node, ast.AsyncFunctionDef) and node.name == "predict" for node in model.body):
        yield finding("PY04", how="has an async predict, which returns no labels when called")
    elif not inherits and "predict" not in {n.id for n in ast.walk(model) if isinstance(n, ast.Name)}:
        yield finding("PY04", how="has no method predict")


def parameters(node: ast.FunctionDef) -> list[str]:
    return [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]


def required(node: ast.FunctionDef) -> list[str]:
    """Names of the parameters without a default, `self` included."""
    args = node.args
    positional = [a.arg for a in args.posonlyargs + args.args]
    positional = positional[: len(positional) - len(args.defaults)]
    return positional + [a.arg for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None]


def decorators(node: ast.FunctionDef) -> list[str]:
    return [getattr(d, "id", getattr(d, "attr", "?")) for d in node.decorator_list]


def check_names(source: bytes, nodes: Nodes, file: str) -> Iterator[Finding]:
    """Names that are used and that nothing defines, by the compiler's own symbol table."""
    if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n, _ in nodes):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = symtable.symtable(source.decode("utf-8", "replace").lstrip("\ufeff"), file, "exec")
    tables = [top]
    for table in tables:
        tables += table.get_children()
    defined = set(MODULE_NAMES)
    for table in tables:
        for symbol in table.get_symbols():
            here = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if here and (table is top or symbol.is_declared_global()):
                defined.add(symbol.get_name())
    missing = set()
    for table in tables:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table is top) and symbol.get_name() not in defined:
                missing.add(symbol.get_name())
    lines: dict[str, int] = {}
    for node, guarded in nodes:
        if isinstance(node, ast.Name) and node.id in missing and not guarded:
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    for name, line in sorted(lines.items(), key=lambda item: item[1]):
        yield finding("PY05", file=file, line=line, name=name)


def check_calls(nodes: Nodes, file: str) -> Iterator[Finding]:
    """Calls of the file's own functions, and of self's own methods, that do not fit the definition."""
    every = [node for node, _ in nodes]
    module = every[0]
    functions = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef) and not n.decorator_list}
    rebound = {n.id for n in every if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    rebound |= {n.arg for n in every if isinstance(n, ast.arg)}
    rebound |= {  # as a function within another one, or defined under a condition
        inner.name
        for n in every
        if not isinstance(n, (ast.Module, ast.ClassDef))
        for inner in ast.iter_child_nodes(n)
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    calls = [node for node, guarded in nodes if isinstance(node, ast.Call) and not guarded]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id in functions and call.func.id not in rebound:
            yield from fits(call, functions[call.func.id], 0, file)
    for owner in (n for n in every if isinstance(n, ast.ClassDef)):
        methods = {n.name: n for n in owner.body if isinstance(n, ast.FunctionDef)}
        inside = set(ast.walk(owner))
        for call in calls:
            method = methods.get(called(call)) if call in inside else None
            if method and dotted(call.func) == f"self.{method.name}":
                own = {(): 1, ("classmethod",): 1, ("staticmethod",): 0}.get(tuple(decorators(method)))
                if own is not None:
                    yield from fits(call, method, own, file)


def fits(call: ast.Call, definition: ast.FunctionDef, own: int, file: str) -> Iterator[Finding]:
    """Compare one call with one definition, of whose parameters the first `own` are filled in by Python."""
    args = definition.args
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return
    positional = [a.arg for a in args.posonlyargs + args.args][own:]
    by_name = {a.arg for a in args.args + args.kwonlyargs}
    faults = [
        f"the keyword {keyword.arg}, which it does not take"
        for keyword in call.keywords
        if keyword.arg not in by_name and not args.kwarg
    ]
    if len(call.args) > len(positional) and not args.vararg:
        faults.append(f"{len(call.args)} arguments, but it takes {len(positional)}")
    given = set(positional[: len(call.args)]) | {k.arg for k in call.keywords}
    missing = [name for name in required(definition)[own:] if name not in given]
    if missing:
        faults.append(f"no value for {', '.join(missing)}, which it needs")
    for how in faults:
        yield finding("PY06", file=file, line=call.lineno, name=definition.name, how=how)


def check_paths(nodes: Nodes, file: str, names: set[str], profile: str) -> Iterator[Finding]:
    """Files opened by a name that can be worked out here: relative, on one machine only, or not in the zip."""
    values = constants(nodes)

    def held(path: str) -> bool:  # a checkpoint is named by what its files' names begin with
        ends = ("/", ".") if called(node) == "restore" else ("/",)
        return path in names or any(name.startswith(tuple(path + end for end in ends)) for name in names)

    own = {n.name for n, _ in nodes if isinstance(n, ast.FunctionDef)}
    moves = any(isinstance(n, ast.Call) and called(n) == "chdir" for n, _ in nodes)
    for node, guarded in nodes:
        if not isinstance(node, ast.Call) or guarded:
            continue
        keywords = {k.arg: k.value for k in node.keywords}
        weights = keywords.get("weights")
        applications = "applications" in dotted(node.func).split(".")
        if getattr(weights, "value", None) == "imagenet" or (applications and weights is None and not node.args):
            if called(node) not in ("preprocess_input", "decode_predictions"):
                yield finding("NET01", file=file, line=node.lineno)
        if called(node) not in LOADERS or dotted(node.func).removeprefix("self.") in own:
            continue
        first = [*node.args[:1], *(keywords[k] for k in ("file", "filepath", "filename", "path") if k in keywords)]
        if isinstance(node.func, ast.Attribute) and called(node) in ("open", "read_text", "read_bytes"):
            method_of = work_out(node.func.value, values, file)  # Path(...).open()
        else:
            method_of = None
        path = method_of if method_of is not None else first and work_out(first[0], values, file)
        given = [*(node.args[1:2] if method_of is None else node.args[:1]), keywords.get("mode")]
        modes = [a.value for a in given if isinstance(getattr(a, "value", None), str)]
        if not path or "\0" in path or re.search("[wax]", "".join(modes) if called(node) == "open" else ""):
            continue
        line = node.lineno
        if path.startswith(IN_ZIP):
            path = posixpath.normpath(path[len(IN_ZIP) :])
            if not held(path):
                yield finding("PATH03", file=file, line=line, name=path)
        elif path.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", path):
            if not path.startswith(ELSEWHERE):
                yield finding("PATH02", file=file, at=f" line {line}", name=path)
        elif not re.match(r"\w+://", path):
            if not held(posixpath.normpath(path)):
                yield finding("PATH03", file=file, line=line, name=path)
            elif not moves:
                level = "error" if profile == "strict" else "warning"
                yield finding("PATH01", level, file=file, at=f" line {line}", name=path)


def constants(nodes: Nodes) -> dict[str, ast.expr]:
    """{name: expression} of variables, attributes of self and parameters that are given one value only."""
    values: dict[str, list[ast.expr]] = {}
    given = {called(n) for n, _ in nodes if isinstance(n, ast.Call) and (n.args or n.keywords)}
    for node, _ in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                values.setdefault(dotted(target), []).append(node.value)
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            args = node.args.posonlyargs + node.args.args
            defaults = [None] * (len(args) - len(node.args.defaults)) + list(node.args.defaults)
            if getattr(node, "name", None) in given:  # its callers may give something else
                defaults = [None] * len(args)
            for arg, default in zip(args, defaults, strict=True):
                values.setdefault(arg.arg, []).append(default)
    return {name: found[0] for name, found in values.items() if len(found) == 1 and found[0] is not None}


def work_out(node: ast.expr, values: dict[str, ast.expr], file: str, depth: int = 0) -> str | None:
    """The path that an expression of constants, os.path, pathlib and __file__ comes to; None where it is open."""
    if depth > 20:
        return None

    def part(n: ast.expr) -> str | None:
        return work_out(n, values, file, depth + 1)

    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name) and node.id == "__file__":
        return IN_ZIP + file
    if dotted(node) and dotted(node) in values:
        return part(values[dotted(node)])
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        base = part(node.value)
        return None if base is None else posixpath.dirname(base) or IN_ZIP
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Add)):
        left, right = part(node.left), part(node.right)
        if left is None or right is None:
            return None
        return posixpath.join(left, right) if isinstance(node.op, ast.Div) else left + right
    if isinstance(node, ast.Call) and not node.keywords:
        name, args = called(node), [part(a) for a in node.args]
        if name in ("resolve", "absolute") and isinstance(node.func, ast.Attribute):
            return part(node.func.value)
        if name == "getcwd" or (name == "cwd" and not args):
            return "."
        if not args or None in args:
            return None
        if name in ("Path", "PurePath") or dotted(node.func) in ("join", "path.join", "os.path.join"):
            return posixpath.join(*args)
        if name == "with_name" and isinstance(node.func, ast.Attribute):
            base = part(node.func.value)
            return None if base is None else posixpath.join(posixpath.dirname(base), args[0])
        if name in ("abspath", "realpath", "str", "fspath", "normpath", "expanduser"):
            return args[0]
        if name == "dirname":
            return posixpath.dirname(args[0])
    return None
