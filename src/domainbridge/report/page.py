"""From runs to one HTML page: the sections' values, and the template."""

import shlex
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from domainbridge.printable import printable
from domainbridge.report.bootstrap import LEVEL, RESAMPLES
from domainbridge.report.comparison import StageScore, compare, compare_tests
from domainbridge.report.confusions import Confusions, confusions
from domainbridge.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, charts
from domainbridge.report.disagreement import Disagreement, disagreements
from domainbridge.report.pictures import PictureRow, Pictures, disagreement_row, most_changed
from domainbridge.report.run_facts import BASELINE, RunFacts
from domainbridge.report.seeds import seed_groups
from domainbridge.report.shares import Collapse, TargetShares, collapses, target_shares
from domainbridge.report.verdict import Sentence, verdict

__all__ = ["GENERATOR", "MOST_BYTES", "render"]

GENERATOR = "domainbridge report"
"""In the page's head: a file without it is not ours, and is not replaced."""
MOST_BYTES = 10 * 10**6
_PICTURE_ROWS = 4
"""Rows of pictures of gains and of losses, each, per target of a single run."""
_FEWER_ROWS = (_PICTURE_ROWS, 2, 1, 0)


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """Everything that the page shows of one run.

    Attributes:
        run: the folder's content.
        anchor: of the section in the page.
        sentences: the first screen.
        table: target -> stage -> score.
        charts, shares, confusions, disagreements, pictures: the sections of these names.
        share_warnings: shares that are marked.
        tests: the same of test images.
        label_free: target -> names of its scores without labels.
        has_intervals: whether any score has one.
        repeat, next_command: what to type; the latter is None while the run is not finished.
    """

    run: RunFacts
    anchor: str
    sentences: list[Sentence]
    table: dict[str, dict[str, StageScore]]
    charts: list[Chart]
    shares: list[TargetShares]
    share_warnings: list[Collapse]
    confusions: list[Confusions]
    disagreements: list[tuple[Disagreement, PictureRow | None]]
    pictures: list[Pictures]
    tests: dict[str, dict[str, StageScore]]
    label_free: dict[str, list[str]]
    has_intervals: bool
    repeat: str
    next_command: str | None


def render(runs: list[RunFacts]) -> str:
    """The page of one or several runs, below ``MOST_BYTES``: with fewer pictures where it would be larger."""
    page = ""
    for rows in _FEWER_ROWS:
        page = _rendered(runs, max(rows // len(runs), 1) if rows else 0)
        if len(page.encode("utf-8", "replace")) < MOST_BYTES:
            break
    return page


def _rendered(runs: list[RunFacts], picture_rows: int) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files(__package__) / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    environment.filters |= {
        "percent": _percent,
        "duration": _duration,
        "share": _share,
        "gibibytes": lambda count: f"{count / 2**30:.1f} GiB",
        "color": lambda rgb: "#{:02x}{:02x}{:02x}".format(*rgb),
    }
    sections = [_section(run, number, picture_rows) for number, run in enumerate(runs)]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        groups=seed_groups(runs, [section.table for section in sections]),
        generator=GENERATOR,
        version=metadata.version("domainbridge"),
        style=Markup((files(__package__) / "report.css").read_text(encoding="utf-8")),
        chart={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        baseline=BASELINE,
        level=f"{100 * LEVEL:.0f} %",
        resamples=f"{RESAMPLES:,}",
        settings=_settings,
    )


def _section(run: RunFacts, number: int, picture_rows: int) -> RunSection:
    table, latest = compare(run), run.latest
    shares = [part for target in run.targets if (part := target_shares(run, target)) is not None]
    baseline = BASELINE if run.baseline is not None else None
    pictures, matrices = [], []
    for target in run.targets:
        if latest is not None and (matrix := confusions(latest, target)) is not None:
            matrices.append(matrix)
        if picture_rows and (rows := most_changed(run, target, picture_rows)) is not None:
            pictures.append(rows)
    warnings = [item for part in shares for stage in part.stages for item in collapses(part, stage, baseline)]
    predict = _command("predict", run.folder / "model", "IMAGES", "--out", "segmented", "--overlay")
    return RunSection(
        run=run,
        anchor=f"run-{number + 1}",
        sentences=verdict(run, table),
        table=table,
        charts=charts(run),
        shares=shares,
        share_warnings=warnings,
        confusions=matrices,
        disagreements=[(item, disagreement_row(run, item) if picture_rows else None) for item in disagreements(run)],
        pictures=pictures,
        tests=compare_tests(run),
        label_free=_label_free_names(run),
        has_intervals=any(np.isfinite(score.scores.miou.low) for row in table.values() for score in row.values()),
        repeat=_command("run", run.folder / "recipe.yaml", "--out", f"{run.folder}-again"),
        next_command=predict if run.finished else None,
    )


def _label_free_names(run: RunFacts) -> dict[str, list[str]]:
    """Target -> names of its scores without labels, in the order in which they occur, but the predicted mIoU first."""
    names: dict[str, dict[str, None]] = {}
    for stage in run.stages.values():
        for target, values in stage.label_free.items():
            names.setdefault(target, {}).update(dict.fromkeys(values))
    return {target: sorted(known, key=lambda name: name != "predicted_miou") for target, known in names.items()}


def _command(*parts: str | Path) -> str:
    return shlex.join(["domainbridge", *map(str, parts)])


def _percent(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "–"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.0005 or value == 0 else "< 0.1 %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _settings(run: RunFacts) -> list[tuple[str, str]]:
    """What was run, in a few lines: (key, value)."""
    recipe: dict[str, Any] = run.recipe
    model = recipe.get("model") if isinstance(recipe.get("model"), dict) else {}
    training = recipe.get("training") if isinstance(recipe.get("training"), dict) else {}
    assert isinstance(model, dict)
    assert isinstance(training, dict)
    domains = {
        key: ", ".join(str(d.get("name")) for d in recipe.get(key) or () if isinstance(d, dict))
        for key in ("sources", "targets")
    }
    values = {
        "recipe": run.name,
        "seed": recipe.get("seed"),
        "method": recipe.get("method"),
        **domains,
        "backbone": model.get("backbone"),
        "training": f"{training.get('steps')} steps of {training.get('batch_size')}" if training else None,
        "run folder": str(run.folder),
    }
    return [(key, str(value)) for key, value in values.items() if value not in (None, "")]
