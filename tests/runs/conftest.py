"""Runs as their folders hold them, as the report's tests have them."""

from tests.report.conftest import folder

__all__ = ["folder"]
