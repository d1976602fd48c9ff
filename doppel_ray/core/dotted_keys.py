"""Dotted keys of nested sections: list, read and assign them, and explain validation errors."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from doppel_ray.core.errors import ConfigError

SECRET = re.compile(
    r"(?<=://)[^/@\s]+(?=@)|(?<=access_key=)[^&'\s]+|(?<=secret_key=)[^&'\s]+|(?<=session_token=)[^&'\s]+"
)
"""Credentials in a URL, which error messages must not repeat."""


PHRASES = {
    "Input should be greater than or equal to": "expected at least",
    "Input should be less than or equal to": "expected at most",
    "Input should be greater than": "expected more than",
    "Input should be less than": "expected less than",
    "Input should be": "expected",
}
"""Part of a pydantic message -> the words of our own messages."""


YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises on text that is not YAML: also the errors of Python's own conversions, for `!!bool x`, dates such
as 2024-13-01, numbers of thousands of digits and deep nesting."""


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, FieldInfo]]:
    """Yield every dotted key of nested sections: (key, annotation, pydantic's FieldInfo)."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", annotation, field


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean ...?`, or an empty string if no known word is close."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:  # the right name in the wrong section
        near = [key for key in known if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of plain nested data, creating missing branches."""
    if key.startswith("search."):  # the keys of `search` are dotted themselves
        tree.setdefault("search", {})[key.removeprefix("search.")] = value
        return
    *sections, name = parts = key.split(".")
    for position, section in enumerate(sections, start=1):
        fresh: Any = [] if parts[position].isdigit() else {}
        tree = _enter(tree, section, fresh, key)
    if isinstance(tree, list):
        _enter(tree, name, value, key)
        tree[int(name)] = value
    else:
        tree[name] = value


def lookup(tree: Any, key: str) -> Any:
    """Return the value at a dotted key of plain nested data; None if there is none."""
    if key.startswith("search."):
        return tree.get("search", {}).get(key.removeprefix("search."))
    for part in key.split("."):
        try:
            tree = tree[int(part)] if isinstance(tree, list) else tree[part]
        except (LookupError, TypeError, ValueError):
            return None
    return tree


def _enter(tree: Any, part: str, fresh: Any, key: str) -> Any:
    """Return the branch `part` of a tree, created if missing; a value that is not a branch is replaced.

    `pairs.delta.pitch` replaces a number at `pairs.delta`; `generators.0.num_cpus` reaches into a list.
    """
    if isinstance(tree, list):
        if not part.isdecimal() or len(part) > 9 or int(part) > len(tree):
            raise ConfigError(f"{key}: the list has {len(tree)} entries; expected a position from 0 to {len(tree)}")
        if int(part) == len(tree):
            tree.append(fresh)
        return tree[int(part)]
    if not isinstance(tree.get(part), type(fresh)):
        tree[part] = fresh
    return tree[part]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of plain nested data, including branches."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")


def parse_value(text: str) -> Any:
    """Read a command line's value as YAML, or as text if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except YAML_ERRORS:
        return text


def explain(
    error: ValidationError,
    model: type[BaseModel],
    origins: Mapping[str, str] = types.MappingProxyType({}),
    prefix: str = "",
) -> str:
    """Return a line for each fault: the key, its value, what is allowed, and the origin of the value.

    Args:
        error: pydantic's error.
        model: the section that was validated.
        origins: dotted key -> file or option that set it.
        prefix: key of the section in the tree, such as "probes.".
    """
    known = [key for key, _, _ in leaves(model, prefix)]
    return "\n".join(_explain(fault, known, origins, prefix) for fault in error.errors())


def _explain(fault: Any, known: list[str], origins: Mapping[str, str], prefix: str) -> str:
    # Pydantic's path includes the tags of unions; keep keys and list positions only.
    path = [str(part) for part in fault["loc"] if isinstance(part, int) or part.isidentifier() or "." in part]
    key = prefix + ".".join(path)
    # A fault of a whole section may come from any key in it, a fault of a key from the section that sets it.
    found_in = [origin for other, origin in origins.items() if other == key or other.startswith(f"{key}.")]
    found_in = found_in or [origins[parent] for parent in _parents(key) if parent in origins][:1]
    origin = " and ".join(dict.fromkeys(found_in))
    where = f" (from {origin})" if origin and origin != f"--{key}" else ""
    if fault["type"] == "extra_forbidden":
        sections = {section for name in known for section in _parents(name)}
        return f"{key}: unknown key{suggestion(key, [*sorted(sections), *known])}{where}"
    found = fault.get("input")
    value = f" is {SECRET.sub('***', repr(found))}" if key and not isinstance(found, (dict, BaseModel)) else ""
    message = fault["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    message = message.removeprefix(f"{key.rpartition('.')[2]}{value}: ")  # says the same
    for pydantics, ours in PHRASES.items():
        message = message.replace(pydantics, ours)
    return f"{key}{value}{': ' if key else ''}{message[0].lower()}{message[1:]}{where}"


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def annotation_name(annotation: Any) -> str:
    """Return a type as `--help` shows it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Literal:
        return "|".join(str(arg) for arg in args)
    if origin is typing.Annotated:
        return annotation_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join("null" if arg is type(None) else annotation_name(arg) for arg in args)
    if origin in (tuple, list):
        return "RANGE" if args == (int, int) else "LIST"
    if origin is dict:
        return "MAPPING"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "MAPPING"
    return getattr(annotation, "__name__", str(annotation)).upper()
