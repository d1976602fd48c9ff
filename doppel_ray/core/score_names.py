"""How scores are named: test scores are reported, validation scores choose."""

VALID = "_valid"
"""Suffix of a validation score, which chooses; the column without it is the test score, which is reported."""


def reported(metric: str) -> str:
    """Return the column that is reported of what `metric` has chosen: of a validation score, the test score."""
    return metric.removesuffix(VALID)


def is_test(metric: str) -> bool:
    """Return whether a column is a score of test examples."""
    return metric.startswith("probe/") and metric.count("/") > 1 and not metric.endswith(VALID)
