"""Stored label ids of the known data sets -> Cityscapes train ids (golden j_label_maps).

Sources: labels.py of cityscapesScripts; SYNTHIA's README (RAND-CITYSCAPES ids); Mapillary Vistas v1.2's class names.
"""

import numpy as np
from numpy.typing import NDArray

from domainbridge.types import IGNORE

__all__ = ["CITYSCAPES_IDS", "MAPILLARY_V12_IDS", "SYNTHIA_IDS", "id_table"]

CITYSCAPES_IDS = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13},
    **{27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}
"""Also the ids of GTA5 (Richter et al., ECCV 2016) and Synscapes (Wrenninge & Unger, arXiv 1810.08705)."""

SYNTHIA_IDS = {
    **{1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17, 15: 6, 16: 9},
    **{17: 12, 18: 14, 19: 15, 20: 16, 21: 3},
}

MAPILLARY_V12_IDS = {
    **{2: 1, 3: 4, 6: 3, 7: 0, 8: 0, 9: 1, 10: 0, 11: 1, 13: 0, 14: 0, 15: 1, 17: 2, 19: 11, 20: 12, 21: 12},
    **{22: 12, 23: 0, 24: 0, 27: 10, 29: 9, 30: 8, 44: 5, 45: 5, 46: 7, 47: 5, 48: 6, 49: 7, 50: 7, 52: 18},
    **{54: 15, 55: 13, 57: 17, 58: 16, 61: 14},
}


def id_table(ids: dict[int, int]) -> NDArray[np.uint8]:
    """Lookup table uint8 (256,); ids that are not listed become 255."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(ids)] = list(ids.values())
    return table
