"""What the documents promise: links lead somewhere, commands and options exist, YAML blocks are configuration."""

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from doppel_ray.config.experiment import Experiment, read_experiment, validate_experiment
from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.synth.__main__ import _parser as synth_parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for top in (".github", "doppel_ray", "scripts", "tune_configs") for p in (ROOT / top).rglob("*.md")),
    ]
)
COMMANDS = ("tune", "train", "probe", "embed", "export", "report", "analyze", "synth")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXCUSE = "<!-- not a configuration: "
"""Before a YAML block that is no configuration: the reason follows."""
SUBMITTED = "doppel_ray/tune/__main__.py"
"""What `ray submit` runs in place of `python -m doppel_ray.tune`."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the document before it."""

    language: str
    text: str
    before: str


def blocks(document: str) -> Iterator[Block]:
    for found in FENCE.finditer(document):
        before = document[: found.start()].rstrip().rpartition("\n")[2]
        yield Block(found[1], found[2], before)


def prose(document: str) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", document)


def inline(document: str) -> list[str]:
    """What stands between single backquotes."""
    return re.findall(r"`([^`\n]+)`", prose(document))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, document: str) -> list[str]:
    """The relative links of a document, pictures too, that lead nowhere."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


def commands(document: str) -> Iterator[tuple[str, list[str]]]:
    """Every command of the project in a document, `tune` or `scripts/ablate.py`, each with its arguments."""
    lines = [line for block in blocks(document) if block.language == "bash" for line in joined(block.text)]
    for line in [*lines, *inline(document)]:
        if "doppel_ray" not in line and "scripts/" not in line:
            continue
        yield from _commands(shell_words(line))


def joined(text: str) -> list[str]:
    """Lines of a shell script, continued ones put together."""
    return text.replace("\\\n", " ").splitlines()


def _commands(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for k, word in enumerate(words):
        if " " in word and "python -m doppel_ray." in word:  # a command that another shell is given
            yield from _commands(shell_words(word))
        before = words[k - 1] if k else ""
        if before == "-m" and word.startswith("doppel_ray."):
            yield word.removeprefix("doppel_ray."), arguments(words[k + 1 :])
        elif word == SUBMITTED and "submit" in words[:k] and words[k + 1 : k + 2] == ["--"]:
            yield "tune", arguments(words[k + 2 :])
        elif before.endswith("python") and word.startswith("scripts/"):
            yield word, arguments(words[k + 1 :])


def shell_words(line: str) -> list[str]:
    """A line of shell as words, with operators such as `&&` and `;` as words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def arguments(words: Sequence[str]) -> list[str]:
    """The words up to the command's end, without the dots that stand for more of them."""
    return [word for word in itertools.takewhile(lambda word: not set(word) <= set("&|;<>"), words) if word != "..."]


class Parsed(Exception):  # noqa: N818  # nothing went wrong
    """Raised in place of the work, once a command has parsed its arguments."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands parse with the parser that they have, and do no more."""
    parse = cli.Parser.parse

    def stop(self: cli.Parser, argv: Sequence[str] | None) -> Any:
        parsed = parse(self, argv)
        if "analysis" in vars(parsed):  # `analyze` reads the name of its analysis first
            return parsed
        raise Parsed(parsed)

    monkeypatch.setattr(cli.Parser, "parse", stop)
    monkeypatch.chdir(ROOT)


def check(name: str, argv: list[str]) -> None:
    """Parse a command's arguments as the command does, and the values of configuration keys too.

    Raises:
        ConfigError, SystemExit, ImportError, AssertionError: something in it does not exist or is not allowed.
    """
    if name.endswith(".py"):
        options = {word.partition("=")[0] for word in argv if word.startswith("--")}
        assert options <= script_options(ROOT / name), f"{name} has no {options - script_options(ROOT / name)}"
        return
    assert name in COMMANDS, f"there is no command doppel_ray.{name}"
    if "--help" in argv or not argv:
        return
    if name == "synth":
        synth_parser().parse_args(argv)
        return
    main = importlib.import_module(
        f"doppel_ray.{name}" if name in ("embed", "export") else f"doppel_ray.{name}.__main__"
    )
    with pytest.raises(Parsed) as stopped:
        main.main(argv)
    args = stopped.value.args[0]
    if name in ("tune", "train"):
        read_experiment(args.config, args.overrides, args.scale)


