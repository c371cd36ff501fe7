"""India Driving Dataset (Varma et al., WACV 2019)."""

from domainbridge.data.label_ids import IDD_NAMES
from domainbridge.data.labels import PolygonLabels
from domainbridge.data.layouts.base import TRAIN_AND_VAL, DirectoryScheme, Layout, register_layout

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
