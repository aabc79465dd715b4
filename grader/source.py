"""Static checks of model.py and what it imports from its zip, by their syntax trees: nothing is run.

    check_sources({"model.py": b"..."}, names_in_the_zip, profile="an2dl", packages=())

Starts at model.py and follows its imports into the zip. Other scripts in the zip are ignored. syntax.py says what of
a source counts as run.
"""

from __future__ import annotations

import ast
import inspect
import posixpath
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from grader.codes import Finding, finding
from grader.keras_files import held, table
from grader.registry import Code
from grader.syntax import (
    IN_ZIP,
    Nodes,
    called,
    constants,
    decorators,
    definitions,
    dotted,
    fallbacks,
    given_arguments,
    gives,
    gives_up,
    imports,
    module_files,
    own_nodes,
    parse,
    required,
    uncalled,
    walk,
    work_out,
)

# What `import` finds in tensorflow/tensorflow:2.17.0 besides the standard library of its Python 3.11.
GRADER_PACKAGES = frozenset(
    "absl astunparse certifi charset_normalizer flatbuffers gast google grpc h5py idna keras markdown markdown_it "
    "markupsafe mdurl ml_dtypes namex numpy opt_einsum optree packaging pip pkg_resources pygments requests rich "
    "setuptools six tensorboard tensorboard_data_server tensorflow tensorflow_io_gcs_filesystem termcolor "
    "typing_extensions urllib3 werkzeug wheel wrapt".split()
)
WINDOWS = {"_msi", "_winapi", "msilib", "msvcrt", "nt", "winreg", "winsound"}
TK = {"_tkinter", "idlelib", "tkinter", "turtle", "turtledemo"}  # a package of its own there
STANDARD = (sys.stdlib_module_names - WINDOWS - TK) | {"distutils", "imp", "asyncore", "asynchat", "smtpd"}
GRADER_MODULES = frozenset({"ingestion"})  # beside the ingestion program, hence first on sys.path
LIKELY_MODULES = frozenset("utils util helpers common score scoring evaluate data_io data_manager libscores".split())
KNOWN = STANDARD | GRADER_PACKAGES
PARTS = {"google": frozenset({"protobuf", "_upb"})}  # of a package that many projects share
DYNAMIC = {"globals", "locals", "vars", "exec", "eval", "setattr", "__getattr__", "__path__", "*"}  # may bind any name
# Functions of Keras that import a package when they are called.
NEED = {**dict.fromkeys(("array_to_img", "load_img", "save_img"), "PIL"),
        **dict.fromkeys(("random_rotation", "random_shift", "random_shear", "random_zoom"), "scipy")}  # fmt: skip
GONE = {"predict_classes", "predict_generator"}  # methods that models of Keras had
# What the standard library has since Python 3.12.
NEWER = {"itertools.batched", "math.sumprod", "typing.override", "typing.TypeAliasType", "warnings.deprecated"}
LOADERS = frozenset(
    "open load load_model load_weights loadtxt genfromtxt fromfile memmap File imread load_img read_csv read_text "
    "read_bytes loadmat restore TFSMLayer Interpreter GFile read_file listdir scandir".split()
)
WRITERS = frozenset("mkdir makedirs save savetxt savez savez_compressed write_text write_bytes".split())
METHODS = frozenset("open load save mkdir read_text read_bytes write_text write_bytes".split())  # of a Path, or others
ELSEWHERE = ("/tmp", "/dev", "/proc", "/sys", "/app", "/etc")  # absolute, and there on any Linux machine


