"""Recordings as a source of pairs: catalogues of what there is, and two views of a recording for each index."""

from doppel_ray.data.recordings.catalogue import Catalogue
from doppel_ray.data.recordings.mix import SourceConfig, choose, rank
from doppel_ray.data.recordings.views import Recordings, RecordingsConfig

__all__ = ["Catalogue", "Recordings", "RecordingsConfig", "SourceConfig", "choose", "rank"]
