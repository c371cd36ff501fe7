"""Images of any size, and georeferenced ones: read, segmented and written in parts, never whole in memory."""

import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.headers import Header
from domainbridge.data.raster import GeoReference, RasterImage, open_raster, rasterio_settings
from domainbridge.evaluation.segmentation_model import Maps, SegmentationModel
from domainbridge.evaluation.windows import Box
from domainbridge.tools.pictures import blended
from domainbridge.tools.polygon_files import geojson, labelme
from domainbridge.tools.polygons import Region, regions_of_file
from domainbridge.tools.predict_inputs import Input, output_path
from domainbridge.tools.predict_options import endings_of
from domainbridge.tools.predict_outputs import JPEG_QUALITY, Outputs, disagreements

__all__ = ["segment_large"]

_BLOCK = 512
"""Side of a tile of a written GeoTIFF."""
_SMALLEST_TILED = 1024
_NO_CLASS = 255
_SHARED: dict[str, Any] = {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}

Pixels = NDArray[np.uint8]


@dataclass
class _Band:
    """Full rows of the results, from ``top`` on; arrays as in ``Segmented``."""

    top: int
    classes: Pixels
    confidence: Pixels | None
    disagreement: Pixels | None


def segment_large(
    model: SegmentationModel,
    paths: Sequence[SegmentationModel],
    item: Input,
    header: Header,
    outputs: Outputs,
    *,
    report: Callable[[str], None],
    progress: Callable[[float], None],
) -> None:
    """Write the results of an image in bounded memory. A map's files have its coordinate system and place.

    Args:
        model: see there.
        paths: the models of the two paths, where their disagreement is asked for.
        item: the image.
        header: of the image.
        outputs: what is written.
        report: gets a line for each remark.
        progress: called with the share that is done.

    Raises:
        DataError: the image is damaged, or an overlay of that size cannot be written.
        StorageError: a result cannot be written.
    """
    size = header.height, header.width
    if item.kind != "map":
        outputs.refuse(item.path, size)
    item.target.parent.mkdir(parents=True, exist_ok=True)
    network_size = model.input_size(*size)
    with ExitStack() as stack:
        image = stack.enter_context(open_raster(item.path, header, model.image_rule, network_size))
        full = image
        if network_size != size:
            full = stack.enter_context(open_raster(item.path, header, model.image_rule))
        windows = model.windows_for(*size)
        if windows is not None:
            report(f"{item.path}: {size[1]}x{size[0]} pixels, read in {windows}")
        files = stack.enter_context(_files(item, outputs, full.place, size))
        facts: dict[str, Any] = {}
        for band in _bands(model, paths, image, size, outputs, files.probabilities, progress):
            empty = full.without_data(slice(band.top, band.top + len(band.classes)), slice(0, size[1]))
            if empty is not None:
                band.classes[empty] = _NO_CLASS
            files.write(band, full)
            facts = outputs.facts(band.classes, band.disagreement, facts)
        files.close()
        written = _publish(item, outputs, files, full.place, size)
    outputs.finish(item, written, {**facts, "size": list(size)})


def _bands(
    model: SegmentationModel,
    paths: Sequence[SegmentationModel],
    image: RasterImage,
    size: tuple[int, int],
    outputs: Outputs,
    probabilities: "_Probabilities | None",
    progress: Callable[[float], None],
) -> Iterator[_Band]:
    """The results in full rows from top to bottom; all models see a part before the next part is read."""
    options = outputs.options
    main = model.parts(image, size, confidence=options.confidence, probabilities=options.probabilities)
    others = [path.parts(image, size) for path in paths]
    band: _Band | None = None
    done = 0
    for (box, maps), *more in zip(main, *others, strict=True):
        if band is None:
            new = partial(_empty, box.size[0], size[1])
            band = _Band(box.top, new(), new() if options.confidence else None, new() if paths else None)
        place = slice(None), slice(box.left, box.right)
        (different,) = disagreements([[each] for _, each in more], 1)
        for array, part in (
            (band.classes, maps.classes),
            (band.confidence, maps.confidence),
            (band.disagreement, different),
        ):
            if array is not None and part is not None:
                array[place] = part
        if probabilities is not None:
            probabilities.write(box, maps)
        done += box.size[0] * box.size[1]
        progress(done / (size[0] * size[1]))
        if box.right == size[1]:
            yield band
            band = None


def _empty(height: int, width: int) -> Pixels:
    return np.empty((height, width), np.uint8)


class _Probabilities:
    """A growing NumPy file of all probabilities, uint8 (height, width, classes); packed when it is whole."""

    def __init__(self, path: Path, size: tuple[int, int], classes: Sequence[str]) -> None:
        self.path, self.shape, self.classes = path, (*size, len(classes)), classes
        self.file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.start = self.file.tell()

    def write(self, box: Box, maps: Maps) -> None:
        """Put a part at its place."""
        assert maps.probabilities is not None
        _, width, classes = self.shape
        for number, row in enumerate(maps.probabilities):
            self.file.seek(self.start + ((box.top + number) * width + box.left) * classes)
            self.file.write(np.ascontiguousarray(row).data)

    def pack(self, temporary: Path) -> None:
        """Write the archive that ``numpy.load`` reads."""
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(self.path, "probabilities.npy")
            with archive.open("classes.npy", "w") as names:
                np.lib.format.write_array(names, np.array(self.classes))


