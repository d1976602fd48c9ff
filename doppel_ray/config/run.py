"""`run`: where results go, and the random seed."""

from pathlib import Path

from pydantic import Field, field_validator

from doppel_ray.core.object_storage import S3Path
from doppel_ray.core.schema import Section


class RunConfig(Section):
    """Folder of the results, and the random seed."""

    dir: Path = Path("runs")
    """Folder that holds all runs; also TensorBoard's log directory."""
    storage: str | None = None
    """Object storage, `s3://BUCKET/PREFIX`, to which the run's folder is copied while it runs; null: no copy."""
    name: str | None = None
    """Name of this run's folder; null: name of the config file and the time."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Random seed of the pairs, the initial weights and the search."""

    @field_validator("storage")
    @classmethod
    def _is_s3(cls, url: str | None) -> str | None:
        return None if url is None else str(S3Path.parse(url))
