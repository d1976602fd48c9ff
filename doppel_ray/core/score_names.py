"""Column names of scores. Trials and checkpoints are chosen by validation scores; test scores are only reported."""

VALID = "_valid"
"""Suffix of a validation score; the column without it is the test score."""

SUFFIXES = (VALID, "_low", "_high", "_mel", "_untrained")
"""Suffixes of the columns beside a score: its validation score, its interval, and its baselines."""


def reported(metric: str) -> str:
    """Return the column to report for a choice by `metric`: the test score of a validation score."""
    return metric.removesuffix(VALID)


def is_test(metric: str) -> bool:
    """Return whether a column is a test score."""
    return metric.startswith("probe/") and metric.count("/") > 1 and not metric.endswith(VALID)
