"""Rendered street scenes with the classes of Cityscapes: GTA5, SYNTHIA, Synscapes, UrbanSyn."""

from domainbridge.data.label_ids import CITYSCAPES_IDS, SYNTHIA_IDS
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

# Richter et al., ECCV 2016.
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
# Ros et al., CVPR 2016: the part with the classes of Cityscapes.
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
# Wrenninge & Unger, arXiv 1810.08705.
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
# Gomez et al., arXiv 2312.12176. From the data set's own description: the folders rgb and ss, files rgb_0001.png and
# ss_0001.png, 7539 images of 2048x1024, label values that are Cityscapes' train ids, and 19 for pixels without a class.
# Not checked against a downloaded archive.
register_layout("urbansyn")(
    Layout(
        title="UrbanSyn",
        schemes=(DirectoryScheme("rgb", "ss", image_start="rgb_", label_start="ss_"),),
        decoder=native_id_decoder({value: value for value in range(19)}, "urbansyn"),
        label_space="cityscapes19",
        unpack="put the folders rgb and ss of UrbanSyn into the root folder",
        counts={"": 7539},
    )
)
