"""Encoders, projection heads, and the model that joins them."""

from doppel_ray.models.encoders import EncoderConfig
from doppel_ray.models.heads import HeadConfig
from doppel_ray.models.model import Model, Output

__all__ = ["EncoderConfig", "HeadConfig", "Model", "Output"]
