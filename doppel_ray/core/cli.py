"""Command lines: options generated from the configuration tree, consoles, and exit codes.

Exit codes are 0 for success, 1 if some inputs or trials failed and the rest is written (or an error came up while at
work), 2 for bad input refused before anything started, 130 for ctrl-C.
"""

import argparse
import errno
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from doppel_ray.core import dotted_keys, process
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import expand_home, kind_of

if TYPE_CHECKING:
    import torch
    from rich.console import Console

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

FAILED = 1
REFUSED = 2
INTERRUPTED = 130

PLAIN_SECONDS = 10.0
"""Seconds between progress lines outside a terminal."""


OPTIONS = (
    "Options with a dot override keys of the configuration file: --pairs.delta 0.1 is `pairs: {delta: 0.1}`. "
    "Values are YAML: null, [1, 2], {key: value}. A RANGE is a number or 1..4."
)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses abbreviated options, so that a misspelt option is reported."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(
            prog=f"python -m doppel_ray.{module}",
            description=description,
            allow_abbrev=False,
            usage="%(prog)s [--option value ...]",
        )
        self.keys: list[str] = []
        """Dotted keys that have an option."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace("expected one argument", "expected a value")
        raise ConfigError(f"{message}; `{self.prog} --help` lists all options")

    def add_experiment(self, model: type[BaseModel], default: Path | None = None) -> None:
        """Add --config and one option for every key of the experiment."""
        self.description = f"{self.description} {OPTIONS}"
        self.add_argument(
            "--config",
            type=Path,
            default=default,
            metavar="FILE",
            help=f"YAML file with the experiment's settings (default: {_display_path(default)})",
        )
        self.add_keys(model)

    def add_keys(self, model: type[BaseModel], prefix: str = "") -> None:
        """Add one option for every key of a section, or of the whole tree."""
        groups: dict[str, argparse._ArgumentGroup] = {}
        for key, annotation, field in dotted_keys.leaves(model, prefix):
            name = key.partition(".")[0]
            if name not in groups:
                groups[name] = self.add_argument_group(name, _summary(model if prefix else model.model_fields[name]))
            group = groups[name]
            default = field.get_default(call_default_factory=True)
            shown = "required" if default is PydanticUndefined else f"default: {_yaml(default)}"
            help_text = f"{(field.description or '').strip()} [{shown}]".replace("%", "%%")
            group.add_argument(
                f"--{key}",
                dest=f"override.{key}",
                default=None,
                metavar=dotted_keys.annotation_name(annotation),
                help=help_text,
            )
            self.keys.append(key)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse arguments; `overrides` of the result maps each given dotted key to its text.

        Raises:
            ConfigError: an option is unknown or has no value.
        """
        args, unknown = self.parse_known_args(argv)
        for name, value in vars(args).items():
            setattr(args, name, _expanded(name, value))
        args.overrides = {
            name.removeprefix("override."): value
            for name, value in vars(args).items()
            if name.startswith("override.") and value is not None
        }
        while unknown:
            option = unknown.pop(0)
            key, equals, value = option.removeprefix("--").partition("=")
            # Also accept keys below a leaf, such as --pairs.delta.pitch or --search.optim.lr, and whole sections, such
            # as --probes.protocol mlp or --optim '{kind: adamw, lr: 1e-3}'.
            in_tree = any(key.startswith(f"{known}.") or known.startswith(f"{key}.") for known in self.keys)
            if option.startswith("--") and in_tree:
                if not equals and not unknown:
                    raise ConfigError(f"--{key}: expected a value")
                args.overrides[key] = value if equals else unknown.pop(0)
                continue
            if not option.startswith("-"):
                raise ConfigError(f"{option}: unexpected argument; option names start with --")
            known = [*self.keys, *(name.lstrip("-") for action in self._actions for name in action.option_strings)]
            raise ConfigError(f"{option}: unknown option{dotted_keys.suggestion(key, known, prefix='--')}")
        return args