def check_sources(
    sources: dict[str, bytes], names: set[str], profile: str, packages: tuple[str, ...], writable: bool = False
) -> tuple[list[Finding], Code]:
    """Findings for model.py and every module of the zip that it reaches, and what they give Keras.

    names: all files in the zip. writable: their folder can be written to at the grader.
    """
    code, read = Code(), dict(reach(sources))
    found = [part for part in read.values() if isinstance(part, Finding)]
    trees = {file: part for file, part in read.items() if isinstance(part, ast.Module)}
    idle = uncalled(trees.values())
    reached = {file: list(walk(tree, idle)) for file, tree in trees.items()}
    every = [pair for nodes in reached.values() for pair in nodes]
    values, bound = share(reached, given_arguments(every)), members(every)
    parts = [module.split(".") for module, _, _ in imports(every)]
    imported = {".".join(part[:n]) for part in parts for n in range(1, len(part) + 1)}
    tops = {name.split("/")[0].removesuffix(".py") for name in sources}
    known = KNOWN | set(packages) | (module_names(sources) if uses(every, "sys.path") else tops)
    there = set() if uses(every, "sys.path", "sys.modules") else stems(names) - KNOWN
    functions = {n.name for n, _ in every if isinstance(n, ast.FunctionDef)}
    place = Place(profile, any(isinstance(n, ast.Call) and called(n) == "chdir" for n, _ in every), writable)
    found += check_model(trees)
    for file, nodes in reached.items():
        found += check_imports(nodes, file, known, packages, tops)
        found += check_own(nodes, file, names, there, reached) if there else ()
        found += check_attributes(nodes, file, imported, packages)
        found += check_names(nodes, file)
        found += check_members(nodes, file, bound)
        found += check_calls(nodes, file)
        found += check_paths(nodes, values[file], file, names, functions, place)
        code.add(file, nodes, values[file], functions)
    code.unread({file: source for file, source in sources.items() if file not in reached})
    return list(dict.fromkeys(found)), code


def reach(sources: dict[str, bytes]) -> Iterator[tuple[str, ast.Module | Finding]]:
    """model.py and the modules of the zip that it imports, directly or not: their trees, or why they have none."""
    todo, known = ["model.py"], {"model.py"}
    for file in todo:  # which grows
        try:
            tree = parse(sources[file])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            yield file, finding("PY01", file=file, why=where or "nested too deeply")
            continue
        yield file, tree
        nodes = [(node, False) for node in ast.walk(tree)]
        moves = uses(nodes, "sys.path")
        for module in dict.fromkeys(module for module, _, _ in imports(nodes)):
            paths = [path for path in module_files(module, file) if path in sources]
            if moves:
                last = tuple("/" + path for path in module_files(module.lstrip("."), ""))
                paths += [path for path in sources if last and path.endswith(last)]
            todo += [path for path in dict.fromkeys(paths) if path not in known]
            known.update(paths)


def uses(nodes: Nodes, *names: str) -> bool:
    """Whether any of these dotted names occurs: of sys.path, any folder of the zip may then be on it."""
    return any(dotted(node) in names for node, _ in nodes)


def stems(names: set[str]) -> set[str]:
    """Folders of the zip, and files without what follows a dot."""
    return {name[:at] for name in names for at, letter in enumerate(name) if letter in "/."}


def module_names(sources: dict[str, bytes]) -> set[str]:
    """Of modules and packages anywhere in the zip."""
    return {part.removesuffix(".py") for name in sources for part in name.split("/")}


def share(reached: dict[str, Nodes], given: set[str]) -> dict[str, dict[str, ast.expr]]:
    """For each file its names with one value only (see constants), those that it imports from other files, too."""
    values = {file: constants(nodes, given) for file, nodes in reached.items()}
    for file, nodes in reversed(reached.items()):
        for node, _ in nodes:
            for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                module = alias.name if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
                other = next((path for path in module_files(module, file)[::-1] if path in values), None)
                if other is None or other == file:
                    continue
                wanted = list(values[other]) if isinstance(node, ast.Import) else {alias.name} & values[other].keys()
                for name in wanted:
                    value = values[other].get(name)  # gone where an earlier name came to it, and it was open
                    text = value and work_out(value, values[other], other)
                    here = alias.asname or alias.name
                    here = f"{here}.{name}" if isinstance(node, ast.Import) else here
                    if text is not None:
                        values[file].setdefault(here, ast.Constant(text))
    return values


def check_imports(
    nodes: Nodes, file: str, known: set[str], packages: tuple[str, ...], local: set[str]
) -> Iterator[Finding]:
    """Modules that neither the grader nor the zip has, or that both have. local: those at the zip's root."""
    spare = fallbacks(nodes, known)
    for module, line, guarded in imports([pair for pair in nodes if pair[0] not in spare]):
        root, *inner = module.split(".")
        lacks = root in PARTS and root not in local and inner and inner[0] not in PARTS[root] and inner[0] != "*"
        if module.startswith("."):
            if file == "model.py" and not guarded:
                yield finding("IMP04", file=file, line=line)
        elif (root not in known or lacks) and not guarded and ".".join([root, *inner[:1]]) not in packages:
            yield finding("IMP01", file=file, at=f" line {line}", name=".".join([root, *inner[:1]]) if lacks else root)
        elif root in local:
            yield from check_shadow(root)


