"""UrbanSyn (Gomez et al., arXiv 2312.12176).

From the data set's own description: the folders ``rgb`` and ``ss``, files ``rgb_0001.png`` and ``ss_0001.png``, 7539
images of 2048x1024, label values that are Cityscapes' train ids, and 19 for pixels without a class. Not checked against
a downloaded archive.
"""

from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

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
