"""The rules of the design that code can break without any other test noticing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import doppel_ray

PACKAGE = Path(doppel_ray.__file__).parent

FLOORS = ("core", "synth", "data", "models", "probe", "config", "runs", "report", "cluster", "train", "tune")
"""Packages from the ground up: each imports those before it, and none behind it."""
TOOLS = {"hear": ("models",), "embed": ("hear",), "export": ("hear",), "analyze": ("report", "hear")}
"""What uses a trained model stands beside the floors: a tool, and the floors or tools that it stands on."""
RAY = ("cluster", "train", "tune")
"""Packages that may import Ray."""
PRIVATE = "cluster/ray_compat.py"
"""The one file that may lean on Ray's private modules."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package stands for its `__init__`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(module: str) -> Iterator[str]:
    """Every module, of this package or another, that a module imports, lazily and for types alone included."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else node.module


@cache
def arrows() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports."""
    return {name: {target for target in imported(name) if target in modules() and target != name} for name in modules()}


def package(module: str) -> str:
    """`train` of `doppel_ray.train.stream.dataset`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def below(name: str) -> set[str]:
    """The packages that a package may import: itself and those it stands on."""
    if name in FLOORS:
        return {*FLOORS[: FLOORS.index(name) + 1], ""}
    return {name, *(package for stands_on in TOOLS[name] for package in below(stands_on))}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in graph[module]:
            if target not in number:
                visit(target)
            if target in stack:
                lowest[module] = min(lowest[module], lowest[target])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_arrows_between_packages_run_one_way() -> None:
    """Command lines (`__main__`) are the top layer: they may import everything, and nothing imports them."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in arrows().items()
        for target in targets
        if target.endswith("__main__")
        or (not module.endswith("__main__") and package(module) and package(target) not in below(package(module)))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_the_circle_finder_finds_circles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_package_has_its_place() -> None:
    there = {package(module) for module in modules()} - {""}
    assert there == {*FLOORS, *TOOLS}


def test_only_the_upper_floors_import_ray() -> None:
    wrong = [
        f"{module} imports {target}"
        for module in modules()
        if package(module) not in RAY
        for target in imported(module)
        if target.partition(".")[0] == "ray"
    ]
    assert not wrong, "\n".join(wrong)


def test_rays_private_modules_are_used_in_one_place() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, path in modules().items()
        if path != PACKAGE / PRIVATE
        for target in imported(module)
        if target.startswith("ray.") and any(part.startswith("_") for part in target.split("."))
    ]
    assert not wrong, "\n".join(wrong)


def test_what_needs_no_ray_imports_where_there_is_none() -> None:
    """The configuration included; the import graph cannot see what a library imports in turn."""
    ground = [name for name in sorted(modules()) if package(name) not in RAY and not name.endswith("__main__")]
    imports = "\n".join(f"import {module}" for module in ground)
    code = f"import sys\nsys.modules['ray'] = None\n{imports}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_nothing_is_unpickled_but_by_torch_load_with_weights_only() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names), f"{file}:{node.lineno}"