def _expanded(option: str, value: Any) -> Any:
    """Return an option's value with `~` expanded in a path, and in each path of a list."""
    if isinstance(value, list):
        return [_expanded(option, part) for part in value]
    try:
        return expand_home(value)
    except ValueError as error:
        raise ConfigError(f"--{option} is {str(value)!r}: {error}") from None


def folder_or_url(text: str) -> str:
    """Return an option's text with `~` expanded; for options that take a folder or s3://BUCKET/PREFIX."""
    try:
        return str(expand_home(Path(text))) if text.startswith("~") else text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def quoted(path: Path | str) -> str:
    """Return a path as it is typed in a shell, with quotes if it has spaces or brackets."""
    return shlex.quote(str(path))


def console(plain: bool = False, file: IO[str] | None = None) -> "Console":
    """Return a console for tables and lines.

    Args:
        plain: print plain lines, even in a terminal.
        file: where to print instead of standard output, which a sweep redirects (see
            `doppel_ray.cluster.connect.redirect_ray_output`).
    """
    from rich.console import Console

    file = file or sys.stdout
    # Tables need a width, which only a terminal has.
    width = None if file.isatty() else 160
    # Paths and labels may hold brackets and colons, which are no markup.
    return Console(
        file=file,
        force_terminal=False if plain else None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        width=width,
    )


def with_progress(results: Iterable[T], total: int, doing: str, what: str) -> Iterator[T]:
    """Yield the results and show progress on standard error: a bar in a terminal, else a line every ten seconds.

    Args:
        results: what to yield.
        total: number of results.
        doing: label of the bar, such as "embedding".
        what: what is counted, such as "files".
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(results, doing, total, console=console)
        return
    printed = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        if time.monotonic() - printed > PLAIN_SECONDS:
            printed = time.monotonic()
            print(f"{done} of {total} {what}", file=sys.stderr, flush=True)


def device(name: str | None) -> "torch.device":
    """Return the named device; without a name the GPU if there is one, else the CPU.

    Raises:
        ConfigError: the device cannot be used.
    """
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return found


def stop_on_sigterm() -> None:
    """Treat SIGTERM, which schedulers send, and SIGHUP, of a terminal that closes, as ctrl-C; `nohup` still holds."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def parse_section(name: str, model: type[S], overrides: dict[str, str]) -> S:
    """Return one section from dotted options.

    Raises:
        ConfigError: a value is not allowed.
    """
    plain: dict[str, Any] = {name: {}}
    for key, text in overrides.items():
        dotted_keys.assign(plain, key, dotted_keys.parse_value(text))
    try:
        return model.model_validate(plain[name])
    except ValidationError as error:
        raise ConfigError(dotted_keys.explain(error, model, prefix=f"{name}.")) from None


def _summary(section: type[BaseModel] | FieldInfo) -> str | None:
    """Return the first line of a section's docstring; None for a key that is not a section."""
    model = section.annotation if isinstance(section, FieldInfo) else section
    is_section = isinstance(model, type) and issubclass(model, BaseModel)
    return (model.__doc__ or "").partition("\n")[0] if is_section else None


def _display_path(path: Path | None) -> str:
    """Return a path as short as it can be typed here."""
    if path is None:
        return "none, all settings at their defaults"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _yaml(value: Any) -> str:
    """Return a default as a user would type it."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(bound, int) for bound in value):
        return str(value[0]) if value[0] == value[1] else f"{value[0]}..{value[1]}"
    if isinstance(value, tuple):
        value = [kind_of(part) or part for part in value]
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that takes no more."""


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command line and exit; print a `ConfigError` or a full disk without a traceback."""
    out, _ = process.prepare()
    try:
        code = main(None)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        code = REFUSED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}", file=sys.stderr)
        code = FAILED
    sys.stdout.flush()
    if out.fault is not None and not isinstance(out.fault, BrokenPipeError):
        print(f"error: standard output cannot be written: {out.fault.strerror}", file=sys.stderr)
        code = code or FAILED
    sys.exit(code)
