"""Sound into features: frontends, augmentations, and reading recordings."""

from doppel_ray.audio.augment import Augment, AugmentConfig, check_chain, read_chain
from doppel_ray.audio.frontend import Frontend, FrontendConfig

__all__ = ["Augment", "AugmentConfig", "Frontend", "FrontendConfig", "check_chain", "read_chain"]
