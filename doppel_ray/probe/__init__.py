"""Probes: what a frozen representation is worth, on synthetic factors and on recordings."""
