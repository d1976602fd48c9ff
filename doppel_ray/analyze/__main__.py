"""`python -m doppel_ray.analyze`: analyse synthetic pairs, with tables, figures and a sentence each."""

import json
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from doppel_ray.analyze.analysis import Analysis, run
from doppel_ray.analyze.classifiers import Classifier, ClassifierConfig, Pretrained, Probe
from doppel_ray.analyze.nearest import Distance, Nearest, Spectral
from doppel_ray.analyze.pca import Pca
from doppel_ray.analyze.similarity import Similarity
from doppel_ray.analyze.sources import Sources, SourcesConfig
from doppel_ray.analyze.spaces import EmbeddingSpace, SpacesConfig
from doppel_ray.analyze.uncertainty import Uncertainty
from doppel_ray.core import cli, dotted_keys, plotting, provenance
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import new_output
from doppel_ray.core.schema import Section
from doppel_ray.data.audio_files import UnreadableAudioError
from doppel_ray.synth import SynthConfig

S = TypeVar("S", bound=Section)

COMMANDS = {
    "similarity": "similarity of the two views of a pair, by δ and architecture",
    "pca": "positions of pairs in an embedding space",
    "spectral": "spectral descriptors, synthetic against recorded",
    "nearest": "δ and architecture nearest to recordings in an embedding space",
    "uncertainty": "uncertainty of a classifier about the cause of a sound",
    "all": "all analyses that the given options allow",
}

SPACED: dict[str, Callable[[EmbeddingSpace], Analysis]] = {"similarity": Similarity, "pca": Pca, "nearest": Nearest}
"""Analyses that need an embedding space."""

AGAINST_RECORDINGS = ("spectral", "nearest")

RESULT = "analysis.json"


@dataclass(frozen=True)
class Settings:
    """The settings, by section."""

    synth: SynthConfig
    sources: SourcesConfig
    spaces: SpacesConfig
    classifier: ClassifierConfig

    def plain(self) -> dict[str, Any]:
        return {name: getattr(self, name).model_dump(mode="json") for name in self.__annotations__}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    overview = cli.Parser("analyze", "Compare synthetic pairs with recordings.")
    overview.usage = "%(prog)s ANALYSIS [--option value ...]"
    overview.add_argument("analysis", choices=COMMANDS, help="; ".join(f"{k}: {v}" for k, v in COMMANDS.items()))
    name = overview.parse(argv[:1]).analysis
    args = _parser(name).parse(argv[1:])
    cli.stop_on_sigterm()
    settings = Settings(
        cli.parse_section("synth", SynthConfig, args.overrides),
        _section(SourcesConfig, args, _architectures(args)),
        _section(SpacesConfig, args),
        _section(ClassifierConfig, args),
    )
    with new_output(args.out, args.overwrite, folder_of=_written_before(args.out)) as partial:
        sources = Sources(settings.sources, settings.synth)
        analyses, left_out = _analyses(name, settings, cli.device(args.device))
        try:
            run(cli.with_progress(sources, len(sources), "analysing", "sources"), analyses)
        except UnreadableAudioError as error:
            raise ConfigError(f"--recordings: {error}; --unreadable skip leaves such files out") from None
        partial.mkdir()
        _report(analyses, left_out, sources, settings, partial)
    print(args.out)
    return 0


def _analyses(name: str, settings: Settings, device: torch.device) -> tuple[list[Analysis], dict[str, str]]:
    """Return the analyses to run, and those that `all` leaves out with the reason.

    Raises:
        ConfigError: an analysis lacks an option, or a model cannot be loaded.
    """
    every = name == "all"
    wanted = [which for which in COMMANDS if which != "all"] if every else [name]
    lacking = {which: reason for which in wanted if (reason := _lacking(which, settings))}
    if lacking and not every:
        raise ConfigError(f"{name}: {lacking[name]}")
    able = [which for which in wanted if which not in lacking]
    rate, analyses = settings.synth.sample_rate, list[Analysis]()
    if spaced := [SPACED[which] for which in able if which in SPACED]:
        for space in settings.spaces.names(every):
            built = settings.spaces.build(space, rate, device)
            analyses += [analysis(built) for analysis in spaced]
    if "spectral" in able:
        analyses.append(Spectral(rate))
    if "uncertainty" in able:
        analyses.append(Uncertainty(_classifier(settings, device)))
    # The distances from the recordings come last.
    return sorted(analyses, key=lambda analysis: isinstance(analysis, Distance)), lacking