def check_own(
    nodes: Nodes, file: str, names: set[str], there: set[str], reached: dict[str, Nodes]
) -> Iterator[Finding]:
    """Imports of what a package or a module of the zip does not have. names: all its files; there: their `stems`."""

    def lacks(module: str) -> bool:
        parts = module.split(".")
        return parts[0] in there and "/".join(parts) not in there

    for node, guarded in nodes:
        wanted = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (file != "model.py" or not node.level):
            base = posixpath.dirname(file).split("/")[: -node.level + 1 or None] if node.level else []
            module = ".".join(filter(None, [*base, node.module]))
            given = [alias.name for alias in node.names]
            wanted = [module] if lacks(module) else missing_names(module, given, names, reached)
        for name in filter(lacks, wanted if not guarded else ()):
            yield finding("IMP01", file=file, at=f" line {node.lineno}", name=name)


def missing_names(module: str, given: list[str], names: set[str], reached: dict[str, Nodes]) -> list[str]:
    """Of names imported from a module of the zip those that none of its code binds, as dotted names."""
    path = module.replace(".", "/")
    nodes = next((reached[file] for file in (f"{path}/__init__.py", f"{path}.py") if file in reached), None)
    if nodes is None:  # a folder of modules, or what was not read
        unread = any(name.startswith((f"{path}.", f"{path}/__init__.")) for name in names)
        return [] if unread else [f"{module}.{name}" for name in given if name != "*"]
    bound = rebindings(nodes)
    for node, _ in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Call):
            bound |= {called(node)} & DYNAMIC
        bound.add(getattr(node, "name", None))
    return [] if bound & DYNAMIC else [f"{module}.{name}" for name in given if name not in bound and name != "*"]


def check_attributes(nodes: Nodes, file: str, imported: set[str], packages: tuple[str, ...]) -> Iterator[Finding]:
    """Names of Keras, TensorFlow and numpy that code uses and that the grader's versions lack."""
    stands_for, rebound = aliases(nodes), rebindings(nodes)
    inner = {node.value for node, _ in nodes if isinstance(node, ast.Attribute)}

    def public(node: ast.AST) -> str:
        root, _, rest = dotted(node).partition(".")
        known = root in stands_for and root not in rebound
        return ".".join(filter(None, (stands_for[root], rest))) if known else ""

    for node in (node for node, guarded in nodes if not guarded and node not in inner):
        used, line = [], {"file": file, "line": getattr(node, "lineno", 0)}
        if isinstance(node, ast.Attribute):
            used = [public(node)]
        elif isinstance(node, ast.Import):
            used = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            used = [f"{node.module}.{alias.name}" for alias in node.names]
        for lacks in (lacking(name, imported if isinstance(node, ast.Attribute) else None) for name in used):
            if lacks:
                other = lacks.removeprefix("tensorflow.")
                instead = f"say {other}" if other != lacks and not lacking(other, None) else "do without it"
                yield finding("IMP05", **line, name=lacks, instead=instead)
        name = public(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
        needs = NEED.get(name.split(".")[-1]) if name.split(".")[0] in ("keras", "tensorflow") else None
        if needs and needs not in packages:
            yield finding("IMP01", file=file, at=f" line {node.lineno}: {name}", name=needs)
        for key in untaken(node, public(node.func)) if isinstance(node, ast.Call) else ():
            yield finding("IMP05", **line, name=f"{public(node.func)}({key}=...)", instead="do without it")


def aliases(nodes: Nodes) -> dict[str, str]:
    """{name in this file: what it was imported as, in full}"""
    found = {}
    for node, _ in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or root] = root
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def untaken(call: ast.Call, name: str) -> list[str]:
    """Arguments that a class of Keras does not take."""
    taken = table()["classes"].get(name.removeprefix("tensorflow."))
    return [] if taken is None else [k.arg for k in call.keywords if k.arg and k.arg not in taken.split()]


