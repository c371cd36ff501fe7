"""Street scenes of cars' cameras with the classes of Cityscapes: Cityscapes, BDD100K, IDD, WildDash 2."""

from domainbridge.data.label_ids import CITYSCAPES_IDS, IDD_NAMES
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.data.labels import PolygonLabels
from domainbridge.data.layouts.base import (
    TRAIN_AND_VAL,
    DirectoryScheme,
    Layout,
    native_id_decoder,
    register_layout,
    train_id_decoder,
)

_PICKUP, _VAN, _STREET_LIGHT, _ROAD_MARKING = 34, 35, 37, 38
"""Further ids of WildDash 2."""

# Cordts et al., CVPR 2016.
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
# Yu et al., CVPR 2020.
register_layout("bdd100k")(
    Layout(
        title="BDD100K, the 10k images of the segmentation task",
        schemes=(
            DirectoryScheme("images/10k/{split}", "labels/sem_seg/masks/{split}"),
            DirectoryScheme("seg/images/{split}", "seg/labels/{split}", label_ending="_train_id.png"),
        ),
        decoder=train_id_decoder(BUILT_IN["cityscapes19"]),
        label_space="cityscapes19",
        unpack="unpack bdd100k_images_10k.zip and (for validation) bdd100k_sem_seg_labels_trainval.zip into the "
        "parent of the root folder",
        splits=TRAIN_AND_VAL,
        counts={"train": 7000, "val": 1000},
    )
)
# Varma et al., WACV 2019.
register_layout("idd")(
    Layout(
        title="India Driving Dataset",
        schemes=(DirectoryScheme("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit", "_gtFine_polygons.json"),),
        decoder=lambda root: PolygonLabels(IDD_NAMES),
        label_space="cityscapes19",
        unpack="unpack idd-segmentation.tar.gz, then optionally idd-20k-II.tar.gz, into the root folder",
        splits=TRAIN_AND_VAL,
        counts={"train": 6993, "val": 981},
    )
)
# Zendel et al., CVPR 2022: the public images with labels, which have no split of their own. From the data set's own
# description: the folders images (JPEG) and labels (PNG of the same names) of the archive wd_public_v2p0.zip, 4256
# images, Cityscapes' ids, and further ids from 34 on. Not checked against a downloaded archive. The further ids become
# what Cityscapes' own definitions of its classes say (van: car; pickup: truck; road marking: road), a street light a
# pole as with Mapillary Vistas; a billboard is ignored.
register_layout("wilddash2")(
    Layout(
        title="WildDash 2",
        schemes=(DirectoryScheme("images", "labels"),),
        decoder=native_id_decoder(
            {**CITYSCAPES_IDS, _PICKUP: 14, _VAN: 13, _STREET_LIGHT: 5, _ROAD_MARKING: 0}, "wilddash2"
        ),
        label_space="cityscapes19",
        unpack="unpack wd_public_v2p0.zip so that images and labels are in the root folder",
        counts={"": 4256},
    )
)
