"""`run`: where results go, and the seed of everything."""

from pathlib import Path

from pydantic import Field, field_validator

from doppel_ray.core.object_storage import S3Path
from doppel_ray.core.schema import Section


class RunConfig(Section):
    """Where results go, and the seed of everything."""

    dir: Path = Path("runs")
    """Folder of all runs; also TensorBoard's log directory."""
    storage: str | None = None
    """Object storage that this run's folder is copied to as it grows, `s3://BUCKET/PREFIX`; null: nothing is copied."""
    name: str | None = None
    """Name of this run's folder; null: the config's name and the time."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the stream, the weights and the search."""

    @field_validator("storage")
    @classmethod
    def _is_a_place(cls, url: str | None) -> str | None:
        return None if url is None else str(S3Path.parse(url))