def lacking(name: str, imported: set[str] | None) -> str | None:
    """The part of a dotted name at which the grader's version ends, or None. imported: submodules that are loaded;
    None: `name` stands in an import, which finds submodules by itself."""
    parts, module = name.split("."), name.split(".")[0]
    if name in NEWER:
        return name
    for part in parts[1:]:
        inside, here = held(module), f"{module}.{part}"
        if inside is None or part in ("*", "src", "api") or part.startswith("_"):
            return None
        if part not in inside and not (held(here) is not None if imported is None else here in imported):
            return here
        module = here
    return None


def check_shadow(root: str) -> Iterator[Finding]:
    if root in STANDARD | GRADER_PACKAGES | GRADER_MODULES:
        yield finding("IMP02", name=f"{root}.py")
    elif root in LIKELY_MODULES:
        yield finding("IMP03", name=f"{root}.py")


def check_model(trees: dict[str, ast.Module], file: str = "model.py", name: str = "Model") -> Iterator[Finding]:
    """Model, its __init__ and its predict, as far as the files show them."""
    made = binding(trees[file], name) if file in trees else None
    if isinstance(made, ast.ClassDef):
        yield from check_class(made, trees[file])
    elif isinstance(made, ast.ImportFrom):
        left = {other: tree for other, tree in trees.items() if other != file}
        there = next((alias.name for alias in made.names if (alias.asname or alias.name) == name), name)
        for path in module_files("." * made.level + (made.module or ""), file)[-1:]:
            yield from check_model(left, path, there)
    elif made is None and file == "model.py" and file in trees:
        yield finding("PY02")


def binding(tree: ast.Module, name: str) -> ast.stmt | None:
    """The last statement of a module that gives this name, or else the last `import *`; those of Keras do not count."""
    found = star = None
    for node in definitions(tree.body):
        if (getattr(node, "module", "") or "").split(".")[0] not in ("keras", "tensorflow"):
            found = node if name in gives(node) else found
            star = node if "*" in gives(node) else star
    return found or star


def check_class(model: ast.ClassDef, tree: ast.Module) -> Iterator[Finding]:
    """Findings on the class Model of a file."""
    methods = {node.name: node for node in definitions(model.body) if isinstance(node, ast.FunctionDef)}
    if "__init__" in methods and (needed := required(methods["__init__"])[1:]):
        yield finding("PY03", names=", ".join(needed))
    if "predict" in methods:
        yield from (finding("PY04", how=how) for how in check_predict(methods["predict"]))
    elif any(isinstance(node, ast.AsyncFunctionDef) and node.name == "predict" for node in model.body):
        yield finding("PY04", how="has an async predict, which returns no labels when called")
    elif stands_alone(model) and "__getattr__" not in methods:
        names = {node.id for node in ast.walk(model) if isinstance(node, ast.Name)}
        names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        if "predict" not in names:
            yield finding("PY04", how="has no method predict")


def check_predict(predict: ast.FunctionDef) -> Iterator[str]:
    """What is wrong with a predict, in words."""
    inside = list(own_nodes(predict))
    returns = [node for node in inside if isinstance(node, ast.Return)]
    try:
        signature(predict).bind(*[] if "staticmethod" in decorators(predict) else ["self"], "X")
    except TypeError as error:
        yield f"has a predict that cannot be called with images alone ({error})"
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in inside):
        yield "has a predict that yields, which returns no labels when called"
    elif not (predict.decorator_list or gives_up(predict.body) or any(node.value for node in returns)):
        yield "has a predict that returns nothing"


def check_names(nodes: Nodes, file: str) -> Iterator[Finding]:
    """Names that are used and that nothing defines, by pyflakes, where they stand in code that runs."""
    from pyflakes import checker, messages

    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node, _ in nodes):
        return  # any name may come from there
    try:
        said = checker.Checker(nodes[0][0], file).messages
    except RecursionError:  # of a tree that may compile all the same
        return
    places = {(m.lineno, m.col, m.message_args[0]) for m in said if isinstance(m, messages.UndefinedName)}
    deleted = {n.id for n, _ in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}  # after use, maybe
    spare = annotations(nodes)
    lines: dict[str, int] = {}
    for node, guarded in nodes:
        if isinstance(node, ast.Name) and not guarded and node not in spare:
            if (node.lineno, node.col_offset, node.id) in places and node.id not in deleted:
                lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    for name, line in sorted(lines.items(), key=lambda item: item[1]):
        yield finding("PY05", file=file, line=line, name=name)


