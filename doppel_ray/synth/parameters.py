"""Parameters: what a knob is called, the range it covers in human units, and the curve from there to [0, 1].

Names, ranges and curves are those of SynthAX 0.2.2 (Cherep and Singh, 2023), which took them from torchsynth
(Turian et al., 2021).
"""

from dataclasses import dataclass
from typing import Literal, get_args

Group = Literal["pitch", "timbre", "envelope", "modulation", "mix"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Range:
    """One row of a module's table: the values that a knob can take.

    A knob at `x` in [0, 1] stands for `minimum + (maximum - minimum) * x ** (1 / curve)`: a curve below 1 gives more
    room to small values. With `symmetric` the curve acts on the distance from the middle of the range, on both sides.
    """

    minimum: float
    maximum: float
    group: Group
    curve: float = 1.0
    symmetric: bool = False


@dataclass(frozen=True)
class Parameter:
    """A knob of a synthesizer: `name` is "module.knob" (or "module.knob.3" in an array); the rest is its `Range`."""

    name: str
    minimum: float
    maximum: float
    curve: float
    symmetric: bool
    group: Group
