"""Encoders at equal compute: `python scripts/compare_encoders.py --seconds 120 --encoders cnn:32 resnet18:16`.

Each encoder trains for the same seconds of CPU time on the same pairs, by the recipe of the quickstart (random gain, a
two-layer head, NT-Xent at 0.2, AdamW 2e-3, warm-up and cosine), then linear probes read its representation. Pairs
are made first and their time is not counted, so that a quick encoder is not held up by the synthesizer; one that has
seen them all begins again. No Ray is needed.
"""

import argparse
import time
from pathlib import Path

import torch

from doppel_ray.data.augment import read_chain
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.data.pairs import PairMaker, PairsConfig
from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.models.encoders import ENCODERS
from doppel_ray.models.objectives import ObjectiveConfig
from doppel_ray.models.optimizers import OptimConfig
from doppel_ray.probe.embed import Embedder, by_mel_statistics, by_model, embed_sounds
from doppel_ray.probe.evaluate import score_task
from doppel_ray.probe.protocols import ProtocolConfig
from doppel_ray.probe.tasks import Factors, Native, Task
from doppel_ray.synth import SynthConfig

HEAD = HeadConfig(kind="mlp", hidden=256, layers=1, size=128)
OBJECTIVE = ObjectiveConfig(kind="nt_xent", temperature=0.2)
OPTIM = OptimConfig(kind="adamw", lr=2e-3, reference_batch=None, weight_decay=1e-4, schedule="cosine", warmup=0.1)
GAIN = read_chain([{"kind": "gain", "low": -12.0, "high": 12.0}])


def encoder(text: str) -> EncoderConfig:
    """`kind` or `kind:width`."""
    kind, _, width = text.partition(":")
    if kind not in ENCODERS or not (width or "64").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND or KIND:WIDTH, KIND one of {', '.join(ENCODERS)}")
    return EncoderConfig.model_validate({"kind": kind, "width": int(width or 64)})


def frontend(config: EncoderConfig) -> FrontendConfig:
    """Return the encoder's frontend: the published log-mel, or the waveform."""
    return FrontendConfig.model_validate({"kind": "vggish" if config.domain == "spectrogram" else "raw"})


def train(model: Model, pairs: torch.Tensor, seconds: float, batch: int) -> tuple[int, float]:
    """Train for a given CPU time.

    Args:
        model: is trained in place.
        pairs: (n, 2, ...) float16 features.
        seconds: CPU time of this process; waiting for other processes does not count.
        batch: pairs of a batch.

    Returns:
        Number of steps, and the mean loss of the last tenth of them.
    """
    objective, optimizer = OBJECTIVE.build(), OPTIM.build(model.parameters(), batch)
    lr, whole = OPTIM.lr, len(pairs) // batch
    losses: list[float] = []
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds:
        # The schedule runs on the clock, in milliseconds: nobody knows how many steps there will be.
        for group in optimizer.param_groups:
            group["lr"] = lr * OPTIM.factor(round(1000 * spent), round(1000 * seconds))
        start = len(losses) % whole * batch
        x, y = model(pairs[start : start + batch].transpose(0, 1).flatten(0, 1).float()).embeddings.chunk(2)
        loss, _ = objective(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tail = losses[-max(1, len(losses) // 10) :]
    return len(losses), sum(tail) / len(tail)


def measure(task: Task, sample_rate: int, embedder: Embedder) -> str:
    """Return the task's first metric, formatted."""
    dataset = task.load(sample_rate, cache=1.0)
    vectors = embed_sounds(dataset.sounds, range(len(dataset.sounds)), embedder)
    scores = score_task(task, ProtocolConfig(), dataset.spec, (vectors, dataset.sounds.failed))
    return f"{scores[dataset.spec.metrics[0]]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", type=encoder, default=[encoder("cnn:32")], metavar="KIND[:WIDTH]")
    parser.add_argument("--seconds", type=float, default=120.0, help="of CPU time for each encoder [%(default)s]")
    parser.add_argument("--pairs", type=int, default=32768, help="pairs to make and train on [%(default)s]")
    parser.add_argument("--delta", type=float, default=0.05, help="strength of the perturbation [%(default)s]")
    parser.add_argument("--batch", type=int, default=128, help="pairs of a batch [%(default)s]")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each encoder [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads to train with [%(default)s]")
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10 in ESC-50's layout: probe it too")
    parser.add_argument("--factor-sounds", type=int, default=1024, help="sounds of the factors task [%(default)s]")
    options = parser.parse_args()
    if options.pairs < options.batch:
        parser.error(f"--pairs {options.pairs} is less than one --batch of {options.batch}")
    torch.set_num_threads(options.threads)

    synth = SynthConfig()
    tasks: list[Task] = [Factors(sounds=options.factor_sounds)]
    tasks += [Native(kind="esc10", root=options.esc10)] if options.esc10 else []
    columns = [f"{task.name} {'score' if task.kind == 'factors' else 'accuracy'}" for task in tasks]
    print(f"| encoder | seed | parameters | pairs/s | pairs | loss | {' | '.join(columns)} |")
    print(f"|---|---|---|---|---|---|{'---|' * len(tasks)}")
    made: dict[FrontendConfig, torch.Tensor] = {}
    for config in options.encoders:
        reads = frontend(config)
        if reads not in made:
            maker = PairMaker(synth, PairsConfig(delta=options.delta), reads, GAIN, seed=0)
            made[reads] = maker(torch.arange(options.pairs))
            if config.domain == "spectrogram":
                mel = by_mel_statistics(synth.sample_rate)
                scores = [measure(task, synth.sample_rate, mel) for task in tasks]
                print(f"| mel statistics | | | | | | {' | '.join(scores)} |", flush=True)
        pairs = made[reads]
        for seed in range(options.seeds):
            recipe = ModelSpec(synth, reads, config, HEAD, seed)
            model = Model(config, HEAD, seed, channels=pairs.shape[2]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            steps, loss = train(model, pairs, options.seconds, options.batch)
            embedder = by_model(recipe.waveform_encoder(model))
            scores = [measure(task, synth.sample_rate, embedder) for task in tasks]
            size = sum(p.numel() for p in model.encoder.parameters()) / 1e6
            seen = steps * options.batch
            print(
                f"| {config.kind} {config.width} | {seed} | {size:.2f} M | {seen / options.seconds:.0f} | {seen} "
                f"| {loss:.3f} | {' | '.join(scores)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
