"""Small inputs from users' troubles, beside the project: each does what its README says is right."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from case_folder import ABSENT, CASES, copy_of
from domainbridge.cli.app import app
from domainbridge.errors import DomainbridgeError

OK, REFUSED = 0, 2
BINARY = "only one class has pixels; values found: .*a binary mask\\? label_map: "
EXPECTED: dict[str, tuple[int, str]] = {
    # Hidden and system folders are left out, and counted.
    "reports/01a-hidden-folder-source/r": (OK, "files left out below .*: 1 hidden or of the system"),
    "reports/01b-hidden-folder-target/r": (OK, "files left out below .*: 3 hidden or of the system"),
    "reports/01e-predict-hidden-folder/r": (OK, ""),
    "folders/30-stray/recipe": (OK, "left out below s/images: 1 .txt, 5 hidden"),
    "folders/45-target-junk/recipe": (OK, "2 of 4 images look like labels.*t0_mask.png"),
    # Depth and bands are read from the header.
    "reports/02a-rgb16-png-12bit/r": (REFUSED, r"3 bands of uint16; values 0 to 3520; .*scale: \[0, 4095\]"),
    "reports/03a-tif-4band/r": (REFUSED, "4 bands of uint8; which are red, green and blue"),
    "reports/03b-tif-7band/r": (REFUSED, "7 bands of uint8; which are red, green and blue"),
    "folders/13-geotiff-rgbnir/recipe": (REFUSED, "4 bands of uint8; which are red, green and blue"),
    "folders/15-ftw-s2-4x16/recipe": (REFUSED, r"4 bands of uint16; .*Set bands.*Set scale: \["),
    "folders/16-gray16-png/recipe": (REFUSED, r"1 band of uint16; values 0 to 4064; .*scale: \[0, 4095\]"),
    "folders/16-gray16-tif/recipe": (REFUSED, r"1 band of uint16; values 0 to 4064; .*scale: \[0, 4095\]"),
    "folders/17-float-tif/recipe": (REFUSED, "1 band of float32; values 0 to 0.99"),
    # Unlisted values and colors are named, with the nearest listed one; a warning from 5 % on.
    "reports/04a-painted-labels-jpg/r": (
        OK,
        r"warning: .*46.4% .*'#000100' .*nearest listed: '#000000'.*4 labels are JPEG",
    ),
    "reports/04b-gray-jpg-ids/r": (OK, r"warning: .*12.1% .*nearest listed: 0.*4 labels are JPEG"),
    "reports/04g-one-colour-typo/r": (OK, r"warning: .*'#00c800' 11.9% \(nearest listed: '#00c801'\)"),
    "folders/02-cvat/recipe-wrongmap": (OK, r"warning: .*'#34d1b7' 30.3% \(nearest listed: '#34d1b8'\)"),
    "folders/18-jpeg-ids/recipe": (OK, "warning: .*3 labels are JPEG files.*label_nearest: true"),
    "folders/18-jpeg-labels/recipe": (REFUSED, "JPEG changes values.*label_nearest: true"),
    "folders/18-jpeg-labels/recipe-map": (OK, "warning: .*24.9%.*3 labels are JPEG files"),
    "folders/25-soft/recipe": (REFUSED, "label values outside mine"),
    "folders/25-soft/recipe-map": (OK, "warning: .*label_nearest: true"),
    "folders/38-antialias/recipe": (OK, "warning: .*24.5%.*smoothed or resized edges. Set label_nearest: true"),
    "folders/43-unlisted/recipe": (OK, r"warning: .*39.9% .*: 2 39.9% \(nearest listed: 1\)"),
    # Equal channels are one channel.
    "reports/05-labels-rgb-equal-channels/r": (OK, ""),
    "folders/26-rgb-gray-ids/recipe": (OK, ""),
    "folders/26-rgb-gray-ids/recipe-map": (OK, ""),
    "folders/26-rgb-gray-ids/recipe-hex": (OK, ""),
    # Images and labels in one folder.
    "reports/06-images-and-labels-in-one-folder/r": (
        REFUSED,
        r"set image_pattern: '\{stem\}.jpg' and label_pattern: '\{stem\}.png'",
    ),
    "folders/23-suffix/recipe": (
        REFUSED,
        r"set image_pattern: '\{stem\}.jpg' and label_pattern: '\{stem\}_mask.png'",
    ),
    "folders/23-suffix/recipe-labpat": (OK, ""),
    "folders/23-suffix/recipe-pat": (OK, ""),
    "folders/23-suffix/recipe-nostem": (REFUSED, r"expected \{stem\} once"),
    "folders/23-prefix/recipe": (OK, ""),
    "folders/31-dupstem/recipe": (REFUSED, r"have the same stem.*set image_pattern: '\{stem\}.jpeg' or"),
    # Split files as people have them.
    **{f"reports/07{name}/r": (OK, "sources.s: 2 images") for name in ("a-split-utf16", "b-split-backslash")},
    **{f"reports/07{name}/r": (OK, "sources.s: 2 images") for name in ("c-split-image-label-pairs", "d-split-prefix")},
    "reports/07e-split-comment/r": (OK, "sources.s: 2 images"),
    **{f"folders/33-splits/recipe-{name}": (OK, "sources.s: 1 images") for name in ("abs", "csv", "pref", "two_col")},
    **{f"folders/33-splits/recipe-{name}": (OK, "sources.s: 2 images") for name in ("comment", "crlf_bom", "voc")},
    "folders/33-splits/recipe-with_ext": (OK, "sources.s: 2 images"),
    "folders/33-splits/recipe-dup": (OK, "lists f0 more than once"),
    "folders/33-splits/recipe": (OK, ""),
    # Large images.
    "reports/09b-100-megapixels/r": (OK, ""),
    "reports/09a-200-megapixels/r": (OK, "targets.t: 4 images"),
    # Names, orientation, sizes.
    "reports/13a-nfc-image-nfd-label/r": (OK, "sources.s: 4 images"),
    "reports/14a-exif-rotated-label-as-stored/r": (REFUSED, "EXIF.*exif: raw"),
    "folders/22-exif6-rawmask/recipe": (REFUSED, "EXIF.*exif: raw"),
    "folders/22-exif6-upmask/recipe": (OK, ""),
    "reports/30a-tilde-in-root/r": (REFUSED, "no such folder: (?!~)"),
    "reports/30c-recipe-utf16/r": (OK, "sources.s: 4 images"),
    "reports/30d-windows-path/r": (REFUSED, "write folders with / between"),
    "reports/32-labels-quarter-size/r": (REFUSED, "label_resize: true"),
    "folders/21-halfsize/recipe": (REFUSED, "label_resize: true"),
    # Recipes in the user's words.
    "reports/20a-one-class/r": (REFUSED, "needs at least two classes"),
    "reports/20c-yes-no-names/r": (REFUSED, "quotes: 'no'"),
    "folders/07-yolo/recipe": (REFUSED, "needs at least two classes"),
    "folders/02-cvat/recipe-list": (REFUSED, "'#000000'"),
    "folders/02-cvat/recipe-unquoted": (REFUSED, "in quotes: '#000000'"),
    "folders/02-cvat/recipe-typo": (REFUSED, "did you mean 'vegetation'"),
    "folders/02-cvat/recipe-upper": (OK, ""),
    "folders/02-cvat/recipe-map": (OK, ""),
    "folders/02-cvat/recipe-partmap": (
        REFUSED,
        r"only one class .*set label_map: \{'#000000': CLASS, ",
    ),
    "reports/30f-colors-count/r": (REFUSED, "(?s)1 colors for 3 classes.*extra: unknown key"),
    **{f"folders/42-map255-on-01/r-{name}": (REFUSED, "quotes") for name in ("bool", "datename", "numcls")},
    "folders/42-map255-on-01/r-one": (REFUSED, "needs at least two classes"),
    "folders/42-map255-on-01/r-dupcls": (REFUSED, "crack"),
    "folders/42-map255-on-01/r-dsvoc": (REFUSED, "'voc' is known"),
    "folders/42-map255-on-01/r-labelkey": (REFUSED, "did you mean 'labels'"),
    "folders/42-map255-on-01/r-unknownkey": (REFUSED, "did you mean 'images'"),
    "folders/42-map255-on-01/r-spacename": (REFUSED, "my-run"),
    "folders/42-map255-on-01/r-list": (REFUSED, "label_map"),
    "folders/42-map255-on-01/r-hexint": (OK, ""),
    "folders/42-map255-on-01/r-ids": (OK, ""),
    "folders/42-map255-on-01/r-inverted": (OK, ""),
    "folders/42-map255-on-01/r-star": (OK, ""),
    "folders/42-map255-on-01/r-range": (REFUSED, "only one class has pixels; values found: 0 70%, 1 30%"),
    "folders/42-map255-on-01/r-dictcls": (REFUSED, "'vegetation' of 255: expected a class of mine"),
    "folders/42-map255-on-01/r-excl": (REFUSED, "now called 'exclude_files'"),
    "folders/42-map255-on-01/r-absroot": (REFUSED, "no such folder: .*33-splits/s/images"),
    "folders/42-map255-on-01/r-homeroot": (REFUSED, "no such folder: (?!~)"),
    # Annotation formats.
    "folders/03-labelme/recipe": (OK, "read as LabelMe"),
    "folders/05-coco-inst/recipe": (OK, "read as COCO"),
    "folders/05-coco-inst/recipe-folder": (OK, "read as COCO"),
    "folders/07-yolo/recipe2": (OK, "read as YOLO"),
    "folders/09-labelstudio/recipe": (OK, "read as Label Studio masks"),
    "folders/02-cvat/recipe": (OK, "labelmap"),
    "folders/06-coco-pan/recipe": (REFUSED, "categories"),
    "folders/06-coco-pan/recipe-2ch": (REFUSED, "labels are colors, without label_map.*'#b80000' 48%"),
    "folders/03-labelme/recipe-naive": (OK, "read as LabelMe"),
    "reports/29-labelme-json/r": (REFUSED, "LabelMe"),
    "folders/04-npy/recipe": (OK, ""),
    # Binary masks.
    "folders/10-drive/recipe": (OK, ""),
    "folders/10-drive/recipe-stem": (OK, ""),
    "folders/10-drive/recipe-nomap": (REFUSED, BINARY + r"\{0: background, 255: vessel\}"),
    "folders/11-membrane/recipe": (REFUSED, BINARY + r"\{0: membrane, 255: cell\}"),
    "folders/11-membrane/recipe-map": (OK, ""),
    "folders/11-membrane/recipe-map1": (REFUSED, BINARY + r"\{0: membrane, 255: cell\}"),
    "folders/10-drive/recipe-png": (OK, ""),
    "folders/12-chase-1bit/recipe": (OK, ""),
    "folders/12-chase-1bit/recipe-map": (OK, ""),
    "folders/12-chase-1bit/recipe-map1": (OK, ""),
    "folders/42-map255-on-01/recipe": (REFUSED, BINARY + r"\{0: background, 1: vegetation\}"),
    "folders/46-val-nomap/recipe": (REFUSED, BINARY + r"\{0: membrane, 255: cell\}"),
    "folders/39-all255/recipe": (REFUSED, "no pixel of any label has a class; values found: 255 100%"),
    # What other tests run (test_case_commands.py), and here at least pass.
    **{
        f"reports/{name}/r": (OK, "")
        for name in ("08a-label-edited-same-size", "11j-hrnet", "11l-hrnet-crop-80", "12-no-fcntl-windows")
    },
    **{f"reports/{name}/r": (OK, "") for name in ("10-memory-of-predict", "34-own-model-as-weights")},
    # What must be told, and what works.
    "folders/29-palette-order/recipe": (OK, "warning: .*palettes differ from file to file"),
    "folders/29-palette-order/recipe-idx": (OK, "warning: .*palettes differ from file to file"),
    "folders/29-palette-order/recipe-map": (OK, ""),
    "folders/50-doc-farm/mine": (OK, "warning: .*smaller than the crop"),
    "folders/50-doc-farm/mine-small": (OK, "sources.rendered: 2 images"),
    "folders/34-multipage/recipe": (OK, "several pages or frames"),
    "reports/31a-dangling-link-hides-the-rest/r": (REFUSED, "(?s)images without label.*unreadable or truncated"),
    "reports/31b-other-endings-left-out/r": (OK, "left out below"),
    **{f"folders/{name}/recipe": (OK, "") for name in ("01-voc", "24-upper", "28-lab16", "35-cmyk", "36-modes")},
    **{f"folders/{name}/recipe": (OK, "") for name in ("28-lab16-ade", "28-lab32tif", "20-one-based-4")},
    "folders/20-gaps/recipe": (REFUSED, "label values outside mine: 33, 21, 7"),
    "folders/20-gaps/recipe-map": (OK, ""),
    "folders/37-video/recipe": (REFUSED, "clip.mp4 is a file"),
    "folders/44-zip/recipe": (REFUSED, "images.zip is a file"),
    "folders/44-zip/recipe-gz": (REFUSED, "images.tar.gz is a file; expected a folder, or .tar archives"),
    "folders/37-onefile/recipe": (REFUSED, "f0.jpg is a file; expected a folder"),
    "folders/41-order-only/recipe": (REFUSED, "images without label: 3 of 3"),
}
"""Recipe of a case -> exit code, and what `data check` says."""

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=ABSENT)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(CASES, tmp_path_factory.mktemp("cases") / "cases")


def test_no_recipe_is_left_out() -> None:
    recipes = {path.relative_to(CASES).with_suffix("").as_posix() for path in CASES.rglob("*.yaml")}
    not_a_recipe = "folders/07-yolo/yolo/data"  # YOLO's own
    assert sorted(recipes - set(EXPECTED)) == [not_a_recipe]


@pytest.mark.parametrize("name", EXPECTED)
def test_data_check(name: str, cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = cases / f"{name}.yaml"
    monkeypatch.chdir(recipe.parent)
    result = CliRunner().invoke(app, ["data", "check", recipe.name])
    output = result.output
    code = result.exit_code
    if isinstance(result.exception, DomainbridgeError):
        output, code = f"{output}\nerror: {result.exception}", result.exception.exit_code
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    expected_code, text = EXPECTED[name]
    assert code == expected_code, output
    assert re.search(text, output), output