@dataclass
class _Files:
    """Open temporary GeoTIFFs by ending, and the probabilities."""

    outputs: Outputs
    rasters: dict[str, Any]
    temporaries: dict[str, Path]
    probabilities: _Probabilities | None

    def write(self, band: _Band, image: RasterImage) -> None:
        """Add full rows to every file."""
        rows = slice(band.top, band.top + len(band.classes))
        window = ((rows.start, rows.stop), (0, band.classes.shape[1]))
        palette = self.outputs.model.palette
        for ending, raster in self.rasters.items():
            name = ending.partition(".")[0]
            if name == "_overlay":
                colored = blended(image[rows, slice(0, band.classes.shape[1])], palette, band.classes)
            elif name == "_colors":
                colored = palette[band.classes]
            else:
                values = {"_confidence": band.confidence, "_disagreement": band.disagreement}.get(name)
                raster.write(self.outputs.options.values[band.classes] if values is None else values, 1, window=window)
                continue
            raster.write(np.moveaxis(colored, -1, 0), window=window)

    def close(self) -> None:
        """Flush what is written."""
        for raster in self.rasters.values():
            raster.close()
        if self.probabilities is not None:
            self.probabilities.file.close()


@contextmanager
def _files(item: Input, outputs: Outputs, place: GeoReference | None, size: tuple[int, int]) -> Iterator[_Files]:
    """The temporary files of an image's results; removed in the end."""
    import rasterio

    mark = f"{os.getpid()}.{threading.get_ident()}.tmp"
    endings = [ending for ending in endings_of(item.kind, outputs.options) if ending.endswith((".png", ".tif", ".jpg"))]
    temporaries = {
        ending: item.target.with_name(f".{item.target.name}{ending}.part.{mark}")
        for ending in (*endings, "_probabilities.npz")
    }
    files = _Files(outputs, {}, temporaries, None)
    tiles = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK} if min(size) >= _SMALLEST_TILED else {}
    where = {} if place is None else {"crs": place.crs, "transform": place.transform}
    try:
        for ending in endings:
            colored = ending.startswith(("_overlay", "_colors"))
            bands = {"count": 3, "photometric": "rgb"} if colored else {"count": 1}
            profile = {**_SHARED, **tiles, **where, **bands, "height": size[0], "width": size[1], "dtype": "uint8"}
            if not ending.startswith("_"):
                profile["nodata"] = _NO_CLASS
            raster = files.rasters[ending] = rasterio.open(temporaries[ending], "w", **profile)
            if not ending.startswith("_"):
                raster.write_colormap(1, {value: tuple(color) for value, color in enumerate(outputs.palette.tolist())})
        if outputs.options.probabilities:
            files.probabilities = _Probabilities(temporaries["_probabilities.npz"], size, outputs.model.classes)
        yield files
    finally:
        files.close()
        for path in temporaries.values():
            path.unlink(missing_ok=True)


def _publish(
    item: Input, outputs: Outputs, files: _Files, place: GeoReference | None, size: tuple[int, int]
) -> list[Path]:
    """Move or convert every temporary file to its place, the class map last; the paths of all results."""
    written = []
    regions = partial(_regions, files, item, outputs)
    about = outputs.about(item, size)
    if "coco" in outputs.options.polygons:
        outputs.save_coco(item, size, sorted(regions(), key=lambda region: -region.area))
    for ending in reversed(endings_of(item.kind, outputs.options)):
        output = output_path(item.target, ending)
        save: Callable[[Path], object]
        if ending == "_probabilities.npz":
            assert files.probabilities is not None
            save = files.probabilities.pack
        elif ending == ".geojson":
            save = partial(_write_pieces, pieces=geojson(regions(), about, place))
        elif ending == ".json":
            largest_first = sorted(regions(), key=lambda region: -region.area)
            save = partial(_write_pieces, pieces=iter([labelme(largest_first, about, output)]))
        else:
            save = partial(_move, files.temporaries[ending], ending)
        outputs.save(output, save, item.path)
        written.append(output)
    return written


def _regions(files: _Files, item: Input, outputs: Outputs) -> Iterator[Region]:
    options = outputs.options
    train_ids = np.full(256, _NO_CLASS, np.uint8)
    known = np.arange(len(outputs.model.classes), dtype=np.uint8)
    train_ids[options.values[known]] = known
    with rasterio_settings():
        plain = endings_of(item.kind, options)[0]
        yield from regions_of_file(files.temporaries[plain], train_ids, options.min_area, options.tolerance)


def _write_pieces(temporary: Path, pieces: Iterator[str]) -> None:
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def _move(source: Path, ending: str, temporary: Path) -> None:
    """The temporary GeoTIFF as it is, or as a PNG or JPEG; GDAL converts row by row."""
    if ending.endswith(".tif"):
        source.replace(temporary)
        return
    import rasterio.shutil

    options = {"driver": "JPEG", "quality": JPEG_QUALITY} if ending.endswith(".jpg") else {"driver": "PNG"}
    with rasterio_settings():
        rasterio.shutil.copy(source, temporary, **options)
