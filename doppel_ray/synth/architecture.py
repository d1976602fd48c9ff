"""An architecture: which modules a synthesizer has, and how they are patched together.

It is a `modules` table and a `patch`: a function of the rack, in which a signal is a tensor and a module a function. To
add one, write such a class in a file of its own (`voice.py` is the shortest) and name it in `synth.ARCHITECTURES`.
"""

from collections.abc import Mapping

from torch import Tensor

from doppel_ray.synth.modules import Module, NoiseSource, Rack


class Architecture:
    """Modules, and the patch that connects them."""

    modules: Mapping[str, Module]

    def patch(self, rack: Rack, noise: NoiseSource) -> Tensor:
        """Return the sound, `(samples, sounds)`."""
        raise NotImplementedError
