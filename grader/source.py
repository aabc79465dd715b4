"""Static checks of model.py and the modules that it imports from its zip, on their syntax trees; no code is run.

    check_sources({"model.py": b"..."}, names_in_the_zip, profile="an2dl", packages=(), writable=False)

They follow the imports of model.py within the zip. syntax.py decides which code counts as run.
"""

import ast
import inspect
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from grader import syntax
from grader.codes import Finding, finding
from grader.keras_files import CLASSES, TABLE
from grader.registry import Registry
from grader.syntax import IN_ZIP, Source, arguments, called, dotted, imported, imports, last, own_nodes

GRADER_PACKAGES = frozenset(  # what `import` finds in tensorflow/tensorflow:2.17.0, besides the standard library
    "absl astunparse certifi charset_normalizer flatbuffers gast google grpc h5py idna keras markdown markdown_it "
    "markupsafe mdurl ml_dtypes namex numpy opt_einsum optree packaging pip pkg_resources pygments requests rich "
    "setuptools six tensorboard tensorboard_data_server tensorflow tensorflow_io_gcs_filesystem termcolor "
    "typing_extensions urllib3 werkzeug wheel wrapt".split()
)
LIKELY_MODULES = "utils util helpers common score scoring evaluate data_io data_manager libscores".split()
NAMES = {module: set(names.split()) for module, names in TABLE["names"].items()}  # in the grader's public modules
NAMES = {f"tensorflow.{module}": names for module, names in NAMES.items() if module.startswith("keras.")} | NAMES
KNOWN = GRADER_PACKAGES | set(TABLE["standard"].split())
# {module: code if the zip has it, too}. IMP02: the grader has it (`ingestion` is its program). IMP03: it may have it.
TAKEN = dict.fromkeys(LIKELY_MODULES, "IMP03") | dict.fromkeys((*KNOWN, "ingestion"), "IMP02")
PARTS = {"google": {"protobuf", "_upb", "*"}}  # what the grader has of a shared package
# {function of Keras: the package that it imports when it is called}
NEED = dict.fromkeys(("array_to_img", "load_img", "save_img"), "PIL") | {"plot_model": "pydot"}
NEED |= dict.fromkeys("random_rotation random_shift random_shear random_zoom apply_affine_transform".split(), "scipy")
GONE = {"predict_classes", "predict_generator"}  # methods of models in older Keras
GONE_ARGUMENTS = {"max_queue_size", "workers", "use_multiprocessing"}  # of predict in older Keras
# Names that the standard library has only since Python 3.12.
NEWER = {"itertools.batched", "math.sumprod", "typing.override", "typing.TypeAliasType", "warnings.deprecated"}
NO_LABELS = (ast.Tuple, ast.Dict, ast.DictComp, ast.Set, ast.SetComp, ast.GeneratorExp, ast.JoinedStr)
LOADERS = frozenset(
    "open load load_model load_weights loadtxt genfromtxt fromfile memmap File imread load_img read_csv read_text "
    "read_bytes loadmat restore TFSMLayer Interpreter GFile read_file listdir scandir".split()
)
WRITERS = frozenset("mkdir makedirs extractall save savetxt savez savez_compressed write_text write_bytes".split())
METHODS = frozenset("open load save mkdir read_text read_bytes write_text write_bytes".split())  # also of a Path
ELSEWHERE = ("/tmp", "/dev", "/proc", "/sys", "/app", "/etc")  # absolute paths that exist on any Linux machine


