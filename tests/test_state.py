"""Nothing outlives a run in a module: what two prompts could share by accident is a constant, or listed here with the reason.

Read off the sources of the core and the nodes. That a run does not depend on the runs before it is tests/host/test_concurrency.py.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "realportrait_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINERS = {"list", "dict", "set", "OrderedDict", "defaultdict", "deque", "Counter", "WeakKeyDictionary", "WeakValueDictionary"}
WRITES = {
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard", "sort", "reverse",
    "appendleft", "popleft", "move_to_end",
}  # fmt: skip
# Caches of functions: a module of kernels for each device, and Pillow's font for each size. Neither holds a weight or a picture.
CACHED = {"realportrait_core/dit/fused.py": {"kernels_on"}, "realportrait_core/inspect/drawing.py": {"font"}}
# What is kept from run to run, by design: nodes/host/kept.py holds it weakly by the weights that made it, and it goes with them.
# HELD: keypoints of a portrait, under a hash of everything that they depend on: a hit equals what would be extracted anew.
# SESSIONS: the real-time node's face position and neutral pose, which its description says it keeps; another portrait starts anew.
# FILES: where the file of each VIDEO is that the host keeps, to see that it was deleted.
KEPT = {"nodes/expression.py": {"HELD"}, "nodes/live.py": {"SESSIONS"}, "nodes/long.py": {"FILES"}}
# The host's own tables, in which a pack enters its folders while it is loaded.
REGISTERS = {"nodes/host/folders.py": {"register"}, "nodes/host/media.py": {"register"}}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of what a module or class body binds, also below if, try and with."""
    for node in body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "handlers", "finalbody"):
                yield from assigned(getattr(node, field, []))


def is_container(value: ast.expr) -> bool:
    return isinstance(value, DISPLAYS) or isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in CONTAINERS


def root_name(node: ast.expr) -> str | None:
    """x of x, x[...], x[...][...]."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def local_names(function: ast.AST) -> set[str]:
    """What a function binds itself, so that the name is not the module's."""
    found = {arg.arg for node in ast.walk(function) if isinstance(node, ast.arguments) for arg in
             (*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg)))}  # fmt: skip
    return found | {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def writes(function: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """(line, name, whether by a method) of what a function changes in place, by item, attribute, method or +=, and has not made."""
    own = local_names(function)
    for node in ast.walk(function):
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            in_place = method.endswith("_") and not method.startswith("_")  # torch's
            if method in WRITES or in_place:
                name = root_name(node.func.value)
                if name and name not in own:
                    yield node.lineno, name, True
        for target in targets:
            inner = target.value if isinstance(target, (ast.Subscript, ast.Attribute)) else None
            name = inner is not None and root_name(inner)
            if name and name not in own:
                yield node.lineno, name, False


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def imported_modules(file: Path) -> set[str]:
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in tree(file).body
        if isinstance(node, ast.Import)
        for alias in node.names
    }


def module_names(file: Path) -> set[str]:
    """What a module has at its top: its own constants, and what it imports."""
    found = {name for name, _ in assigned(tree(file).body)} | imported_modules(file)
    for node in tree(file).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
    return found


@pytest.fixture(scope="module")
def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for file in FILES for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef)}


def test_no_function_rebinds_or_changes_what_is_a_modules():
    """No `global`; no item, attribute, method or += that changes a module's constant, function or import."""
    wrong = []
    for file in FILES:
        names, modules = module_names(file), imported_modules(file)  # torch.relu_(x) changes x
        for function in functions(file):
            if function.name in REGISTERS.get(name_of(file), ()):
                continue
            changed = [
                (line, name) for line, name, method in writes(function) if name in names and not (method and name in modules)
            ]
            wrong += [f"{name_of(file)}:{line} changes {name}" for line, name in changed]
            wrong += [f"{name_of(file)}:{node.lineno} global" for node in ast.walk(function) if isinstance(node, ast.Global)]
    assert not wrong


def test_caches_of_functions_hold_no_weights():
    """Of those of a module or class; what a function caches inside goes with the call."""
    found = {}
    for file in FILES:
        inner = {node for function in functions(file) for node in ast.walk(function) if node is not function}
        for function in (function for function in functions(file) if function not in inner):
            names = {ast.unparse(getattr(one, "func", one)).rpartition(".")[2] for one in function.decorator_list}
            if names & {"cache", "lru_cache"}:
                found.setdefault(name_of(file), set()).add(function.name)
    assert found == CACHED


def test_objects_of_modules_are_frozen(classes):
    """What a module makes of a class of ours when it is imported is a frozen dataclass or an enumeration's member."""
    found, wrong = {}, []
    for file in FILES:
        for name, value in assigned(tree(file).body):
            made = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
            if made == "Kept":
                found.setdefault(name_of(file), set()).add(name)
            elif made in classes:
                frozen = any("frozen=True" in ast.unparse(one) for one in classes[made].decorator_list)
                wrong += [] if frozen else [f"{name_of(file)}: {name} = {made}(...)"]
            elif isinstance(value, ast.Call) and made.rpartition(".")[2] in CONTAINERS and not value.args and not value.keywords:
                wrong.append(f"{name_of(file)}: {name} is an empty container: what for, if nobody fills it?")
            elif isinstance(value, (ast.List, ast.Dict, ast.Set)) and not ast.unparse(value).strip("[]{} "):
                wrong.append(f"{name_of(file)}: {name} is empty")
    assert not wrong
    assert found == KEPT


def test_classes_share_nothing_that_their_objects_change(classes):
    """A list, dict or set of a class body is changed by nobody, and no method sets an attribute of its class."""
    wrong = []
    for file in FILES:
        for owner in (node for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef)):
            shared = {name for name, value in assigned(owner.body) if is_container(value)}
            own = {node.attr for node in ast.walk(owner) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
            for node in ast.walk(owner):
                changed = None
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
                    changed = node.func.value
                elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
                    changed = node.value
                if isinstance(changed, ast.Attribute) and changed.attr in shared - own:
                    wrong.append(f"{name_of(file)}:{node.lineno} changes {owner.name}.{changed.attr}, which all objects share")
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    base = ast.unparse(node.value)
                    if base == "cls" or base in classes or base in ("type(self)", "self.__class__"):
                        wrong.append(f"{name_of(file)}:{node.lineno} sets {base}.{node.attr}")
    assert not wrong


def test_defaults_are_made_anew():
    """A list or dict as a default is one object for all calls; the host's signature has one, which is only read."""
    wrong = [
        f"{name_of(file)}:{function.lineno} {function.name}"
        for file in FILES
        for function in functions(file)
        for default in (*function.args.defaults, *filter(None, function.args.kw_defaults))
        if is_container(default) and (name_of(file), function.name) != ("nodes/host/model.py", "forward")
    ]
    assert not wrong


def test_these_rules_find_what_they_look_for():
    source = """
def f(x):
    CACHE[x] = 1
    CACHE["a"]["b"].append(x)
    CACHE.update(x)
    MEAN.add_(x)
    torch.backend = 1
    x.relu_()
    own = []
    own.append(x)
"""
    (function,) = ast.parse(source).body
    assert sorted(name for _, name, _ in writes(function)) == ["CACHE", "CACHE", "CACHE", "MEAN", "torch"]
