"""How a task's embeddings are scored: the settings of the protocols."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from doppel_ray.core.schema import Section


class ProtocolConfig(Section):
    """The protocol that predicts a task's targets from embeddings."""

    kind: Literal["linear", "mlp", "knn"] = "linear"
    """linear: logistic or ridge regression. mlp: HEAR's shallow networks, for final numbers. knn: nearest
    neighbours."""
    neighbours: int = Field(default=10, ge=1)
    """knn: number of training examples that vote on a test example."""
    grid_points: int = Field(default=8, ge=1, le=16)
    """mlp: number of HEAR's 16 combinations to try, drawn at random; HEAR tries 8."""
    max_epochs: int = Field(default=500, ge=1)
    """mlp: largest number of epochs; HEAR has 500, and 10 or 50 in its fast grid."""
    selection: Literal["first_split", "each_split"] = "first_split"
    """mlp: first_split chooses the combination once, as HEAR does: the test folds of the other splits take part in
    that choice, though never in fitting. each_split chooses again in every fold and takes as many times longer."""
    seed: int = Field(default=0, ge=0)
    """Seed of the networks' initial weights, the order of their batches, and the bootstrap."""


NamedProtocol = Annotated[
    ProtocolConfig, BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)
]
"""A protocol's settings, or its kind alone."""
