"""What the command lines share: options made from the configuration tree, and exit codes.

0: all that was asked happened. 1: it did not. 2: refused before anything started. 130: stopped by ctrl-C.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

REFUSED = 2
INTERRUPTED = 130

PLAIN_SECONDS = 10.0
"""Seconds between lines of progress where there is no terminal."""


class Parser(argparse.ArgumentParser):
    """argparse, with abbreviations off, so that a misspelt option is told and not guessed."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(
            prog=f"python -m doppel_ray.{module}",
            description=description,
            allow_abbrev=False,
            usage="%(prog)s [--option value ...]",
        )
        self.keys: list[str] = []
        """Every dotted key that is an option."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.prog} --help lists every option")

    def add_experiment(self, model: type[BaseModel], default: Path | None = None) -> None:
        """Add --config and one option for every key of the experiment."""
        self.add_argument(
            "--config",
            type=Path,
            default=default,
            metavar="FILE",
            help=f"YAML file of the experiment (default: {default})",
        )
        self.add_keys(model)

    def add_keys(self, model: type[BaseModel], prefix: str = "") -> None:
        """Add one option for every key of a section, or of the whole tree."""
        groups: dict[str, argparse._ArgumentGroup] = {}
        for key, annotation, field in dotted_keys.leaves(model, prefix):
            name = key.partition(".")[0]
            if name not in groups:
                groups[name] = self.add_argument_group(name)
            group = groups[name]
            default = field.get_default(call_default_factory=True)
            shown = "required" if default is PydanticUndefined else f"default: {_shown(default)}"
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
        """Parse; `overrides` of the result holds the dotted options that were given, as typed.

        Raises:
            ConfigError: an option does not exist or lacks its value.
        """
        args, unknown = self.parse_known_args(argv)
        args.overrides = {
            name.removeprefix("override."): value
            for name, value in vars(args).items()
            if name.startswith("override.") and value is not None
        }
        while unknown:
            option = unknown.pop(0)
            key, equals, value = option.removeprefix("--").partition("=")
            # Keys below a leaf, such as --pairs.delta.pitch or --search.optim.lr, are part of the tree too, and so are
            # whole sections, such as --probes.protocol mlp or --optim '{kind: adamw, lr: 1e-3}'.
            part = any(key.startswith(f"{known}.") or known.startswith(f"{key}.") for known in self.keys)
            if option.startswith("--") and part:
                if not equals and not unknown:
                    raise ConfigError(f"--{key}: expected a value")
                args.overrides[key] = value if equals else unknown.pop(0)
                continue
            known = [*self.keys, *(name.lstrip("-") for action in self._actions for name in action.option_strings)]
            raise ConfigError(f"{option}: unknown option{dotted_keys.suggestion(key, known, prefix='--')}")
        return args


def screen(plain: bool = False, file: IO[str] | None = None) -> "Console":
    """Where tables and lines are printed.

    Args:
        plain: print lines, even in a terminal.
        file: in place of standard output; a sweep prints to the terminal itself, while what Ray writes goes elsewhere
            (see `doppel_ray.cluster.connect.hush`).
    """
    from rich.console import Console

    file = file or sys.stdout
    # Where there is no terminal there is no width either, and tables need some.
    width = None if file.isatty() else 160
    return Console(file=file, force_terminal=False if plain else None, highlight=False, soft_wrap=True, width=width)


def watched(results: Iterable[T], total: int, doing: str, what: str) -> Iterator[T]:
    """The results, with a progress bar in a terminal, or a line every ten seconds elsewhere, on standard error.

    Args:
        results: as they come.
        total: how many there will be.
        doing: what the bar says, such as "embedding".
        what: of what there are `total`, such as "files".
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(results, doing, total, console=console)
        return
    said = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        if time.monotonic() - said > PLAIN_SECONDS:
            said = time.monotonic()
            print(f"{done} of {total} {what}", file=sys.stderr, flush=True)


def device(name: str | None) -> "torch.device":
    """The device asked for, or the GPU if there is one.

    Raises:
        ConfigError: it cannot be used.
    """
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch that was built without CUDA
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return found


def stop_on_sigterm() -> None:
    """Let SIGTERM, which a cluster's scheduler or a closing shell sends, end a run as ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def section(name: str, model: type[S], overrides: dict[str, str]) -> S:
    """One section from dotted options.

    Raises:
        ConfigError: a value is not allowed.
    """
    plain: dict[str, Any] = {name: {}}
    for key, text in overrides.items():
        dotted_keys.assign(plain, key, dotted_keys.typed(text))
    try:
        return model.model_validate(plain[name])
    except ValidationError as error:
        raise ConfigError(dotted_keys.explain(error, model, prefix=f"{name}.")) from None


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return "..".join(map(str, value)) if isinstance(value, tuple) and value else str(value)


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command line: print what a user can mend without a traceback; the exit code says what happened."""
    try:
        code = main(None)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        code = REFUSED
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.stdout.flush()
    sys.exit(code)
