"""Some of many: positions that are evenly spread."""

__all__ = ["evenly_spread"]


def evenly_spread(count: int, at_most: int) -> list[int]:
    """At most ``at_most`` of ``count`` positions, from the first on."""
    kept = min(count, at_most)
    return [count * number // kept for number in range(kept)]
