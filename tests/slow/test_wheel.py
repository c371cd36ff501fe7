"""The wheel and the sdist: what is inside, and that an installed wheel works without the repository. 25 s."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import domainbridge

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(wheel, sdist), the wheel built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(PROJECT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_has_everything_that_the_package_reads(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    package = PROJECT / "src/domainbridge"
    ignored = {".pyc"}
    needed = {
        f"domainbridge/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in ignored
    }
    assert needed <= names
    others = {name.split("/")[0] for name in names - needed}
    assert others == {f"domainbridge-{domainbridge.__version__}.dist-info"}, "no tests, no second package"


def test_the_sdist_has_documents_and_no_tests(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "docs/installing.md"} <= names
    assert not [name for name in names if name.startswith(("tests", "runs", ".venv", "shared"))]


def test_the_installed_wheel_works(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own, with the libraries of this one, far from the repository."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = {"base": str(place), "platbase": str(place)}
    libraries = Path(sysconfig.get_path("purelib", vars=paths))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(built[0])]
    subprocess.run(install, check=True, env=environment, cwd=tmp_path)
    lines = [path for path in sys.path if path.endswith("site-packages")]
    (libraries / "of-the-tests.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def call(*arguments: str) -> str:
        command = [str(scripts / "domainbridge"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("--version") == f"domainbridge {domainbridge.__version__}\n", "no commit: not of this checkout"
    assert "quickstart" in call("recipes", "list")
    assert "missing" in call("doctor") or "geotiff" in call("doctor")
    command = [python, "-c", "import domainbridge; print(domainbridge.__file__)"]
    where = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True).stdout
    assert where.startswith(str(place))
    assert "r1-cut" in call("plan", "quickstart")
