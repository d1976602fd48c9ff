"""The stream: index blocks, the pool of generators, and the Ray Dataset that joins them."""

from doppel_ray.data.generators import GeneratorConfig
from doppel_ray.data.stream import DataConfig, Stream

__all__ = ["DataConfig", "GeneratorConfig", "Stream"]
