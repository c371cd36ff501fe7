"""WildDash 2 (Zendel et al., CVPR 2022): the public images with labels, which have no split of their own.

From the data set's own description: the folders ``images`` (JPEG) and ``labels`` (PNG of the same names) of the archive
``wd_public_v2p0.zip``, 4256 images, Cityscapes' ids, and further ids from 34 on. Not checked against a downloaded
archive. The further ids become what Cityscapes' own definitions of its classes say (van: car; pickup: truck; road
marking: road), a street light a pole as with Mapillary Vistas; a billboard is ignored.
"""

from domainbridge.data.label_ids import CITYSCAPES_IDS
from domainbridge.data.layouts.base import DirectoryScheme, Layout, native_id_decoder, register_layout

_PICKUP, _VAN, _STREET_LIGHT, _ROAD_MARKING = 34, 35, 37, 38

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
