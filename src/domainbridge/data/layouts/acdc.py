"""ACDC (Sakaridis et al., ICCV 2021) and Dark Zurich (Sakaridis et al., ICCV 2019): adverse conditions."""

from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.data.layouts.base import DirectoryScheme, Layout, register_layout, train_id_decoder

_SCHEME = DirectoryScheme("rgb_anon/{split}", "gt/{split}", "_rgb_anon", "_gt_labelTrainIds.png")
_DECODER = train_id_decoder(BUILT_IN["cityscapes19"])
_CONDITIONS = ("fog", "night", "rain", "snow")


def _splits(name: str) -> dict[str, tuple[str, ...]]:
    """Splits ``name``, with the folders of all conditions, and ``CONDITION/name``, with one folder each."""
    folders = tuple(f"{condition}/{name}" for condition in _CONDITIONS)
    return {name: folders, **{folder: (folder,) for folder in folders}}


register_layout("acdc")(
    Layout(
        title="ACDC, one condition (fog/train) or all four (train)",
        schemes=(_SCHEME,),
        decoder=_DECODER,
        label_space="cityscapes19",
        unpack="unpack rgb_anon_trainvaltest.zip and (for validation) gt_trainval.zip into the root folder",
        splits={**_splits("train"), **_splits("val")},
        counts={"train": 1600, "val": 406},
    )
)
register_layout("dark-zurich")(
    Layout(
        title="Dark Zurich",
        schemes=(_SCHEME,),
        decoder=_DECODER,
        label_space="cityscapes19",
        unpack="unpack Dark_Zurich_train_anon.zip and (for validation) Dark_Zurich_val_anon.zip into the root folder",
        splits={
            "train": ("train/night",),
            "train/twilight": ("train/twilight",),
            "train/day": ("train/day",),
            "val": ("val/night",),
        },
        counts={"train": 2416, "train/twilight": 2920, "train/day": 3041, "val": 50},
    )
)
