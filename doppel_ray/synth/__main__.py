"""Render pairs to listen to and to look at: `python -m doppel_ray.synth --architecture voicefm --n 12 --out DIR`.

For every δ a folder with WAV pairs, their parameters in human units as JSON, and a picture of waveforms and
spectrograms; and one page, `index.html`, to play them all.
"""

import argparse
import html
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from doppel_ray.analyze.distances import log_mel_distance
from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.synth.sampling import check_delta
from doppel_ray.synth.synth import Synth, SynthConfig

VIEWS = ("a", "b")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse(argv)
    try:
        synth = SynthConfig(**{name: getattr(options, name) for name in SynthConfig.model_fields}).build()
        if options.n < 1:
            raise ConfigError(f"n is {options.n}: it must be 1 or more")
        for delta in options.delta:
            check_delta(delta)
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out} cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    indices, distances = range(options.start, options.start + options.n), {}
    for delta in options.delta:
        sounds = synth.pairs(options.seed, indices, delta)
        distances[delta] = log_mel_distance(sounds, synth.timing.sample_rate)
        _write(synth, sounds, options.seed, indices, delta, options.out / f"delta_{delta:g}")
        print(f"δ = {delta:g}: {options.n} pairs, mean log-mel distance {distances[delta]:.3f}")
    page = options.out / "index.html"
    page.write_text(_page(options.architecture, options.seed, list(indices), distances), encoding="utf-8")
    print(f"open {page}")
    return 0


def _write(synth: Synth, sounds: Tensor, seed: int, indices: range, delta: float, folder: Path) -> None:
    """Write the WAV files, parameters and picture of one δ."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    described: list[dict[str, object]] = [{"index": index} for index in indices]
    for view, theta, audio in zip(VIEWS, synth.doppelgangers(seed, indices, delta), sounds, strict=True):
        human = synth.to_human(theta)
        for row, index in enumerate(indices):
            soundfile.write(folder / f"{index}_{view}.wav", audio[row].numpy(), synth.timing.sample_rate)
            described[row][view] = {name: round(value[row].item(), 6) for name, value in human.items()}
    (folder / "parameters.json").write_text(
        json.dumps({"seed": seed, "delta": delta, "pairs": described}, indent=1), encoding="utf-8"
    )
    _picture(sounds, synth.timing.sample_rate, indices, folder / "pairs.png")


def _picture(sounds: Tensor, sample_rate: int, indices: range, path: Path) -> None:
    """Draw a row per pair: waveform and spectrogram of one view, and of the other beside it."""
    from matplotlib.figure import Figure

    views, pairs, samples = sounds.shape
    duration, n_fft = samples / sample_rate, min(512, samples)
    figure = Figure(figsize=(14, 1.7 * pairs + 0.6), layout="constrained")
    grid = figure.subplots(pairs, 2 * views, squeeze=False)
    window = torch.hann_window(n_fft)
    for row, index in enumerate(indices):
        for view in range(views):
            wave, spectrum = grid[row][2 * view], grid[row][2 * view + 1]
            audio = sounds[view, row]
            wave.plot(torch.linspace(0.0, duration, samples).numpy(), audio.numpy(), linewidth=0.4, color="#33507a")
            wave.set(ylim=(-1.05, 1.05), xlim=(0.0, duration), yticks=[])
            bins = torch.stft(audio, n_fft, max(1, n_fft // 4), window=window, return_complex=True).abs()
            decibels = 20.0 * torch.log10(bins / (n_fft / 4) + 1e-4)
            extent = (0.0, duration, 0.0, sample_rate / 2000)
            spectrum.imshow(
                decibels.numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-80, vmax=0
            )
            if view == 0:
                wave.set_ylabel(f"{index}", rotation=0, labelpad=14)
            for axes in (wave, spectrum):
                axes.tick_params(labelsize=6, labelbottom=row == pairs - 1)
    for view, name in enumerate(VIEWS):
        grid[0][2 * view].set_title(f"view {name}", fontsize=9)
        grid[0][2 * view + 1].set_title(f"view {name}: kHz over seconds", fontsize=9)
    figure.savefig(path, dpi=90)


def _page(architecture: str, seed: int, indices: list[int], distances: dict[float, float]) -> str:
    """Return a page without scripts: for each δ the players and the picture."""
    parts = []
    for delta, distance in distances.items():
        folder = f"delta_{delta:g}"
        players = "".join(
            f"<tr><th>{i}</th>"
            + "".join(
                f'<td><audio controls preload="none" src="{folder}/{i}_{view}.wav"></audio></td>' for view in VIEWS
            )
            + "</tr>"
            for i in indices
        )
        parts.append(
            f"<h2>δ = {delta:g}</h2><p>Mean log-mel distance between the views: {distance:.3f}. "
            f'<a href="{folder}/parameters.json">Parameters</a></p>'
            f"<table><tr><th>index</th><th>view a</th><th>view b</th></tr>{players}</table>"
            f'<img src="{folder}/pairs.png" alt="waveforms and spectrograms of the pairs at δ = {delta:g}">'
        )
    style = (
        "body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}img{max-width:100%}th{padding:0 1em}"
    )
    title = html.escape(f"Audio doppelgängers: {architecture}, seed {seed}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1>{''.join(parts)}</html>"
    )


def _parser() -> cli.Parser:
    parser = cli.Parser("synth", (__doc__ or "").partition("\n")[2].strip())
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--delta", type=float, nargs="+", default=[0.05, 0.25, 0.75], help="one δ or several")
    parser.add_argument("--n", type=int, default=12, help="pairs for each δ")
    parser.add_argument("--seed", type=int, default=0, help="seed of the stream of pairs")
    parser.add_argument("--start", type=int, default=0, help="index of the first pair")
    for name, field in SynthConfig.model_fields.items():
        kind = int if field.annotation is int else float if field.annotation is float else str
        default = field.default if name != "compile" else False  # a dozen pairs are not worth a compiler's time
        text = (field.description or "").replace("\n", " ").replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=text)
    return parser


if __name__ == "__main__":
    cli.run(main)