def _lacking(name: str, settings: Settings) -> str:
    """Return what an analysis lacks; empty: nothing."""
    if name in AGAINST_RECORDINGS:
        if settings.sources.recordings is None:
            return "it compares with recordings: give their folder with --recordings DIR"
        if 1 not in settings.sources.layers:
            return f"--layers is {settings.sources.layers}; expected 1 among them, for the recordings as they are"
    if name == "uncertainty":
        config = settings.classifier
        if config.classifier is not None and config.task is not None:
            return "--classifier and --task are both given; expected one of them"
        if config.classifier is None and config.task is None:
            return "there is no classifier: give --classifier NAME_OR_DIR, or --task TASK --root DIR --checkpoint DIR"
        if config.task is not None and settings.spaces.checkpoint is None:
            return "--task needs an encoder: give --checkpoint DIR"
    return ""


def _classifier(settings: Settings, device: torch.device) -> Classifier:
    config, spaces, synth = settings.classifier, settings.spaces, settings.synth
    if config.classifier is not None:
        return Pretrained(config.classifier, synth.sample_rate, spaces.batch, device)
    assert spaces.checkpoint is not None
    return Probe(config, spaces.checkpoint, synth, settings.sources.seed, device)


def _report(
    analyses: Sequence[Analysis], left_out: dict[str, str], sources: Sources, settings: Settings, folder: Path
) -> None:
    """Write the results and print them: tables, then sentences."""
    console = cli.console()
    results: dict[str, Any] = {}
    sentences = [f"left out: {name}: {reason}" for name, reason in left_out.items()]
    if sources.broken:
        path, reason = next(iter(sources.broken.items()))
        sentences.append(f"{len(sources.broken)} recordings cannot be used, first {path}: {reason}")
    for analysis in analyses:
        with plotting.styled():
            findings = analysis.conclude()
            findings.write(analysis.name, folder)
        console.print(findings.table)
        results[analysis.name] = {"rows": findings.rows, "said": findings.summary, **findings.extra}
        sentences += findings.summary
    about = {
        "origin": provenance.gather(),
        "settings": settings.plain(),
        "unreadable": sources.broken,
        "left_out": left_out,
        "files": sorted([RESULT, *(file.name for file in folder.iterdir())]),
        "analyses": results,
    }
    (folder / RESULT).write_text(json.dumps(about, indent=1))
    for sentence in sentences:
        console.print(sentence)


def _written_before(out: Path) -> list[str]:
    """Return the files of an earlier analysis in a folder."""
    try:
        return json.loads((out / RESULT).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, LookupError):
        return []


# --- the command line -------------------------------------------------------------------------------------------------


def _parser(name: str) -> cli.Parser:
    parser = cli.Parser(f"analyze {name}", f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.")
    parser.add_argument(
        "--out", type=Path, default=Path("analysis"), metavar="DIR", help="folder to write (default: analysis)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier analysis at --out")
    parser.add_argument("--device", help="of the models, such as cpu or cuda:1 (default: the GPU if there is one)")
    _add(parser, SourcesConfig)
    if name in SPACED or name == "all":
        _add(parser, SpacesConfig)
    if name in ("uncertainty", "all"):
        _add(parser, ClassifierConfig)
    if name == "uncertainty":
        _add(parser, SpacesConfig, only=("checkpoint", "batch"))
    parser.add_keys(SynthConfig, "synth.")
    return parser


def _add(parser: cli.Parser, model: type[Section], only: Sequence[str] | None = None) -> None:
    """Add an option for each field of a section; a field with several values takes several arguments."""
    group = parser.add_argument_group((model.__doc__ or "").rstrip("."))
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        kinds = (field.annotation, *typing.get_args(field.annotation))
        several = any(typing.get_origin(kind) is tuple for kind in kinds)
        default = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = "" if default is None else f" [default: {default}]"
        group.add_argument(
            f"--{name}",
            nargs="+" if several else None,
            metavar=name.upper(),
            help=f"{field.description}{shown}".replace("%", "%%"),
        )


def _section(model: type[S], args: Any, given: dict[str, Any] | None = None) -> S:
    """Return a section from the given options.

    Raises:
        ConfigError: a value is not allowed.
    """
    values = {name: getattr(args, name, None) for name in model.model_fields}
    try:
        return model.model_validate((given or {}) | {name: v for name, v in values.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(dotted_keys.explain(error, model, prefix="--")) from None


def _architectures(args: Any) -> dict[str, Any]:
    """Read --synth.architecture, an option of every other command, as --architectures with one name."""
    one = args.overrides.get("synth.architecture")
    return {} if one is None else {"architectures": (one,)}


if __name__ == "__main__":
    cli.run(main)
