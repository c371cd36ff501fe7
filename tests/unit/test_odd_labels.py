"""Label files of unusual depth, bands and values: GIS rasters, few bits per pixel, 16-bit colors."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from domainbridge.data.bands import ImageRule
from domainbridge.data.dataset import check_same_size
from domainbridge.data.decode import read_image
from domainbridge.data.headers import page_count
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.labels import IdLabels
from domainbridge.data.name_pattern import NamePattern
from domainbridge.data.raster import rasterio_settings
from domainbridge.data.walk import IMAGE_SUFFIXES
from domainbridge.errors import DataError, FileError

SPACE = LabelSpace("mine", ("soil", "crop", "weed"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
TRAIN_IDS = IdLabels.in_space(np.array([0, 1, 2, *[255] * 253], np.uint8), SPACE)
IDS = np.array([[0, 1, 2, 1], [2, 2, 0, 0]], np.uint8)
EXPECTED = IDS.tolist()


def gray_png(path: Path, values: np.ndarray, bits: int) -> Path:
    """A gray PNG with so many bits per pixel, which no library here writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = ["".join(f"{value:0{bits}b}" for value in row) for row in values.tolist()]
    rows = b"".join(b"\0" + int(line, 2).to_bytes(-(-len(line) // 8), "big") for line in lines)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def tiff(path: Path, values: np.ndarray, nodata: str | None = None) -> Path:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if nodata is not None:
        tags[42113] = nodata
    Image.fromarray(values).save(path, tiffinfo=tags)
    return path


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("label_map", [None, {0: "soil", 1: "crop", 2: "weed"}, {0: 0, 1: 1, "*": 2}])
def test_few_bits_are_values_as_stored(label_map: dict[int | str, int | str] | None, bits: int, tmp_path: Path) -> None:
    path = gray_png(tmp_path / "a.png", IDS, bits)
    decoder = TRAIN_IDS if label_map is None else label_map_decoder(label_map, SPACE, "s")
    assert decoder.read(path).tolist() == EXPECTED


def test_few_bits_are_spread_where_the_map_says_so(tmp_path: Path) -> None:
    path = gray_png(tmp_path / "a.png", IDS, 2)
    assert label_map_decoder({0: "soil", 85: "crop", 170: "weed"}, SPACE, "s").read(path).tolist() == EXPECTED
    path = gray_png(tmp_path / "a.png", (IDS > 0) * np.uint8(15), 4)
    assert label_map_decoder({0: "soil", 255: "crop"}, SPACE, "s").read(path).tolist() == (IDS > 0).tolist()


def test_one_bit_with_the_nearest_listed_value(tmp_path: Path) -> None:
    Image.fromarray(IDS > 0).save(tmp_path / "a.png")
    decoder = label_map_decoder({0: "soil", 255: "crop"}, SPACE, "s")
    assert isinstance(decoder, IdLabels)
    assert decoder.with_nearest().read(tmp_path / "a.png").tolist() == (IDS > 0).tolist()


@pytest.mark.parametrize(
    ("dtype", "empty", "declared"),
    [("int16", -9999, "-9999"), ("float32", np.nan, "nan"), ("float32", -3.4028234663852886e38, "-3.4028235e+38")],
)
def test_declared_pixels_without_data_have_no_class(dtype: str, empty: float, declared: str, tmp_path: Path) -> None:
    values = IDS.astype(dtype)
    values[0, 0] = empty
    if dtype == "int16":
        values = values.astype(np.int32)  # Pillow writes no int16
    path = tiff(tmp_path / "a.tif", values, declared)
    assert TRAIN_IDS.read(path).tolist() == [[255, *EXPECTED[0][1:]], EXPECTED[1]]
    lists_255 = label_map_decoder({0: "soil", 1: "crop", 2: "weed", 255: "weed"}, SPACE, "s")
    assert lists_255.read(path).tolist()[0][0] == 255, "255 is a class here, and no data are none"
    with pytest.raises(FileError, match=r"label values from|declared|whole numbers"):
        TRAIN_IDS.read(tiff(tmp_path / "undeclared.tif", values))


def test_a_declared_value_that_is_an_id_stays_an_id(tmp_path: Path) -> None:
    assert TRAIN_IDS.read(tiff(tmp_path / "a.tif", IDS.astype(np.int32), "0")).tolist() == EXPECTED


def rgb16(path: Path, values: np.ndarray) -> Path:
    cv2.imwrite(str(path), values)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_equal_channels_keep_their_ids(suffix: str, tmp_path: Path) -> None:
    path = rgb16(tmp_path / f"a{suffix}", np.repeat(IDS[..., None].astype(np.uint16) * 1000, 3, 2))
    decoder = label_map_decoder({0: "soil", 1000: "crop", 2000: "weed"}, SPACE, "s")
    assert decoder.read(path).tolist() == EXPECTED


@pytest.mark.parametrize("factor", [257, 256])
def test_colors_of_16_bits(factor: int, tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [250, 50, 83], [52, 209, 183]], np.uint16)
    path = rgb16(tmp_path / "a.png", palette[IDS][..., ::-1] * factor)
    decoder = label_map_decoder({"#000000": "soil", "#fa3253": "crop", "#34d1b7": "weed"}, SPACE, "s")
    if factor == 257:
        assert decoder.read(path).tolist() == EXPECTED
        np.save(tmp_path / "a.npy", palette[IDS].astype(np.uint8))
        assert decoder.read(tmp_path / "a.npy").tolist() == EXPECTED
    else:
        with pytest.raises(FileError, match="expected a label of 8-bit colors, found 3 bands of uint16"):
            decoder.read(path)


def raster(path: Path, bands: np.ndarray, nodata: float | None = None) -> Path:
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    sizes = {"height": height, "width": width, "count": count, "dtype": bands.dtype, "nodata": nodata}
    with rasterio_settings(), rasterio.open(path, "w", driver="GTiff", **sizes) as file:
        file.write(bands)
    return path


def test_pgm_files_have_the_values_that_are_stored(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n4 2\n2\n" + IDS.tobytes())
    assert TRAIN_IDS.read(tmp_path / "a.pgm").tolist() == EXPECTED
    (tmp_path / "a.pgm").write_bytes(b"P5\n4 2\n4095\n" + IDS.astype(">u2").tobytes())
    assert TRAIN_IDS.read(tmp_path / "a.pgm").tolist() == EXPECTED


def test_deep_ppm_images_need_a_scale(tmp_path: Path) -> None:
    """Pillow divides them by 256: 12 bits in 16 would be almost black."""
    values = np.arange(2 * 4 * 3, dtype=np.uint16).reshape(2, 4, 3) * 100
    (tmp_path / "a.ppm").write_bytes(b"P6\n4 2\n65535\n" + values.astype(">u2").tobytes())
    with pytest.raises(FileError, match="3 bands of uint16; values 0 to 2300"):
        read_image(tmp_path / "a.ppm")
    scaled = read_image(tmp_path / "a.ppm", ImageRule(scale=(0, 25500)))
    assert scaled.tolist() == (values // 100).tolist()


def test_the_scale_that_a_black_image_is_told_is_one(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(FileError, match=r"Set scale: \[0, 1\]"):
        read_image(tmp_path / "a.png")


def test_overviews_are_no_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.zeros((side, side), np.uint8)) for side in (8, 4, 8)]
    pages[0].save(tmp_path / "overview.tif", save_all=True, append_images=pages[1:2])
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[2:])
    assert [page_count(tmp_path / name) for name in ("overview.tif", "pages.tif")] == [1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull fetches the file"),
        (b"<!DOCTYPE html><html>404", "a web page in the place of the file"),
        (b"text", "no known image format"),
    ],
)
def test_what_a_download_leaves_in_the_place_of_an_image(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(FileError, match=reason):
        read_image(tmp_path / "a.jpg")


def test_two_bands_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="found 2 bands of uint8"):
        TRAIN_IDS.read(raster(tmp_path / "a.tif", np.stack([IDS, IDS * 0])))


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_wide_types_are_read_with_rasterio(dtype: str, tmp_path: Path) -> None:
    values = IDS[None].astype(dtype)
    assert TRAIN_IDS.read(raster(tmp_path / "a.tif", values)).tolist() == EXPECTED
    values[0, 0, 0] = -9999
    assert TRAIN_IDS.read(raster(tmp_path / "b.tif", values, -9999)).tolist()[0] == [255, *EXPECTED[0][1:]]


def test_a_label_on_its_side_is_no_matter_of_exif(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="exchange rows and columns of the label"):
        check_same_size(tmp_path / "a.jpg", (2, 4), tmp_path / "a.png", (4, 2))


def test_names_with_line_breaks() -> None:
    assert NamePattern("{stem}_mask", IMAGE_SUFFIXES).stem_of("a\nb_mask.png") == "a\nb"
