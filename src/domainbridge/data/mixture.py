"""Which sample comes when: endless shuffled epochs over one domain or several, as a function of the position."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from domainbridge.seeding import derive_seed

__all__ = ["Mixture", "epoch_index"]


@lru_cache(maxsize=16)
def _permutation(seed: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)


def epoch_index(seed: int, stage: str, position: int, length: int) -> int:
    """Which of ``length`` samples stands at ``position`` of an endless stream of shuffled epochs."""
    epoch, offset = divmod(position, length)
    return int(_permutation(derive_seed(seed, stage, epoch, "epoch"), length)[offset])


@dataclass(frozen=True)
class Mixture:
    """Domains that lie one after the other, drawn in proportion to size ** temperature.

    Attributes:
        sizes: samples per domain.
        temperature: 1: every sample equally often (the published concatenation); 0: every domain equally often.
    """

    sizes: tuple[int, ...]
    temperature: float = 1.0

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Of the draws, per domain; they sum to 1."""
        weights = np.asarray(self.sizes, np.float64) ** self.temperature
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def index(self, seed: int, stage: str, position: int) -> int:
        """The sample at ``position`` of the stream, counted through all domains.

        An epoch has as many positions as there are samples; each domain fills its share of them from shuffled
        epochs of its own, so nothing is drawn twice before all of its domain has been drawn once.
        """
        total = sum(self.sizes)
        if self._plain:
            return epoch_index(seed, stage, position, total)
        epoch, offset = divmod(position, total)
        slot = int(_permutation(derive_seed(seed, stage, epoch, "mixture"), total)[offset])
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
        return len(self.sizes) == 1 or self.temperature == 1

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where each domain's slots of an epoch end."""
        ends: NDArray[np.int64] = np.rint(np.cumsum(self.shares) * sum(self.sizes)).astype(np.int64)
        return ends

    def _quota(self, domain: int) -> int:
        return int(self._ends[domain] - (self._ends[domain - 1] if domain else 0))

    def _start(self, domain: int) -> int:
        return sum(self.sizes[:domain])
