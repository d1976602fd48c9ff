"""Does anything but its sound tell a pair from all others? `python scripts/fingerprint.py`.

Views of unrelated parameters are rendered as the two views of one index, 256 pairs at a time, with each noise that
`pairs.noise` has and, as a control, with the noise that both views of a pair share alone (what this project did until
November 2026). The table shows how often a view finds its partner among 256; chance is 0.4 %.
"""

import argparse

import torch

from doppel_ray.analyze.fingerprint import partners_found
from doppel_ray.synth import ARCHITECTURES, Synth

PAIRS = 256


def views(synth: Synth, noise: str, seed: int) -> torch.Tensor:
    """Both views, (2, n, samples), of unrelated parameters under the same indices."""
    indices = torch.arange(PAIRS)
    theta = torch.stack([synth.sample(seed, indices), synth.sample(seed + 1, indices)])
    if noise == "own to each pair":
        return synth.render(theta.flatten(0, 1), seed=seed, indices=indices.repeat(2)).unflatten(0, (2, PAIRS))
    return synth.render_views(theta, seed, indices, "view" if noise == "view" else "shared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", choices=list(ARCHITECTURES), default=list(ARCHITECTURES))
    parser.add_argument("--draws", type=int, default=4, help="times 256 pairs [%(default)s]")
    options = parser.parse_args()
    print("| architecture | noise | waveform | second difference | log-mel |\n|---|---|---|---|---|")
    for name in options.architectures:
        synth = Synth.create(name)
        for noise in ("own to each pair", "shared", "view"):
            found = [partners_found(views(synth, noise, 2 * k), 16000) for k in range(options.draws)]
            means = [sum(draw[kind] for draw in found) / len(found) for kind in found[0]]
            print(f"| {name} | {noise} | {' | '.join(f'{100 * mean:.1f} %' for mean in means)} |", flush=True)


if __name__ == "__main__":
    main()
