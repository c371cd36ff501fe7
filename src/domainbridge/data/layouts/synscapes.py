"""Synscapes (Wrenninge & Unger, arXiv 1810.08705)."""

from domainbridge.data.label_ids import CITYSCAPES_IDS
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

register_layout("synscapes")(
    Layout(
        title="Synscapes",
        schemes=(DirectoryScheme("img/rgb", "img/class"),),
        decoder=native_id_decoder(CITYSCAPES_IDS, "synscapes"),
        label_space="cityscapes19",
        unpack="unpack the Synscapes archive so that img/rgb and img/class are in the root folder",
        counts={"": 25000},
    )
)
