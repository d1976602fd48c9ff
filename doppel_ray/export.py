"""Export a model: `python -m doppel_ray.export --checkpoint DIR --to safetensors|torch|onnx --out PATH`.

    safetensors   a folder of model.safetensors and checkpoint.json: `doppel_ray.hear.load_model` reads it without Ray
    torch         a program of torch.export: `torch.export.load(PATH).module()(sound)`, without doppel_ray
    onnx          a model for onnxruntime and whatever else reads ONNX: input `sound`, output `embedding`

The last two map sound (batch, samples) float32 in [-1, 1] to embeddings (batch, size) float32; the frontend is
included. The batch has any size; samples range from `shortest` to `longest`, which are in the metadata with sample
rate, size and reading. To get the same embedding of a clip as from every other command:

    shorter than `shortest`    pad it with zeros at its end
    longer than `longest`      average the embeddings of windows of `longest` samples: side by side, the last one ending
                               with the clip
    between                    pass it as it is

A model that reads windows has one length, that of training (`shortest` = `longest`); one that reads recordings whole
takes up to a minute. Every export is read back and compared with the model.

A .pt2 file is a zip of the program's graph as JSON and its weights; `torch.export.load` may unpickle parts of it, so
load only trusted files. safetensors and ONNX files hold no code.
"""

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import new_output
from doppel_ray.hear import describe, load_model
from doppel_ray.models import checkpoint
from doppel_ray.models.clips import WaveformEncoder

TOLERANCE = 1e-4
"""Largest difference from the model, relative to the largest embedding value if that exceeds 1."""

KEPT = (checkpoint.WEIGHTS, checkpoint.DESCRIPTION)
"""Files needed to use a checkpoint's model; training resumes from the others."""

METADATA = "doppel_ray.json"
ONNX = ("onnx", "onnxruntime", "onnxscript")


class ExportError(RuntimeError):
    """The exported model gives other embeddings than the original."""


def to_safetensors(folder: Path, out: Path) -> None:
    """Write a folder with the files needed to use the model."""
    model = load_model(folder)
    out.mkdir()
    for name in KEPT:
        shutil.copyfile(folder / name, out / name)
    _compare(load_model(out), model)


def to_torch(folder: Path, out: Path) -> None:
    """Write a .pt2 file of torch.export, with the metadata in its extra file `doppel_ray.json`."""
    model = load_model(folder)
    with out.open("wb") as file:  # given a path, PyTorch requires a suffix
        torch.export.save(traced(model), file, extra_files={METADATA: json.dumps(describe(folder, model))})
    with out.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about its own loading
        program = torch.export.load(file)
    _compare(program.module(), model)


def to_onnx(folder: Path, out: Path) -> None:
    """Write an ONNX file, opset 20, with the metadata in `metadata_props`."""
    import onnxruntime

    model = load_model(folder)
    # ONNX has no atan2, and the exporter's substitute is NaN where both arguments are zero.
    table = torch.export.default_decompositions()
    table[torch.ops.aten.atan2.default] = atan2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        made = torch.onnx.export(
            traced(model).run_decompositions(table),
            dynamo=True,
            optimize=False,  # onnxscript 0.7 drops CLAR's + 1e-8 as + 0; runtimes optimize anyway
            opset_version=20,
            input_names=["sound"],
            output_names=["embedding"],
            verbose=False,
        )
    assert made is not None
    made.model.metadata_props.update({name: str(value) for name, value in describe(folder, model).items()})
    made.save(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    _compare(lambda sound: torch.from_numpy(session.run(None, {"sound": sound.numpy()})[0]), model)


FORMATS: dict[str, Callable[[Path, Path], None]] = {"safetensors": to_safetensors, "torch": to_torch, "onnx": to_onnx}
"""`--to` -> writer of a checkpoint's model to a path; it raises `ExportError` if the export differs."""


def traced(model: WaveformEncoder) -> torch.export.ExportedProgram:
    """Return the model as a program, (batch, samples) -> (batch, size), for any batch and the lengths read at once."""
    reading = model.reading
    dims = {0: torch.export.Dim("batch", min=1)}
    if reading.longest > reading.shortest:
        dims[1] = torch.export.Dim("samples", min=reading.shortest, max=reading.longest)
    example = torch.zeros(2, (reading.shortest + reading.longest) // 2)
    return torch.export.export(model, (example,), dynamic_shapes=(dims,))


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """Compute `torch.atan2` with operations of ONNX; a negative zero counts as zero."""
    vertical = x == 0
    slope = torch.atan(y / torch.where(vertical, 1.0, x))
    half_turn = torch.where(y < 0, -torch.pi, torch.pi)
    return torch.where(vertical, torch.sign(y) * (torch.pi / 2), torch.where(x < 0, slope + half_turn, slope))


@torch.inference_mode()
def _compare(exported: Callable[[Tensor], Tensor], model: WaveformEncoder) -> None:
    """Compare an export with the model on noise, faint noise, noise that stops, silence, a batch of one, and other
    lengths if they are allowed.

    Noise, because CLAR's phases depend on rounding errors where a spectrum is empty, in PyTorch too.

    Raises:
        ExportError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.empty(3, model.samples).uniform_(-0.5, 0.5, generator=generator)
    stopping = noise.clone()
    stopping[:, model.samples // 2 :] = 0.0
    longer = [
        torch.empty(2, samples).uniform_(-0.5, 0.5, generator=generator)
        for samples in (model.samples + 1, 3 * model.samples // 2, 5 * model.samples + 77)
        if samples <= model.reading.longest
    ]
    for sound in (noise, 1e-3 * noise, stopping, torch.zeros_like(noise), noise[:1], *longer):
        expected = model(sound)
        difference = (exported(sound) - expected).abs().amax().item()
        allowed = TOLERANCE * max(1.0, expected.abs().amax().item())
        if not difference <= allowed:  # also if it is NaN
            raise ExportError(f"the export differs from the model by {difference:.2g}, more than {allowed:.2g}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(
        "export",
        "Export the model of a checkpoint for other tools. Programs take clips of `shortest` to `longest` samples (see "
        "their metadata): pad a shorter clip with zeros at its end; for a longer one average the embeddings of windows "
        "of `longest` samples, side by side, the last one ending with the clip.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a checkpoint's folder")
    parser.add_argument(
        "--to",
        choices=FORMATS,
        required=True,
        help="safetensors: a folder for doppel_ray.hear. torch: a program of torch.export. onnx: for onnxruntime",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="the file to write, or the folder (safetensors)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    args = parser.parse(argv)
    cli.stop_on_sigterm()
    checkpoint.load(args.checkpoint)
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if args.to == "onnx" and missing:
        raise ConfigError(f"--to onnx needs {', '.join(missing)}: pip install 'doppel_ray[export]'")
    try:
        with new_output(args.out, args.overwrite, folder_of=KEPT if args.to == "safetensors" else ()) as partial:
            FORMATS[args.to](args.checkpoint, partial)
    except ExportError as error:
        print(f"error: {error}; nothing was written", file=sys.stderr)
        return 1
    print(args.out)
    return 0


if __name__ == "__main__":
    cli.run(main)
