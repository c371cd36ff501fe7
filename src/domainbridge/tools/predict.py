"""Segmenting the user's own files: which, with what outcome, by how many processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbridge.data.headers import page_count
from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError, DomainbridgeError, FileError, SomeFilesError, problem_list
from domainbridge.evaluation.exported import ExportedPredictor
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.files import digest
from domainbridge.tools.findings import grouped
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.predict_inputs import Input, Inputs, collect_inputs
from domainbridge.tools.predict_job import Job
from domainbridge.tools.predict_options import CLASS_SHARES, COCO, PredictOptions, endings_of
from domainbridge.tools.predict_outputs import Outputs
from domainbridge.tools.predict_scale import scale_note
from domainbridge.tools.predict_tables import write_class_shares, write_coco

if TYPE_CHECKING:
    from domainbridge.runtime.distributed import Processes

__all__ = ["predict_files"]

Progress = Callable[[float, int], None]
_PAGED = (".tif", ".tiff", ".webp")


def predict_files(
    model: SegmentationModel,
    inputs: Sequence[Path],
    out: Path,
    options: PredictOptions = PredictOptions(),  # noqa: B008 - frozen
    *,
    paths: Sequence[SegmentationModel] = (),
    resume: bool = False,
    processes: "Processes | None" = None,
    report: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the results of images, maps and videos that ``options`` ask for, at least a class map per image.

    The folder ``out`` gets a record of what was written, ``.domainbridge-predict.jsonl``. Files in the record may be
    replaced by a later call; no other file is ever replaced.

    Args:
        model: see there.
        inputs: files, folders, patterns and lists; a folder's inner structure is kept below ``out``.
        out: folder, created when missing.
        options: see there.
        paths: the models of a round's two paths, for ``options.disagreement``.
        resume: leave out inputs whose results are all there, made with the same model and options.
        processes: that share the inputs.
        report: gets a line for each remark: files left out, distinct names, images in windows.
        progress: called with (inputs done, of how many) of this process; parts of a large file count as parts.

    Returns:
        How many inputs all processes segmented.

    Raises:
        InputError: nothing was written if an input is missing or a file that predict did not write would be replaced.
        SomeFilesError: some files cannot be read or do not fit into memory; all others were segmented.
        StorageError: a result cannot be written.
    """
    rank, count = (processes.rank, processes.count) if processes is not None else (0, 1)
    settings = digest([model.identity, [path.identity for path in paths], repr(options)])
    work = _shared(processes, partial(_work, model, inputs, out, options, settings, resume=resume))
    if rank == 0:
        for note in work.notes:
            report(f"note: {note}")
    out.mkdir(parents=True, exist_ok=True)
    mine = work.open[rank::count]
    outputs = Outputs(model, OwnOutputs(out, rank), options, settings)
    job = Job(model, paths, outputs, report, lambda done: progress(done, len(mine)))
    job.carry_out(mine)
    every = [(len(mine), job.failures)] if processes is None else processes.gather((len(mine), job.failures))
    if rank != 0:
        return len(mine) - len(job.failures)
    failures = {path: error for _, some in every for path, error in some.items()}
    failures |= {path: FileError(path, text.partition(": ")[2]) for path, text in work.missing.items()}
    _write_common(out, work.items, model, options, outputs)
    done = sum(number for number, _ in every) - sum(len(some) for _, some in every)
    if failures:
        raise _failure(work, failures, done, resume=resume)
    return done


def _failure(work: "_Work", failures: Mapping[Path, DataError], done: int, *, resume: bool) -> SomeFilesError:
    """What to say when some inputs could not be segmented, in the order of the inputs."""
    ordered = [*(item.path for item in work.items if item.path in failures), *work.missing]
    told = grouped([failures[path] for path in ordered], named=None)
    left = f", {len(work.items) - len(work.open)} were there already" if resume else ""
    title = f"predict: {done} images were segmented, {len(failures)} not{left}"
    return SomeFilesError(problem_list(title, told, limit=100))


@dataclass
class _Work(Inputs):
    """What is to be done: ``open`` of the items, and the first error of all."""

    open: list[Input] = field(default_factory=list)
    error: DomainbridgeError | None = None


def _work(
    model: SegmentationModel,
    inputs: Sequence[Path],
    out: Path,
    options: PredictOptions,
    settings: str,
    *,
    resume: bool,
) -> _Work:
    earlier = OwnOutputs(out)

    def done(item: Input) -> bool:
        return resume and earlier.is_done(item.target, item.path, settings)

    try:
        chosen = collect_inputs(inputs, out, lambda kind: endings_of(kind, options), options.common, done)
    except DomainbridgeError as error:
        return _Work(error=error)
    work = _Work(chosen.items, chosen.notes, chosen.missing, [item for item in chosen.items if not done(item)])
    names = [item.target.relative_to(out).as_posix() for item in work.open]
    others = sum(name in earlier.done for name in names) if resume else 0
    if resume:
        work.notes.append(f"{len(work.items) - len(work.open)} of {len(work.items)} inputs have their results already")
    if others:
        work.notes.append(f"{others} results are of another model, other options or a changed input, and are made anew")
    if isinstance(model, ExportedPredictor) and model.config.remark is not None:
        work.notes.append(model.config.remark)
    if (note := _pages_note([item.path for item in work.open])) is not None:
        work.notes.append(note)
    if (note := scale_note(model, work.open)) is not None:
        work.notes.append(note)
    return work


def _pages_note(paths: Sequence[Path]) -> str | None:
    """A remark about files of several pages or frames, of which the first is segmented."""
    several = [path for path in paths if path.suffix.lower() in _PAGED]
    counts = in_threads(lambda index: page_count(several[index]), range(len(several)))
    paged = [path for path, count in zip(several, counts, strict=True) if count > 1]
    if not paged:
        return None
    return f"files of several pages or frames: {len(paged)}, e.g. {paged[0]}; the first one is segmented"


def _shared(processes: "Processes | None", work: Callable[[], _Work]) -> _Work:
    """The main process's view of the folders, for all.

    Raises:
        InputError: in every process.
    """
    main = processes is None or processes.is_main
    value = work() if main else _Work()
    value = value if processes is None else processes.broadcast(value)
    if value.error is not None:
        raise value.error
    return value


def _write_common(
    out: Path, items: Sequence[Input], model: SegmentationModel, options: PredictOptions, outputs: Outputs
) -> None:
    """The files about all inputs, from the records of all processes."""
    record = OwnOutputs(out)
    names = [item.target.relative_to(out).as_posix() for item in items]
    names = [name for name in names if name in record.done and record.done[name].settings == outputs.settings]
    if CLASS_SHARES in options.common:
        table = partial(
            write_class_shares,
            done=[record.done[name] for name in names],
            classes=model.classes,
            disagreement=options.disagreement,
        )
        outputs.save(out / CLASS_SHARES, table, out)
    if COCO in options.common:
        coco = partial(write_coco, folder=out, names=names, classes=model.classes)
        outputs.save(out / COCO, coco, out)
