"""Paths of a recipe: relative ones, and what is shipped with the package."""

from pathlib import Path

from domainbridge.build.paths import below


def test_relative_absolute_and_shipped_paths(tmp_path: Path) -> None:
    assert below(tmp_path, "images", "key") == tmp_path / "images"
    assert below(Path("/elsewhere"), str(tmp_path), "key") == tmp_path
    assert below(tmp_path, "package:quickstart", "key").is_dir()
    assert below(tmp_path, "package:recipes", "key") == below(Path("/elsewhere"), "package:recipes", "key")