def annotations(nodes: Nodes) -> set[ast.AST]:
    """What stands in annotations that Python does not evaluate: those of variables in functions, or all."""
    every = [n for n, _ in nodes]
    if not any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in every):
        functions = [n for n in every if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        every = [n for function in functions for n in own_nodes(function) if isinstance(n, ast.AnnAssign)]
    given = [getattr(n, "annotation", None) or getattr(n, "returns", None) for n in every]
    return {inner for node in given if node for inner in ast.walk(node)}


def check_members(nodes: Nodes, file: str, bound: set[str]) -> Iterator[Finding]:
    """Methods that models of Keras no longer have, and attributes of self that nothing sets. bound: see members."""
    run = {node for node, guarded in nodes if not guarded}
    for node in (n for n in run if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        if called(node) in GONE - bound:
            yield finding("IMP05", file=file, line=node.lineno, name=called(node), instead="say predict, then argmax")
    classes = [n for n, _ in nodes if isinstance(n, ast.ClassDef) and stands_alone(n)]
    for cls in classes if not bound & {*DYNAMIC, "__dict__"} else ():
        used = [n for n in ast.walk(cls) if isinstance(n, ast.Attribute) and dotted(n.value) == "self" and n in run]
        lines = {node.attr: node.lineno for node in used}
        for name in sorted(lines.keys() - bound - set(dir(object))):
            yield finding("PY05", file=file, line=lines[name], name=f"self.{name}")


def stands_alone(cls: ast.ClassDef) -> bool:
    """Whether a class has nothing but what stands in it: no base, metaclass or decorator adds to it."""
    return not cls.decorator_list and not cls.keywords and all(getattr(b, "id", "") == "object" for b in cls.bases)


def members(nodes: Nodes) -> set[str]:
    """Names of functions and classes, and of what is set on any object, in a class or through a text."""
    found = set()
    for node, _ in nodes:
        if isinstance(node, ast.Attribute) and (isinstance(node.ctx, ast.Store) or node.attr == "__dict__"):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Call):
            found |= {called(node)} & DYNAMIC
        elif isinstance(node, ast.ClassDef):
            parts = [part for part in node.body if not isinstance(part, ast.FunctionDef)]
            found |= {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}
        found.add(getattr(node, "name", None))
    return found


def rebindings(nodes: Nodes) -> set[str]:
    """Names that are assigned, or are parameters: whatever an import or a `def` gave them may be gone."""
    every = [node for node, _ in nodes]
    stored = {n.id for n in every if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.arg for n in every if isinstance(n, ast.arg)}


def check_calls(nodes: Nodes, file: str) -> Iterator[Finding]:
    """Calls of the file's own functions, and of self's own methods, that do not fit the definition."""
    module = nodes[0][0]
    functions = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef) and not n.decorator_list}
    rebound = rebindings(nodes) | {  # as a function within another one, or defined under a condition
        inner.name
        for n, _ in nodes
        if not isinstance(n, (ast.Module, ast.ClassDef))
        for inner in ast.iter_child_nodes(n)
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    run = {node for node, guarded in nodes if isinstance(node, ast.Call) and not guarded}
    todo: list[tuple[ast.AST, dict]] = [(module, {})]  # with the methods of the innermost class around it
    while todo:
        node, methods = todo.pop()
        if isinstance(node, ast.ClassDef):
            methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        todo += [(child, methods) for child in ast.iter_child_nodes(node)]
        name = dotted(node.func) if node in run else ""
        if name in functions and name not in rebound:
            yield from fits(node, functions[name], 0, file)
        elif name.startswith("self.") and (method := methods.get(name[5:])):
            own = {(): 1, ("classmethod",): 1, ("staticmethod",): 0}.get(tuple(decorators(method)))
            if own is not None:
                yield from fits(node, method, own, file)


def fits(call: ast.Call, definition: ast.FunctionDef, own: int, file: str) -> Iterator[Finding]:
    """Compare one call with one definition, of whose parameters the first `own` are filled in by Python."""
    if not any(isinstance(a, ast.Starred) for a in call.args) and all(k.arg for k in call.keywords):
        try:
            signature(definition).bind(*[None] * own, *call.args, **{k.arg: k.value for k in call.keywords})
        except TypeError as error:
            yield finding("PY06", file=file, line=call.lineno, name=definition.name, how=str(error))


def signature(definition: ast.FunctionDef) -> inspect.Signature:
    args, needed, parameter = definition.args, required(definition), inspect.Parameter
    kinds = {
        parameter.POSITIONAL_ONLY: args.posonlyargs,
        parameter.POSITIONAL_OR_KEYWORD: args.args,
        parameter.VAR_POSITIONAL: [args.vararg],
        parameter.KEYWORD_ONLY: args.kwonlyargs,
        parameter.VAR_KEYWORD: [args.kwarg],
    }
    needed += [arg.arg for arg in (args.vararg, args.kwarg) if arg]  # which take no default
    every = [(arg.arg, kind) for kind, group in kinds.items() for arg in group if arg]
    return inspect.Signature([parameter(n, k, default=parameter.empty if n in needed else None) for n, k in every])


class Place(NamedTuple):
    """Where a submission runs: the profile (see worker.py), whether it calls chdir, may write to its own folder."""

    profile: str
    moves: bool
    writable: bool


def check_paths(
    nodes: Nodes, values: dict[str, ast.expr], file: str, names: set[str], own: set[str], place: Place
) -> Iterator[Finding]:
    """Files opened by a name that can be worked out here: relative, on one machine only, or not in the zip.

    names: all files in the zip; own: its functions, whose names are not taken for those of libraries.
    """
    modules = set(aliases(nodes))
    for node in (n for n, guarded in nodes if isinstance(n, ast.Call) and not guarded):
        if fetches(node):
            yield finding("NET01", file=file, line=node.lineno)
        if called(node) not in LOADERS | WRITERS or dotted(node.func).removeprefix("self.") in own:
            continue
        path, written = opened(node, values, file, modules)
        if not path or "\0" in path or re.match(r"\w+://", path):
            continue
        ours, inside = f"{path}/".startswith(IN_ZIP), posixpath.normpath(f"{path}/".removeprefix(IN_ZIP))
        said = {"file": file, "at": f" line {node.lineno}", "name": inside if ours else path}
        there = within(inside, names, ("/", ".") if called(node) in ("restore", "load_weights") else ("/",))
        if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", path):
            if not written and not path.startswith(ELSEWHERE):
                yield finding("PATH02", **said)
        elif written:
            beside = ours or (place.profile == "an2dl" and not place.moves)
            if beside and not place.writable and not (there and called(node) in ("mkdir", "makedirs")):
                yield finding("PATH04", **said)
        elif not there:
            yield finding("PATH03", **said)
        elif not ours and inside != "." and not place.moves:
            yield finding("PATH01", "error" if place.profile == "strict" else "warning", **said)


def fetches(call: ast.Call) -> bool:
    """Whether a call loads pretrained weights from the internet."""
    weights = next((k.value for k in call.keywords if k.arg == "weights"), None)
    network = "applications" in dotted(call.func).split(".") and weights is None and not call.args
    wanted = getattr(weights, "value", None) == "imagenet" or network
    return wanted and called(call) not in ("preprocess_input", "decode_predictions")


def opened(call: ast.Call, values: dict[str, ast.expr], file: str, modules: set[str]) -> tuple[str | None, bool]:
    """The path of what a call of LOADERS or WRITERS opens, None where it is not known, and whether it writes.

    modules: names that the file imports.
    """
    name, keywords = called(call), {k.arg: k.value for k in call.keywords}
    named = ("file", "filepath", "filename", "path", "name", "model_path")
    first = [*call.args[:1], *(keywords[k] for k in named if k in keywords)]
    path, given = first and work_out(first[0], values, file), call.args[1:2]
    if isinstance(call.func, ast.Attribute) and name in METHODS:
        method_of = work_out(call.func.value, values, file)  # Path(...).open()
        if method_of is not None or dotted(call.func).split(".")[0] not in modules:
            path, given = method_of, call.args[:1]
    modes = [getattr(a, "value", None) for a in (*given, keywords.get("mode"))]
    written = name in ("open", "GFile") and any(isinstance(m, str) and re.search("[wax]", m) for m in modes)
    return path or None, written or name in WRITERS


def within(path: str, names: set[str], ends: tuple[str, ...]) -> bool:
    """Whether the zip has this file, or files whose names begin with it and one of `ends`."""
    return path == "." or path in names or any(name.startswith(tuple(path + end for end in ends)) for name in names)
