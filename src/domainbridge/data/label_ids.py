"""Label values of the known data sets -> train ids.

Sources: labels.py of cityscapesScripts; SYNTHIA's README (RAND-CITYSCAPES ids); the class lists (``config*.json``) of
Mapillary Vistas v1.2 and v2.0; anue_labels.py of the India Driving Dataset; CamVid's 32 colors with the usual grouping
into 11 (Badrinarayanan et al., SegNet, arXiv 1511.00561). Recorded arrays confirm the tables of Cityscapes, Synscapes,
SYNTHIA and Mapillary v1.2 (docs/method.md, section 10, letter j).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from domainbridge.types import IGNORE

__all__ = [
    "CAMVID_COLORS",
    "CITYSCAPES_IDS",
    "IDD_NAMES",
    "MAPILLARY_V12_NAMES",
    "MAPILLARY_V20_NAMES",
    "SYNTHIA_IDS",
    "id_table",
]

CITYSCAPES_IDS = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13},
    **{27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}
"""Also the ids of GTA5 (Richter et al., ECCV 2016) and Synscapes (Wrenninge & Unger, arXiv 1810.08705)."""

SYNTHIA_IDS = {
    **{1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17, 15: 6, 16: 9},
    **{17: 12, 18: 14, 19: 15, 20: 16, 21: 3},
}


def _numbered(names: str) -> dict[str, int]:
    """Parse 'a=1 | b | ...': names in order; a name without a train id is ignored."""
    parts = [part.strip().partition("=") for part in names.split("|")]
    return {name: int(number) if number else IGNORE for name, _, number in parts}


MAPILLARY_V12_NAMES = _numbered(
    "Bird | Ground Animal | Curb=1 | Fence=4 | Guard Rail | Barrier | Wall=3 | Bike Lane=0 | Crosswalk - Plain=0 | "
    "Curb Cut=1 | Parking=0 | Pedestrian Area=1 | Rail Track | Road=0 | Service Lane=0 | Sidewalk=1 | Bridge | "
    "Building=2 | Tunnel | Person=11 | Bicyclist=12 | Motorcyclist=12 | Other Rider=12 | Lane Marking - Crosswalk=0 | "
    "Lane Marking - General=0 | Mountain | Sand | Sky=10 | Snow | Terrain=9 | Vegetation=8 | Water | Banner | Bench | "
    "Bike Rack | Billboard | Catch Basin | CCTV Camera | Fire Hydrant | Junction Box | Mailbox | Manhole | "
    "Phone Booth | Pothole | Street Light=5 | Pole=5 | Traffic Sign Frame=7 | Utility Pole=5 | Traffic Light=6 | "
    "Traffic Sign (Back)=7 | Traffic Sign (Front)=7 | Trash Can | Bicycle=18 | Boat | Bus=15 | Car=13 | Caravan | "
    "Motorcycle=17 | On Rails=16 | Other Vehicle | Trailer | Truck=14 | Wheeled Slow | Car Mount | Ego Vehicle | "
    "Unlabeled"
)
"""In the order of the label values 0 to 65."""

_LANE_MARKINGS_V20 = (
    *("Dashed Line", "Straight Line", "Zigzag Line", "Ambiguous", "Arrow (Left)", "Arrow (Other)", "Arrow (Right)"),
    *("Arrow (Split Left or Straight)", "Arrow (Split Right or Straight)", "Arrow (Straight)", "Crosswalk"),
    *("Give Way (Row)", "Give Way (Single)", "Hatched (Chevron)", "Hatched (Diagonal)", "Other", "Stop Line"),
    *("Symbol (Bicycle)", "Symbol (Other)", "Text"),
)
MAPILLARY_V20_NAMES = {
    **{name: train_id for name, train_id in MAPILLARY_V12_NAMES.items() if train_id != IGNORE},
    **_numbered("Parking Aisle=0 | Road Shoulder=0 | Garage=2 | Person Group=11 | Pole Group=5"),
    **{f"Lane Marking - {name}": 0 for name in _LANE_MARKINGS_V20},
    **{f"Lane Marking (only) - {name}": 0 for name in ("Dashed Line", "Crosswalk", "Other", "Test")},
    **{f"Traffic Light - {name}": 6 for name in ("General (Single)", "General (Upright)", "General (Horizontal)")},
    **{f"Traffic Light - {name}": 6 for name in ("Pedestrians", "Cyclists", "Other")},
    **{f"Traffic Sign - {name}": 7 for name in ("Ambiguous", "Direction (Back)", "Direction (Front)", "Parking")},
    **{f"Traffic Sign - {name}": 7 for name in ("Temporary (Back)", "Temporary (Front)")},
}
"""Keyed by name, because the file ``config_v2.0.json`` of the data set gives the order of the 124 label values.
Unlisted names are ignored. Parts of ignored or mixed v1.2 classes (driveway, traffic island, road median ...) stay
ignored in v2.0."""

IDD_NAMES = _numbered(
    "road=0 | sidewalk=1 | non-drivable fallback=9 | person=11 | rider=12 | motorcycle=17 | bicycle=18 | car=13 | "
    "truck=14 | bus=15 | train=16 | wall=3 | fence=4 | traffic sign=7 | traffic light=6 | pole=5 | building=2 | "
    "vegetation=8 | sky=10"
)
"""Polygon labels -> Cityscapes train ids (the ``csTrainId`` column); unlisted names are ignored."""

CAMVID_COLORS = {
    "#808080": "sky",
    **dict.fromkeys(["#c00080", "#008040", "#800000", "#400040", "#40c000"], "building"),
    **dict.fromkeys(["#c0c080", "#000040"], "pole"),
    **dict.fromkeys(["#804080", "#8000c0", "#c00040"], "road"),
    **dict.fromkeys(["#0000c0", "#40c080", "#8080c0"], "sidewalk"),
    **dict.fromkeys(["#808000", "#c0c000"], "tree"),
    **dict.fromkeys(["#c08080", "#808040", "#004040"], "sign"),
    "#404080": "fence",
    **dict.fromkeys(["#400080", "#4080c0", "#c080c0", "#c04080", "#804040"], "car"),
    **dict.fromkeys(["#404000", "#c08040", "#4000c0", "#408040"], "pedestrian"),
    **dict.fromkeys(["#0080c0", "#c000c0"], "bicyclist"),
}
"""Colors of ``LabeledApproved_full``: '#rrggbb' -> class of camvid11; black (void) is unlisted."""


def id_table(ids: Mapping[int, int]) -> NDArray[np.uint8]:
    """Lookup table uint8 (256,); unlisted ids become 255."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(ids)] = list(ids.values())
    return table
