"""BDD100K (Yu et al., CVPR 2020), the 10k images of the segmentation task."""

from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.data.layouts.base import (
    TRAIN_AND_VAL,
    DirectoryScheme,
    Layout,
    register_layout,
    train_id_decoder,
)

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
