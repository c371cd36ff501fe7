"""GTA5 (Richter et al., ECCV 2016)."""

from domainbridge.data.label_ids import CITYSCAPES_IDS
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

register_layout("gta5")(
    Layout(
        title="GTA5",
        schemes=(DirectoryScheme("images", "labels"),),
        decoder=native_id_decoder(CITYSCAPES_IDS, "gta5"),
        label_space="cityscapes19",
        unpack="unpack 01_images.zip ... 10_images.zip and 01_labels.zip ... 10_labels.zip into the root folder",
        counts={"": 24966},
    )
)
