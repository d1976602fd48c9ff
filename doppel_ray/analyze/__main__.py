"""`python -m doppel_ray.analyze`: what synthetic pairs are like, as tables, figures and a sentence each."""

import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from rich.console import Console

from doppel_ray import command, provenance, tree
from doppel_ray.analyze.analysis import Analysis, listen
from doppel_ray.analyze.classifiers import Classifier, ClassifierConfig, Pretrained, Probe
from doppel_ray.analyze.nearest import Nearest, Spectral
from doppel_ray.analyze.pca import Pca
from doppel_ray.analyze.similarity import Similarity
from doppel_ray.analyze.sources import Sources, SourcesConfig
from doppel_ray.analyze.spaces import SpacesConfig
from doppel_ray.analyze.uncertainty import Uncertainty
from doppel_ray.audio.files import UnreadableAudioError
from doppel_ray.output import written
from doppel_ray.section import ConfigError, Section
from doppel_ray.synth import SynthConfig

S = TypeVar("S", bound=Section)

COMMANDS = {
    "similarity": "how alike the two views of a pair are, by δ and architecture",
    "pca": "where pairs lie in an embedding space",
    "spectral": "spectral descriptors, synthetic against recorded",
    "nearest": "which δ and architecture come nearest to recordings in an embedding space",
    "uncertainty": "how sure a classifier is of what made a sound",
    "all": "everything that can be done with what is given",
}

SPACED = {"similarity": Similarity, "pca": Pca, "nearest": Nearest}
"""Analyses that need an embedding space."""

AGAINST_RECORDINGS = ("spectral", "nearest")

RESULT = "analysis.json"


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    overview = command.Parser("analyze", "What synthetic pairs are like, beside recordings.")
    overview.usage = "%(prog)s ANALYSIS [--option value ...]"
    overview.add_argument("analysis", choices=COMMANDS, help="; ".join(f"{k}: {v}" for k, v in COMMANDS.items()))
    name = overview.parse(argv[:1]).analysis
    args = _parser(name).parse(argv[1:])
    command.stop_on_sigterm()
    torch.set_grad_enabled(False)
    settings = {
        "synth": _synth(args.overrides),
        "sources": _section(SourcesConfig, args, _architectures(args)),
        "spaces": _section(SpacesConfig, args),
        "classifier": _section(ClassifierConfig, args),
    }
    with written(args.out, args.overwrite, folder_of=_written_before(args.out)) as partial:
        sources = Sources(settings["sources"], settings["synth"])
        analyses, left_out = _analyses(name, **settings, device=command.device(args.device))
        try:
            listen(command.watched(sources, len(sources), "listening", "kinds of sounds"), analyses)
            _report(analyses, left_out, sources, settings, partial)
        except UnreadableAudioError as error:
            raise ConfigError(f"--recordings: {error}; --unreadable skip passes over such files") from None
    print(args.out)
    return 0


def _analyses(
    name: str,
    synth: SynthConfig,
    sources: SourcesConfig,
    spaces: SpacesConfig,
    classifier: ClassifierConfig,
    device: torch.device,
) -> tuple[list[Analysis], dict[str, str]]:
    """What is to be done; and what `all` leaves out, with the reason.

    Raises:
        ConfigError: what is asked for needs something that is not given, or cannot be loaded.
    """
    every = name == "all"
    wanted = {which: "" for which in COMMANDS if which != "all"} if every else {name: ""}
    for which in wanted:
        if which in AGAINST_RECORDINGS and sources.recordings is None:
            wanted[which] = "it compares with recordings: give their folder with --recordings DIR"
        elif which in AGAINST_RECORDINGS and 1 not in sources.layers:
            wanted[which] = f"--layers is {sources.layers}; expected 1 among them, as recordings are not mixed here"
        elif which == "uncertainty":
            wanted[which] = _lacking(classifier, spaces)
    if not every and wanted[name]:
        raise ConfigError(f"{name}: {wanted[name]}")
    able = [which for which, reason in wanted.items() if not reason]
    analyses: list[Analysis] = []
    if set(able) & set(SPACED):
        for space in (spaces.build(which, synth.sample_rate, device) for which in spaces.names(every)):
            analyses += [SPACED[which](space) for which in able if which in SPACED]
    if "spectral" in able:
        analyses.append(Spectral(synth.sample_rate))
    if "uncertainty" in able:
        analyses.append(Uncertainty(_classifier(classifier, spaces, synth, sources.seed, device)))
    # What comes last stands at the end of what is printed: where the question was for the nearest, its answer.
    analyses.sort(key=lambda analysis: isinstance(analysis, Spectral | Nearest))
    return analyses, {which: reason for which, reason in wanted.items() if reason}


