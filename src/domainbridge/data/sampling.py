"""Order of samples: endless shuffled epochs over one domain or several, as a function of the position."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from domainbridge.config.sections import SamplingConfig
from domainbridge.seeding import derive_seed

__all__ = ["Mixture", "epoch_index"]

_DEFAULTS = SamplingConfig()


@lru_cache(maxsize=16)
def _permutation(seed: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)


def epoch_index(seed: int, stage: str, position: int, length: int) -> int:
    """Sample at ``position`` of an endless stream of shuffled epochs over ``length`` samples."""
    epoch, offset = divmod(position, length)
    return int(_permutation(derive_seed(seed, stage, epoch, "epoch"), length)[offset])


@dataclass(frozen=True)
class Mixture:
    """Several domains one after the other, drawn in proportion to size ** domain_temperature.

    Attributes:
        sizes: samples per domain.
        domain_temperature: 1: every sample equally often (the published concatenation); 0: every domain equally often.
        fixed: per domain a share of the draws that its size does not change, or None; empty: none has one. The other
            domains divide the rest.
    """

    sizes: tuple[int, ...]
    domain_temperature: float = _DEFAULTS.domain_temperature
    fixed: tuple[float | None, ...] = ()

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Share of each domain in the draws; the sum is 1."""
        weights = np.asarray(self.sizes, np.float64) ** self.domain_temperature
        if any(self.fixed):
            given = np.asarray([share or 0.0 for share in self.fixed])
            weights = np.where(given > 0, 0, weights)
            weights = given + (1 - given.sum()) * weights / max(weights.sum(), 1.0)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def index(self, seed: int, stage: str, position: int) -> int:
        """Sample at ``position`` of the stream, counted through all domains.

        An epoch has one position per sample. Each domain fills its share of the positions from shuffled epochs of its
        own, so no sample comes twice before every sample of its domain has come once.
        """
        num_samples = sum(self.sizes)
        if self._plain:
            return epoch_index(seed, stage, position, num_samples)
        epoch, offset = divmod(position, num_samples)
        slot = int(_permutation(derive_seed(seed, stage, epoch, "mixture"), num_samples)[offset])
        domain = int(np.searchsorted(self._ends, slot, side="right"))
        within = slot - (int(self._ends[domain - 1]) if domain else 0)
        drawn_before = epoch * self._quota(domain)
        return self._start(domain) + epoch_index(seed, f"{stage}/{domain}", drawn_before + within, self.sizes[domain])

    def draw(self, generator: np.random.Generator) -> int:
        """A random sample, with replacement."""
        if self._plain:
            return int(generator.integers(sum(self.sizes)))
        domain = int(generator.choice(len(self.sizes), p=self.shares))
        return self._start(domain) + int(generator.integers(self.sizes[domain]))

    @property
    def _plain(self) -> bool:
        return len(self.sizes) == 1 or (self.domain_temperature == 1 and not any(self.fixed))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """End of each domain's slots in an epoch."""
        ends: NDArray[np.int64] = np.rint(np.cumsum(self.shares) * sum(self.sizes)).astype(np.int64)
        return ends

    def _quota(self, domain: int) -> int:
        return int(self._ends[domain] - (self._ends[domain - 1] if domain else 0))

    def domain_of(self, index: int) -> int:
        """The domain of a sample, whose ``index`` counts through the samples of all domains."""
        return int(np.searchsorted(np.cumsum(self.sizes), index, side="right"))

    def has_fixed_share(self, index: int) -> bool:
        """Whether the domain of a sample has a share of the draws that its size does not change."""
        return bool(self.fixed) and bool(self.fixed[self.domain_of(index)])

    def _start(self, domain: int) -> int:
        return sum(self.sizes[:domain])
