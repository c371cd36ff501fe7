"""``domainbridge report``, and what ``run`` says at its end and ``plan`` about its reasons."""

from pathlib import Path

import pytest
import yaml

from command_line import call
from run_folder import write_run
from tiny_domain import RECIPE


def test_a_report_of_a_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"source-only": 0.6, "r1-distill": 0.8})
    result = call("report", folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(folder / "report.html")
    assert "Adaptation helped on fog" in (folder / "report.html").read_text()
    elsewhere = call("report", folder, "--out", tmp_path / "page.html")
    assert elsewhere.stdout.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text()


def test_a_report_of_two_seeds(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(s), {"source-only": 0.6, "r1-distill": 0.8}, seed=s) for s in (0, 1)]
    result = call("report", *folders, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text()
    assert "2 runs: did they work?" in page
    assert "tiny over seeds 0, 1" in page
    assert page.count("±") > 2
    assert page.count("<article") == 2
    assert not (folders[0] / "report.html").exists()


def test_what_is_no_run_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    result = call("report", tmp_path / "letters")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'letters'}: no results.json, so this is no run folder")
    assert len(result.stderr.splitlines()) == 1
    both = call("report", tmp_path / "letters", tmp_path / "nothing", "--out", tmp_path / "page.html")
    assert both.returncode == 2
    assert "letters: no results.json" in both.stderr
    assert "nothing: no such folder" in both.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"source-only": 0.6, "r1-distill": 0.8})
    (folder / "report.html").write_text("mine")
    result = call("report", folder)
    assert result.returncode == 2
    assert "is no report of domainbridge" in result.stderr
    assert (folder / "report.html").read_text() == "mine"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> tuple[Path, str]:
    """(folder of the recipe, what a run with one round said)."""
    folder = tmp_path_factory.mktemp("outcome")
    tree = {**RECIPE, "data_root": str(generated_data), "rounds": 1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    result = call("run", "tiny.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    return folder, result.stderr


def test_the_end_of_a_run_says_what_came_out(done: tuple[Path, str]) -> None:
    folder, text = done
    end = text[text.index("results: ") :]
    for stage in ("source-only", "r1-cut", "r1-class", "r1-distill"):
        assert stage in end
    assert "gain over source-only" in end
    assert "95 % interval" in end
    assert "Adaptation" in end
    assert "report: runs/tiny/report.html" in end
    assert "model: runs/tiny/model" in end
    assert "next: domainbridge predict runs/tiny/model IMAGES --out segmented --overlay" in end
    assert (folder / "runs/tiny/report.html").exists()
    assert "\x1b" not in text, "no bar where no terminal is"
    assert "r1-distill: step 4 " in text, "lines instead"


def test_the_next_command_works(done: tuple[Path, str], generated_data: Path) -> None:
    folder, text = done
    command = next(line for line in text.splitlines() if line.startswith("next: domainbridge "))
    arguments = command.removeprefix("next: domainbridge ").replace("IMAGES", str(generated_data / "target")).split()
    result = call(*arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert list((folder / "segmented").rglob("*_overlay.jpg"))


def test_a_plan_gives_each_reason_once(done: tuple[Path, str]) -> None:
    folder, _ = done
    new = call("plan", "tiny.yaml", "--out", "runs/new", cwd=folder).stdout
    assert new.count("not done yet") == 1
    assert "source-only, r1-cut, r1-class, r1-prototypes, r1-distill: not done yet" in new
    finished = call("plan", "tiny.yaml", cwd=folder).stdout
    assert finished.count("done") == 5