@cache
def script_options(script: Path) -> set[str]:
    """The options that a script adds to its parser."""
    calls = (node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call))
    added = (call.args[0] for call in calls if getattr(call.func, "attr", "") == "add_argument" and call.args)
    return {str(option.value) for option in added if isinstance(option, ast.Constant)}


def check_yaml(block: Block) -> None:
    """Refuse a YAML block that is neither configuration nor excused.

    Raises:
        ConfigError: a key or value is not allowed.
    """
    if not block.before.startswith(EXCUSE):
        validate_experiment(yaml.safe_load(block.text))


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_paths_in_backquotes_exist(path: Path) -> None:
    """`tests/...`, `doppel_ray/...`, and so on, from the top of the repository."""
    tops = r"(?:doppel_ray|tests|scripts|tune_configs|\.github)/[\w./-]*"
    named = [found for code in inline(path.read_text()) for found in re.findall(rf"(?:^|\s)({tops})(?:$|\s)", code)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_commands_and_their_options_exist(path: Path, parse_only: None) -> None:
    for name, argv in commands(path.read_text()):
        try:
            check(name, argv)
        except (ConfigError, SystemExit, ImportError, AssertionError, OSError) as error:
            pytest.fail(f"{name} {shlex.join(argv)}: {error}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_yaml_blocks_are_configuration(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.language in ("yaml", "yml"):
            check_yaml(block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_names_that_python_blocks_import_exist(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_readme_names_every_command() -> None:
    document = (ROOT / "README.md").read_text()
    assert {name for name, _ in commands(document)} >= set(COMMANDS)
    assert 150 <= len(document.splitlines()) <= 200


@pytest.mark.parametrize(
    "line",
    [
        "python -m doppel_ray.tune --train.epoch 12",
        "python -m doppel_ray.tune --train.epochs twelve",
        "python -m doppel_ray.tune --search '{pairs.deltas: {grid: [0.1]}}'",
        "python -m doppel_ray.train --config tune_configs/nowhere.yaml",
        "python -m doppel_ray.probe --checkpont DIR",
        "python -m doppel_ray.report --into DIR RUN_DIR",
        "python -m doppel_ray.analyze everything",
        "python -m doppel_ray.synth --delta 0.1 --into pairs",
        "python -m doppel_ray.sweep",
        "python scripts/ablate.py --esc50 DIR",
        f"ray submit cluster.yaml {SUBMITTED} -- --run.folder /SHARED/runs",
        "cd x && python -m doppel_ray.embed --out x.csv FILE; ls",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, parse_only: None) -> None:
    found = list(commands(f"```bash\n{line}\n```\n"))
    assert len(found) == 1
    with pytest.raises((ConfigError, SystemExit, AssertionError, OSError)):
        check(*found[0])


def test_a_broken_link_and_a_strange_key_are_found() -> None:
    readme = ROOT / "README.md"
    assert broken_links(readme, "[a](nowhere.md) [b](README.md#no-such-heading) [c](LICENSE)") == [
        "nowhere.md",
        "README.md#no-such-heading",
    ]
    (strange,) = blocks("```yaml\npairs: {detla: 0.1}\n```\n")
    with pytest.raises(ConfigError, match=r"pairs\.detla: unknown key; did you mean pairs\.delta"):
        check_yaml(strange)
    (excused,) = blocks(f"{EXCUSE}a Kubernetes job -->\n```yaml\nkind: RayJob\n```\n")
    check_yaml(excused)


def test_every_key_that_a_document_names_exists() -> None:
    """`tune.metric` and the like in backquotes, where the first word is a section of the experiment."""
    sections = "|".join(Experiment.model_fields)
    known = {key for key, _, _ in cli.dotted_keys.leaves(Experiment)}
    prefixes = {key.rsplit(".", depth)[0] for key in known for depth in (1, 2)}
    strange = []
    for path in DOCUMENTS:
        for code in inline(path.read_text()):
            key = code.split()[0].rstrip(":").removeprefix("--")
            if re.fullmatch(rf"(?:{sections})\.[\w.]+", key) and not key.endswith(
                (".md", ".py", ".json", ".yaml", ".log")
            ):
                strange += [] if key in known | prefixes or key.startswith("search.") else [f"{path.name}: {key}"]
    assert strange == []
