"""Design rules that no other test checks."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import doppel_ray

PACKAGE = Path(doppel_ray.__file__).parent

FLOORS = ("core", "synth", "data", "models", "probe", "config", "runs", "report", "cluster", "train", "tune")
"""Packages from the ground up: each may import those before it."""
TOOLS = {"hear": ("models",), "embed": ("hear",), "export": ("hear",), "analyze": ("report", "hear")}
"""Tool for trained models -> the floors or tools that it may import."""
RAY = ("cluster", "train", "tune")
"""Packages that may import Ray."""
PRIVATE = "cluster/ray_compat.py"
"""The file that may import Ray's private modules."""


@cache
def modules() -> dict[str, Path]:
    """Return the path of every module by its dotted name; a package's name means its `__init__`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(module: str) -> Iterator[str]:
    """Yield every module that a module imports, including lazy imports and those for types only."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else node.module


@cache
def arrows() -> dict[str, set[str]]:
    """Return module -> modules of this package that it imports."""
    return {name: {target for target in imported(name) if target in modules() and target != name} for name in modules()}


def package(module: str) -> str:
    """Return `train` for `doppel_ray.train.stream.dataset`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def below(name: str) -> set[str]:
    """Return the packages that a package may import, including itself."""
    if name in FLOORS:
        return {*FLOORS[: FLOORS.index(name) + 1], ""}
    return {name, *(package for stands_on in TOOLS[name] for package in below(stands_on))}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
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


def test_imports_between_packages_run_one_way() -> None:
    """Command lines (`__main__`) may import everything, and nothing imports them."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in arrows().items()
        for target in targets
        if target.endswith("__main__")
        or (not module.endswith("__main__") and package(module) and package(target) not in below(package(module)))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_circles() -> None:
    assert circles(arrows()) == []


def test_the_circle_finder_finds_circles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_package_is_listed() -> None:
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


def test_private_ray_modules_are_imported_in_one_file() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, path in modules().items()
        if path != PACKAGE / PRIVATE
        for target in imported(module)
        if target.startswith("ray.") and any(part.startswith("_") for part in target.split("."))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_lower_floors_import_without_ray() -> None:
    """Includes the configuration. The import graph does not show what libraries import."""
    ground = [name for name in sorted(modules()) if package(name) not in RAY and not name.endswith("__main__")]
    imports = "\n".join(f"import {module}" for module in ground)
    code = f"import sys\nsys.modules['ray'] = None\n{imports}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_only_torch_load_with_weights_only_unpickles() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names), f"{file}:{node.lineno}"
