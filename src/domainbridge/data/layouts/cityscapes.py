"""Cityscapes (Cordts et al., CVPR 2016)."""

from domainbridge.data.label_ids import CITYSCAPES_IDS
from domainbridge.data.layouts.base import (
    TRAIN_AND_VAL,
    DirectoryScheme,
    Layout,
    native_id_decoder,
    register_layout,
)

register_layout("cityscapes")(
    Layout(
        title="Cityscapes",
        schemes=(DirectoryScheme("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit", "_gtFine_labelIds.png"),),
        decoder=native_id_decoder(CITYSCAPES_IDS, "cityscapes"),
        label_space="cityscapes19",
        unpack="unpack leftImg8bit_trainvaltest.zip and (for validation) gtFine_trainvaltest.zip into the root folder",
        splits=TRAIN_AND_VAL,
        counts={"train": 2975, "val": 500},
    )
)