def _lacking(classifier: ClassifierConfig, spaces: SpacesConfig) -> str:
    """What `uncertainty` lacks, or nothing."""
    if classifier.classifier is not None and classifier.task is not None:
        return "--classifier and --task are both given; expected one of them"
    if classifier.classifier is not None:
        return ""
    if classifier.task is None:
        return "nobody to ask: give --classifier NAME_OR_DIR, or --task TASK --root DIR --checkpoint DIR"
    return "" if spaces.checkpoint is not None else "--task needs the encoder that hears it: give --checkpoint DIR"


def _classifier(
    config: ClassifierConfig, spaces: SpacesConfig, synth: SynthConfig, seed: int, device: torch.device
) -> Classifier:
    if config.classifier is not None:
        return Pretrained(config.classifier, synth.sample_rate, spaces.batch, device)
    assert spaces.checkpoint is not None
    return Probe(config, spaces.checkpoint, synth, seed, device)


def _report(
    analyses: Sequence[Analysis],
    left_out: dict[str, str],
    sources: Sources,
    settings: dict[str, Any],
    folder: Path,
) -> None:
    """Write what was found, and print it: tables, then sentences."""
    console = command.screen()
    folder.mkdir()
    said: list[str] = []
    results: dict[str, Any] = {}
    for analysis in analyses:
        findings = analysis.conclude()
        findings.write(analysis.name, folder)
        console.print(findings.table)
        results[analysis.name] = {"rows": findings.rows, "said": findings.said, **findings.extra}
        said += findings.said
    (folder / RESULT).write_text(
        json.dumps(
            {
                "origin": provenance.gather(),
                "settings": {name: section.model_dump(mode="json") for name, section in settings.items()},
                "unreadable": sources.broken,
                "left_out": left_out,
                "files": sorted([RESULT, *(file.name for file in folder.iterdir())]),
                "analyses": results,
            },
            indent=1,
        )
    )
    _say(console, said, left_out, sources.broken)


def _say(console: Console, said: Sequence[str], left_out: dict[str, str], broken: dict[str, str]) -> None:
    if broken:
        console.print(f"{len(broken)} recordings cannot be used, first {next(iter(broken.items()))}")
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}")
    for sentence in said:
        console.print(f"{sentence}.")


def _written_before(out: Path) -> list[str]:
    """The files that an earlier analysis has left in a folder."""
    try:
        return json.loads((out / RESULT).read_text())["files"]
    except (OSError, ValueError, LookupError):
        return []


# --- the command line -------------------------------------------------------------------------------------------------


def _parser(name: str) -> command.Parser:
    parser = command.Parser(f"analyze {name}", f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.")
    parser.add_argument(
        "--out", type=Path, default=Path("analysis"), metavar="DIR", help="folder to write (default: analysis)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an analysis that is at --out")
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


def _add(parser: command.Parser, model: type[Section], only: Sequence[str] | None = None) -> None:
    """Add an option for each field of a section; those that hold several values take them one after another."""
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
    """A section from the options that were given.

    Raises:
        ConfigError: a value is not allowed.
    """
    values = {name: getattr(args, name, None) for name in model.model_fields}
    try:
        return model.model_validate((given or {}) | {name: v for name, v in values.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(tree.explain(error, model, prefix="--")) from None


def _synth(overrides: dict[str, str]) -> SynthConfig:
    return command.section("synth", SynthConfig, overrides)


def _architectures(args: Any) -> dict[str, Any]:
    """--synth.architecture, which every other command has, is --architectures with one name."""
    one = args.overrides.get("synth.architecture")
    return {} if one is None else {"architectures": (one,)}


if __name__ == "__main__":
    command.run(main)
