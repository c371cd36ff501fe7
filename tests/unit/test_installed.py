"""Version, commit, and what the extras of an installation lack."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import domainbridge
from domainbridge import installed
from domainbridge.installed import extras, package_commit, version_text


@pytest.fixture
def distribution(tmp_path: Path) -> metadata.Distribution:
    """An installation that declares extras: complete, absent, too old, and for another system."""
    lines = [
        *("Metadata-Version: 2.4", "Name: domainbridge", "Version: 9", "Requires-Dist: numpy"),
        *("Provides-Extra: geotiff", 'Requires-Dist: pytest>=1; extra == "geotiff"'),
        *("Provides-Extra: hub", 'Requires-Dist: no-such-package-here>=2,<3; extra == "hub"'),
        *("Provides-Extra: wandb", 'Requires-Dist: pytest>=9000; extra == "wandb"'),
        *("Provides-Extra: other", "Requires-Dist: absent; sys_platform == 'nowhere' and extra == 'other'"),
    ]
    folder = tmp_path / "domainbridge-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    return metadata.Distribution.at(folder)


def test_each_extra_has_what_is_installed_and_what_is_missing(distribution: metadata.Distribution) -> None:
    listed = {extra.name: extra for extra in extras(distribution)}
    assert list(listed) == ["geotiff", "hub", "other", "wandb"]
    assert listed["geotiff"].versions == {"pytest": pytest.__version__}
    assert listed["geotiff"].purpose == "GeoTIFF images and images of many bands"
    assert listed["hub"].missing == ("no-such-package-here<3,>=2",)
    assert listed["wandb"].missing == ("pytest>=9000",), "a version that is too old counts as missing"
    assert listed["other"].missing == (), "a requirement of another system is none here"


def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src/domainbridge"
    package.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    monkeypatch.setattr(installed, "_PACKAGE", package)
    assert package_commit() is None
    assert version_text("9") == "domainbridge 9"
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = package_commit()
    assert commit is not None
    assert len(commit) == 40
    assert version_text("9") == f"domainbridge 9 (commit {commit[:12]})"


def test_the_commit_that_pip_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "domainbridge-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: domainbridge\nVersion: 9\n")
    (folder / "direct_url.json").write_text('{"url": "x", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}')
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.Distribution.at(folder))
    monkeypatch.setattr(installed, "_PACKAGE", tmp_path / "domainbridge")
    assert package_commit() == "abc123"
    monkeypatch.setattr(installed, "_PACKAGE", tmp_path / "elsewhere/src/domainbridge")
    assert package_commit() is None, "the record is that of another copy of the package"


def test_the_option_version() -> None:
    """Without torch: the answer comes at once."""
    code = "import sys; sys.argv[1:] = ['--version']; from domainbridge.cli.app import run_app\ntry: run_app()\n"
    code += "finally: print('torch' in sys.modules)"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[0].startswith(f"domainbridge {domainbridge.__version__}")
    assert lines[1] == "False"
