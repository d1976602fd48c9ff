"""Probes: what a frozen representation is worth, on synthetic factors and on recordings."""

from doppel_ray.probe.evaluate import ProbesConfig

__all__ = ["ProbesConfig"]