class Zip:
    """What the checks of one source must know of all: of those that model.py imports (`trees`), and of the zip."""

    def __init__(self, trees: dict[str, ast.Module], sources: Iterable[str], names: set[str], packages: Iterable[str]):
        every = [node for tree in trees.values() for node in ast.walk(tree)]
        defined = [n.name for n in every if isinstance(n, ast.FunctionDef)]
        stored = [n.attr for n in every if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
        moves = {"sys.path", "sys.modules"} & set(map(dotted, every))
        self.packages = packages  # more modules that the grader has
        self.tops = {name.split("/")[0].removesuffix(".py") for name in sources}  # modules at the root
        self.known = KNOWN | {"__main__", *packages} | (module_names(sources) if "sys.path" in moves else self.tops)
        self.reached = syntax.together(trees, self.known)
        self.places = names | prefixes(names, "/") | {"."}  # files and folders
        self.stems = prefixes(names, "/.")  # the same up to a dot
        self.modules = set() if moves else self.stems - KNOWN  # paths of own modules; none if they may be elsewhere
        self.loaded = prefixes((f"{module}." for module, _ in imports(every)), ".")  # modules that some import loads
        self.calls = {*map(called, every), "Model"}  # last names of the functions that are called
        self.functions = set(defined)  # not to be taken for those of libraries with the same name
        self.given = Counter(stored + defined)  # number of definitions and assignments of each name
        self.bound = members(every)
        self.taken = {n.arg for n in every if isinstance(n, ast.arg)}  # names of parameters
        if any(isinstance(n, syntax.FUNCTIONS) and n.name == "predict" and n.args.kwarg for n in every):
            self.taken |= GONE_ARGUMENTS


def check_sources(
    sources: dict[str, bytes], names: set[str], profile: str, packages: tuple[str, ...], writable: bool
) -> tuple[list[Finding], Registry]:
    """Findings on model.py and all modules of the zip that it imports, and the objects that these pass to Keras.

    names: all files in the zip. profile: see worker.py. writable: whether the submission's folder is, at the grader.
    """
    first = "model/__init__.py" if "model/__init__.py" in sources else "model.py"  # Python prefers a package
    trees, found = reach(sources, first)
    whole, registry = Zip(trees, sources, names, packages), Registry()
    found += check_model(whole.reached, first)
    for source in whole.reached.values():
        found += check_imports(source, whole)
        found += check_own(source, whole)
        found += check_attributes(source, whole)
        found += check_names(source)
        found += check_members(source, whole)
        found += check_calls(source, whole)
        found += check_paths(source, whole, profile, writable)
        registry.add(source, whole.functions)
    registry.unread({file: text for file, text in sources.items() if file not in whole.reached})
    return list(dict.fromkeys(found)), registry


def prefixes(names: Iterable[str], ends: str) -> set[str]:
    """Every part of a name that ends before one of the characters `ends`: {"a", "a/b"} for "a/b/c" and "/"."""
    return {name[:at] for name in names for at, letter in enumerate(name) if letter in ends}


def reach(sources: dict[str, bytes], first: str) -> tuple[dict[str, ast.Module], list[Finding]]:
    """Trees of `first` and of all modules of the zip that it imports, also indirectly; findings on unparsable ones."""
    todo, known = [first], {first}
    trees, found = {}, []
    for file in todo:  # grows meanwhile
        try:
            tree = ast.parse(sources[file])
            compile(tree, "model.py", "exec", dont_inherit=True)  # finds more errors, such as a `return` outside
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            found.append(finding("PY01", file=file, why=where or "nested too deeply"))
            continue
        trees[file] = tree
        nodes = list(ast.walk(tree))
        moves = "sys.path" in map(dotted, nodes)  # then any folder of the zip may be on it
        for module in dict(imports(nodes)):
            paths = [path for path in syntax.module_files(module, file) if path in sources]
            if moves:
                ends = tuple("/" + path for path in syntax.module_files(module.lstrip("."), ""))
                paths += [path for path in sources if path.endswith(ends)]
            todo += [path for path in dict.fromkeys(paths) if path not in known]
            known.update(paths)
    return trees, found


def module_names(sources: Iterable[str]) -> set[str]:
    return {part.removesuffix(".py") for name in sources for part in name.split("/")}


def check_imports(source: Source, whole: Zip) -> Iterator[Finding]:
    """Imports of modules that neither the grader nor the zip has, or both have."""
    for module, node in imports(source.nodes):
        root, *inner = module.split(".")
        first = ".".join([root, *inner[:1]])
        lacks = root in PARTS and root not in whole.tops and inner and inner[0] not in PARTS[root]
        if not root:  # relative
            if source.file == "model.py" and source.nodes[node]:
                yield finding("IMP04", **source.at(node))
        elif (root not in whole.known or lacks) and source.nodes[node] and first not in whole.packages:
            yield finding("IMP01", **source.at(node), name=first if lacks else root)
        elif root in whole.tops and root in TAKEN:
            yield finding(TAKEN[root], name=f"{root}.py")


def check_own(source: Source, whole: Zip) -> Iterator[Finding]:
    """Imports of names that the zip's own modules lack."""

    def lacks(module: str) -> bool:
        return module.split(".")[0] in whole.modules and module.replace(".", "/") not in whole.modules

    def may_give(package: str, name: str) -> bool:
        path = package.replace(".", "/")
        code = whole.reached.get(f"{path}/__init__.py") or whole.reached.get(f"{path}.py")
        if code is None:  # a folder without __init__.py, or a file not read
            return path not in whole.places or f"{path}/__init__" in whole.modules
        return bool(code.bound & {name, *syntax.DYNAMIC})

    for node in source.run if whole.modules else ():
        for package, name, _ in imported(node):
            if source.file == "model.py" and package.startswith("."):
                continue
            module, full = (syntax.absolute(part, source.file) for part in (package or name, package + name))
            missing = module if lacks(module) else full
            if lacks(missing) and (missing == module or not (name == "*" or may_give(module, name))):
                yield finding("IMP01", **source.at(node), name=missing)


def check_attributes(source: Source, whole: Zip) -> Iterator[Finding]:
    """Uses of Keras, TensorFlow and numpy names that the grader's versions lack."""
    inner = {node.value for node in source.nodes if isinstance(node, ast.Attribute)} | source.annotations
    for node in (node for node in source.run if node not in inner):
        name = source.public(node)
        ends = [lacking(package + part, None) for package, part, _ in imported(node) if not package.startswith(".")]
        ends += [lacking(name, whole.loaded)] if isinstance(node, ast.Attribute) else []
        for lacks in filter(None, ends):
            other = lacks.removeprefix("tensorflow.")
            instead = f"say {other}" if other != lacks and not lacking(other, None) else "do without it"
            yield finding("IMP05", **source.at(node), name=lacks, instead=instead)
        needs = NEED.get(name.split(".")[-1]) if name.split(".")[0] in ("keras", "tensorflow") else None
        if needs and needs not in whole.packages:
            yield finding("IMP01", file=source.file, at=f" line {node.lineno}: {name}", name=needs)
        made = source.public(node.func) if isinstance(node, ast.Call) else ""
        taken = CLASSES.get(made.removeprefix("tensorflow."))
        for key in [] if taken is None else [k.arg for k in node.keywords if k.arg not in (None, *taken.split())]:
            yield finding("IMP05", **source.at(node), name=f"{made}({key}=...)", instead="do without it")


def lacking(name: str, loaded: set[str] | None) -> str | None:
    """The beginning of a dotted name up to the first part that the grader lacks, or None. loaded: modules that some
    import loads; None if `name` itself is imported, which loads submodules."""
    module, *parts = name.split(".")
    if name in NEWER:
        return name
    for part in parts:
        inside, here = NAMES.get(module), f"{module}.{part}"
        if inside is None or part in ("*", "src", "api") or part.startswith("_"):
            return None
        if part not in inside and here not in (NAMES if loaded is None else loaded):
            return here
        module = here
    return None


def check_model(reached: dict[str, Source], file: str, name: str = "Model") -> Iterator[Finding]:
    """Findings on the class `name` in a file: whether it exists, its __init__ and its predict. Follows imports."""
    top = reached[file].top if file in reached else {}
    given = top.get(name, [])[::-1] + top.get("*", [])[::-1]
    made = next((n for n in given if str(getattr(n, "module", "")).split(".")[0] not in ("keras", "tensorflow")), None)
    if isinstance(made, ast.ClassDef):
        yield from check_class(made, reached[file])
    elif isinstance(made, ast.FunctionDef) and not made.decorator_list and (how := misfit(made)):
        yield finding("PY03", how=how)
    elif isinstance(made, ast.ImportFrom):
        left = {other: source for other, source in reached.items() if other != file}
        package, there, _ = next((part for part in imported(made) if part[2] == name), imported(made)[0])
        yield from check_model(left, syntax.module_files(package, file)[-1], name if there == "*" else there)
    elif made is None and file in reached and not reached[file].bound & {"exec", "globals", "__getattr__"}:
        yield finding("PY02", file=file)


def methods_of(cls: ast.ClassDef, source: Source) -> tuple[dict[str, ast.FunctionDef], bool]:
    """({name: method} of a class and its base class in the same file, whether these are all)."""
    own = {node.name: node for node in own_nodes(cls.body) if isinstance(node, syntax.FUNCTIONS)}
    whole = not (cls.decorator_list or cls.keywords)
    bases = [base for base in map(dotted, cls.bases) if base not in ("object", "ABC", "abc.ABC")]
    given = source.top.get(bases[0], []) if len(bases) == 1 else []
    if len(given) == 1 and isinstance(given[0], ast.ClassDef) and given[0].lineno < cls.lineno:
        methods, all_of_them = methods_of(given[0], source)
        return methods | own, whole and all_of_them
    return own, whole and not bases


def check_class(model: ast.ClassDef, source: Source) -> Iterator[Finding]:
    methods, whole = methods_of(model, source)
    init, predict = methods.get("__init__"), methods.get("predict")
    plain = whole or not (model.decorator_list or model.keywords or init not in model.body)
    if init and plain and not init.decorator_list and (how := misfit(init, "self")):
        yield finding("PY03", how=how)
    if predict and {*map(last, predict.decorator_list)} <= {"staticmethod", "classmethod"}:
        yield from (finding("PY04", how=f"has a predict that {how}") for how in faults(predict))
    elif whole and not predict and not (source.bound | methods.keys()) & syntax.DYNAMIC:
        if "predict" not in {last(n) for n in source.nodes if isinstance(getattr(n, "ctx", None), ast.Store)}:
            yield finding("PY04", how="has no method predict")


def faults(predict: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Phrases on what is wrong with a method predict: its parameters, or what it returns."""
    inside = list(own_nodes(predict.body))
    returned = [n.value for n in inside if isinstance(n, ast.Return) and n.value]
    if returned and all(isinstance(v, NO_LABELS) and ast.Starred not in map(type, ast.walk(v)) for v in returned):
        yield "returns a tuple, dict, set or text, not an array of labels"
    own = [] if "staticmethod" in map(last, predict.decorator_list) else ["self"]
    if how := misfit(predict, *own, "X"):
        yield f"cannot be called with images alone ({how})"
    if isinstance(predict, ast.AsyncFunctionDef) or any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in inside):
        yield "is async or yields, which returns no labels when called"
    elif not (returned or syntax.gives_up(predict.body)):
        yield "returns nothing"


def check_names(source: Source) -> Iterator[Finding]:
    """Undefined names in code that runs, found by pyflakes."""
    from pyflakes import checker, messages

    if "*" in source.aliases:
        return  # it may define any name
    kinds = (messages.UndefinedName, messages.UndefinedLocal)
    try:
        said = checker.Checker(source.tree, source.file).messages
    except RecursionError:  # too deep for pyflakes; Python may still compile it
        return
    places = {(m.lineno, m.col, m.message_args[0]) for m in said if isinstance(m, kinds)}
    deleted = {n.id for n in source.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}  # maybe after use
    spare, undefined = source.annotations, {}
    for node in sorted((n for n in source.run if isinstance(n, ast.Name)), key=lambda n: n.lineno):
        if (node.lineno, node.col_offset, node.id) in places and node.id not in deleted and node not in spare:
            undefined.setdefault(node.id, node)
    yield from (finding("PY05", **source.at(node), name=name) for name, node in undefined.items())


def check_members(source: Source, whole: Zip) -> Iterator[Finding]:
    """Calls of methods or arguments that Keras models no longer have, and attributes of self that nothing sets."""
    for node in (n for n in source.run if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        if called(node) in GONE - whole.bound:
            yield finding("IMP05", **source.at(node), name=called(node), instead="say predict, then argmax")
        gone = {k.arg for k in node.keywords} & GONE_ARGUMENTS - whole.taken
        if called(node) == "predict" and gone:
            yield finding("IMP05", **source.at(node), name=f"predict({min(gone)}=...)", instead="do without it")
    for cls in (n for n in source.nodes if isinstance(n, ast.ClassDef)):
        based = cls.decorator_list or cls.keywords or any(getattr(b, "id", "") != "object" for b in cls.bases)
        unpickled = "pickle" in whole.loaded and cls.name not in whole.calls
        if based or unpickled or whole.bound & {*syntax.DYNAMIC, "__dict__"}:
            continue  # something else may add attributes
        used = [n for n in ast.walk(cls) if isinstance(n, ast.Attribute) and dotted(n.value) == "self"]
        named = {node.attr: node for node in used if source.nodes[node]}
        for name in sorted(named.keys() - whole.bound - set(dir(object))):
            yield finding("PY05", **source.at(named[name]), name=f"self.{name}")


def members(nodes: list[ast.AST]) -> set[str]:
    """Names that attributes may have: functions, classes, attributes set on any object, class variables, strings."""
    found = {getattr(node, "name", None) for node in nodes} | ({called(node) for node in nodes} & syntax.DYNAMIC)
    for node in nodes:
        match node:
            case ast.Attribute(_, "__dict__" as name) | ast.Attribute(_, name, ast.Store()) | ast.Constant(str(name)):
                found.add(name)
            case ast.ClassDef():
                found |= {n.id for n in own_nodes(node.body) if isinstance(n, ast.Name)}
    return found


def check_calls(source: Source, whole: Zip) -> Iterator[Finding]:
    """Calls of the file's functions and of methods of self whose arguments do not fit the definition."""
    classes = [n for n in source.nodes if isinstance(n, ast.ClassDef)]
    usual = {node for place in (source.tree, *classes) for node in place.body}  # not in functions or conditions
    rebound = source.rebound | {n.name for n in source.nodes if isinstance(n, syntax.FUNCTIONS) and n not in usual}
    functions = {n.name: n for n in source.tree.body if isinstance(n, ast.FunctionDef) and not n.decorator_list}
    methods: dict[ast.AST, dict[str, ast.FunctionDef]] = {}  # {node: methods of the innermost class around it}
    for cls in classes:  # the outer ones first
        methods.update(dict.fromkeys(ast.walk(cls), {n.name: n for n in cls.body if isinstance(n, ast.FunctionDef)}))
    for node in (n for n in source.run if isinstance(n, ast.Call)):
        name, named = dotted(node.func), {k.arg: k.value for k in node.keywords}
        definition, filled = None if name in rebound else functions.get(name), 0  # number of arguments that Python adds
        if name.startswith("self."):  # checked only if its name is defined or assigned once
            definition = methods.get(node, {}).get(name[5:]) if whole.given[name[5:]] == 1 else None
            decorators = tuple(map(last, definition.decorator_list)) if definition else ()
            filled = {(): 1, ("classmethod",): 1, ("staticmethod",): 0}.get(decorators)
        if definition is None or filled is None or None in named or any(isinstance(a, ast.Starred) for a in node.args):
            continue
        if how := misfit(definition, *[None] * filled, *node.args, **named):
            yield finding("PY06", **source.at(node), name=definition.name, how=how)


def misfit(definition: ast.FunctionDef, /, *given: object, **named: object) -> str:
    """Python's error message if a function does not take these arguments; "" if it does."""
    args, parameter = definition.args, inspect.Parameter
    positional = args.posonlyargs + args.args
    spare = set(positional[len(positional) - len(args.defaults) :])  # those with a default
    spare |= {a for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default}
    kinds = [args.posonlyargs, args.args, [args.vararg], args.kwonlyargs, [args.kwarg]]  # in the order of inspect
    every = [parameter(a.arg, kind, default=None if a in spare else parameter.empty)
             for kind, group in enumerate(kinds) for a in group if a]  # fmt: skip
    try:
        inspect.Signature(every).bind(*given, **named)
    except TypeError as error:
        return str(error)
    return ""


def check_paths(source: Source, whole: Zip, profile: str, writable: bool) -> Iterator[Finding]:
    """Files opened by a known path that is relative, exists on one machine only, or is not in the zip."""
    where = None if "chdir" in whole.calls else profile  # None: not known
    for node in (n for n in source.run if isinstance(n, ast.Call)):
        if fetches(node):
            yield finding("NET01", **source.at(node))
        if called(node) not in LOADERS | WRITERS or dotted(node.func).removeprefix("self.") in whole.functions:
            continue
        path, written = opened(node, source)
        if not path or "\0" in path or re.match(r"\w+://", path):
            continue
        ours, inside = f"{path}/".startswith(IN_ZIP), posixpath.normpath(f"{path}/".removeprefix(IN_ZIP))
        there = inside in whole.places or (inside in whole.stems and called(node) in ("restore", "load_weights"))
        code, level = None, None
        if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", path):
            code = "PATH02" if not written and not path.startswith(ELSEWHERE) else None
        elif written:
            beside = (ours or where == "an2dl") and not (there and called(node) in ("mkdir", "makedirs"))
            code = "PATH04" if beside and not writable else None
        elif not there and (ours or where):
            code = "PATH03"
        elif where and not ours and inside != ".":
            code, level = "PATH01", "error" if where == "strict" else "warning"
        if code:
            yield finding(code, level, **source.at(node), name=inside if ours else path)


def fetches(call: ast.Call) -> bool:
    """Whether a call loads pretrained weights from the internet."""
    weights = next((k.value for k in call.keywords if k.arg == "weights"), None)
    network = "applications" in dotted(call.func).split(".") and weights is None and not call.args
    wanted = getattr(weights, "value", None) == "imagenet" or network
    return wanted and called(call) not in ("preprocess_input", "decode_predictions")


def opened(call: ast.Call, source: Source) -> tuple[str | None, bool]:
    """(path that a call of LOADERS or WRITERS opens, or None if it is not known; whether the call writes)."""
    name, given = called(call), arguments(call, "file", "mode")
    named = ("file", "filepath", "filename", "path", "name", "model_path")
    path = next((source.path(given[key]) for key in named if key in given), None)
    if isinstance(call.func, ast.Attribute) and name in METHODS:
        method_of = source.path(call.func.value)  # Path(...).open()
        if method_of is not None or dotted(call.func).split(".")[0] not in source.aliases:
            path, given = method_of, arguments(call, "mode")
    mode = getattr(given.get("mode"), "value", None)
    written = name in ("open", "GFile") and isinstance(mode, str) and re.search("[wax+]", mode) is not None
    return path or None, written or name in WRITERS
