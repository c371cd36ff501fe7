"""SYNTHIA (Ros et al., CVPR 2016), the part with the classes of Cityscapes."""

from domainbridge.data.label_ids import SYNTHIA_IDS
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

register_layout("synthia")(
    Layout(
        title="SYNTHIA-RAND-CITYSCAPES",
        schemes=(DirectoryScheme("RGB", "GT/LABELS"),),
        decoder=native_id_decoder(SYNTHIA_IDS, "synthia", first_channel=True),
        label_space="cityscapes19",
        unpack="unpack SYNTHIA_RAND_CITYSCAPES.rar so that RGB and GT/LABELS are in the root folder",
        counts={"": 9400},
    )
)
