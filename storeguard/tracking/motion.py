"""How people move between two frames: an exact model in seconds, for any gap.

Each of a box's four coordinates (centre x, centre y, ln width, ln height) follows an integrated
Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein, Physical Review 36, 1930; its discretisation
is Singer's, IEEE Trans. AES 6, 1970): a velocity that wanders around zero, with standard
deviation s and memory tau. It suits gaps of any length. Over a short one it is constant velocity;
over a long one the prediction comes to rest after v * tau and its variance grows like time, not
like time cubed. Two steps of dt/2 equal one step of dt exactly, so it does not matter how a gap is
cut into steps, or whether it is.

The coordinates are independent, so the Kalman filter over (position, velocity) needs three
variances a coordinate and no matrix inverse: everything below is element-wise over (n, 4) arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MotionModel:
    """How fast people are, and how well a detector places them.

    A box's size is sqrt(width * height): about 1.1 m for a standing person. It scales every other
    length, so near and far people are treated alike and the unit of length does not matter.

    Attributes:
        speed: standard deviation of the centre's velocity, in box sizes a second.
        stretch: standard deviation of the rate of ln width and ln height, a second.
        memory_s: time after which a velocity is forgotten (tau), in seconds.
        stretch_memory_s: the same for the rates of width and height.
        jitter: standard deviation of a detected centre, in box sizes, for a score of 1.
        size_jitter: standard deviation of a detected ln width or ln height, for a score of 1.
    """

    speed: float = 0.7
    stretch: float = 0.15
    memory_s: float = 2.5
    stretch_memory_s: float = 0.5
    jitter: float = 0.05
    size_jitter: float = 0.08

    def velocity_sd(self, size: Float64) -> Float64:
        """(n, 4) standard deviations of velocity for boxes of `size` (n,)."""
        sd = np.full((len(size), 4), self.stretch)
        sd[:, :2] = self.speed * size[:, None]
        return sd

    def measurement_variance(self, size: Float64, score: Float64) -> Float64:
        """(n, 4) variances of a measured box; an unsure detector (low score) also places worse."""
        looseness = 2.0 - score
        sd = np.full((len(size), 4), self.size_jitter)
        sd[:, :2] = self.jitter * size[:, None]
        return np.asarray((sd * looseness[:, None]) ** 2)


def to_measurement(xyxy: Float64) -> Float64:
    """(n, 4) corners to (centre x, centre y, ln width, ln height)."""
    wh = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate([xyxy[:, :2] + wh / 2, np.log(wh)], axis=1)


def to_xyxy(measurement: Float64) -> Float64:
    """The inverse of `to_measurement`."""
    half = np.exp(measurement[:, 2:]) / 2
    return np.concatenate([measurement[:, :2] - half, measurement[:, :2] + half], axis=1)


def size_of(measurement: Float64) -> Float64:
    """(n,) sqrt(width * height)."""
    return np.asarray(np.exp((measurement[:, 2] + measurement[:, 3]) / 2))


@dataclass(slots=True)
class MotionState:
    """The filters of n boxes at one moment: parallel (n, 4) float64 arrays.

    Attributes:
        position: centre x, centre y, ln width, ln height.
        velocity: their rates a second.
        var_p, cov_pv, var_v: the covariance of (position, velocity), a coordinate.
    """

    position: Float64
    velocity: Float64
    var_p: Float64
    cov_pv: Float64
    var_v: Float64

    def __len__(self) -> int:
        return len(self.position)

    @classmethod
    def empty(cls) -> MotionState:
        """No boxes."""
        return cls(*(np.zeros((0, 4)) for _ in fields(cls)))

    @classmethod
    def first_seen(cls, measured: Float64, score: Float64, model: MotionModel) -> MotionState:
        """Filters of boxes seen once: where they were seen, at an unknown walking speed."""
        size = size_of(measured)
        return cls(
            position=measured.copy(),
            velocity=np.zeros_like(measured),
            var_p=model.measurement_variance(size, score),
            cov_pv=np.zeros_like(measured),
            var_v=model.velocity_sd(size) ** 2,
        )

    def rows(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> MotionState:
        """Some of the filters, copied."""
        return MotionState(*(getattr(self, f.name)[keep] for f in fields(self)))

    def joined(self, other: MotionState) -> MotionState:
        """These filters, then the other ones."""
        return MotionState(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )

    def advance(self, dt_s: float, model: MotionModel) -> None:
        """Predict `dt_s` seconds ahead, in place; zero changes nothing."""
        if dt_s <= 0 or len(self) == 0:
            return
        tau = np.array([model.memory_s] * 2 + [model.stretch_memory_s] * 2)
        a = np.exp(-dt_s / tau)
        reach = tau * (1 - a)
        drive = model.velocity_sd(size_of(self.position)) ** 2
        noise_p = drive * tau * (2 * dt_s - 4 * reach + tau * (1 - a * a))
        self.position += reach * self.velocity
        self.velocity *= a
        self.var_p += reach * (2 * self.cov_pv + reach * self.var_v) + np.maximum(noise_p, 0)
        self.cov_pv = a * (self.cov_pv + reach * self.var_v) + drive * reach * (1 - a)
        self.var_v = a * a * self.var_v + drive * (1 - a * a)

    def correct(
        self, row: NDArray[np.int64], measured: Float64, score: Float64, model: MotionModel
    ) -> None:
        """Take in what was measured, in place: filter `row[i]` was seen at `measured[i]`."""
        noise = model.measurement_variance(size_of(self.position[row]), score)
        var_p, cov_pv = self.var_p[row], self.cov_pv[row]
        total = var_p + noise
        gain_p, gain_v = var_p / total, cov_pv / total
        surprise = measured - self.position[row]
        self.position[row] += gain_p * surprise
        self.velocity[row] += gain_v * surprise
        self.var_p[row] = gain_p * noise
        self.cov_pv[row] = cov_pv * noise / total
        self.var_v[row] -= gain_v * cov_pv
