"""doppel_ray: audio representations learned from sound that never existed."""

__version__ = "0.1.0"
