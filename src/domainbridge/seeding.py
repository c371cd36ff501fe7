"""All randomness as a value: a generator is a function of (seed, stage, step, sample, purpose).

No generator is carried from one step to the next, so resuming at step t needs nothing but t, and the
number of loader workers cannot change a result.
"""

import hashlib

import numpy as np
import torch

__all__ = ["derive_seed", "numpy_generator", "seed_global_generator", "torch_generator"]


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit number that depends on every part and on their order (BLAKE2b of their text)."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def torch_generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator. Draws are made on the CPU and moved, so a GPU run draws the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def numpy_generator(seed: int, *parts: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for the work done on decoded images."""
    return np.random.default_rng(derive_seed(seed, *parts))


def seed_global_generator(seed: int, *parts: str | int) -> None:
    """Seed torch's global generators: the only users of them are dropout layers and weight initialisation."""
    torch.manual_seed(derive_seed(seed, *parts))
