"""CamVid (Brostow et al., 2009): the original data set, and the version of SegNet's tutorial."""

from pathlib import Path

from domainbridge.data.color_labels import color_labels
from domainbridge.data.label_ids import CAMVID_COLORS
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.data.labels import LabelDecoder
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout


def _color_decoder(root: Path) -> LabelDecoder:
    classes = BUILT_IN["camvid11"].classes
    return color_labels({int(color[1:], 16): classes.index(name) for color, name in CAMVID_COLORS.items()})


register_layout("camvid")(
    Layout(
        title="CamVid, the original 701 images in 32 colors",
        schemes=(DirectoryScheme("701_StillsRaw_full", "LabeledApproved_full", label_ending="_L.png"),),
        decoder=_color_decoder,
        label_space="camvid11",
        unpack="unpack 701_StillsRaw_full.zip into the root folder, and LabeledApproved_full.zip into a new folder "
        "LabeledApproved_full in the root folder",
        counts={"": 701},
    )
)
register_layout("camvid-segnet")(
    Layout(
        title="CamVid in the version of SegNet's tutorial, 367/101/233 images",
        schemes=(DirectoryScheme("{split}", "{split}annot"),),
        # Ids 0 to 10 are the classes of camvid11 in order, and 11 is void.
        decoder=native_id_decoder({value: value for value in range(11)}, "camvid"),
        label_space="camvid11",
        unpack="copy the CamVid folder of SegNet's tutorial so that train, trainannot, val, valannot ... are in the "
        "root folder",
        splits={"train": ("train",), "val": ("val",), "test": ("test",)},
        counts={"train": 367, "val": 101, "test": 233},
    )
)
