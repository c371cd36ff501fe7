"""Changed bits are noticed: fingerprints of data, checksums of tensor files, damaged JSON; locks without fcntl."""

import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from domainbridge.data import fingerprint
from domainbridge.data.dataset import FileDataset
from domainbridge.data.digests import file_digests, file_states
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import DataError, ModelError, RunFolderError
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, load_model, publish_model, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.run import lock as locks
from domainbridge.run.callbacks.jsonl import read_metrics, seconds_per_step
from domainbridge.run.lock import FolderLock
from domainbridge.run.prototype_files import load_prototypes, save_prototypes
from domainbridge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

TINY = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
CONFIG = ModelConfig(TINY, "abc", ("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), None)
FILES = [HealthCheck.function_scoped_fixture]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOMAINBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_set(folder: Path, count: int = 4, size: int = 100) -> FileDataset:
    images, labels = [], []
    for number in range(count):
        for kind, paths in (("images", images), ("labels", labels)):
            path = folder / kind / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([number]) * size)
            paths.append(path)
    return FileDataset("here", tuple(images), tuple(labels))


def age(dataset: FileDataset) -> None:
    """As if the files were written a minute ago: their digests are kept. The time of the last change cannot be set."""
    for path in (*dataset.images, *(dataset.labels or ())):
        os.utime(path, (time.time() - 60, time.time() - 60))


class TestFingerprintOfContents:
    @pytest.mark.parametrize("kind", ["images", "labels"])
    def test_an_edit_of_the_same_size_counts_also_with_its_old_times(
        self, kind: str, tmp_path: Path, cache: Path
    ) -> None:
        files = write_set(tmp_path / "set")
        before = files_fingerprint(files)
        path = tmp_path / "set" / kind / "2.bin"
        status = path.stat()
        path.write_bytes(b"\xff" + path.read_bytes()[1:])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert files_fingerprint(replace(files)) != before

    def test_a_kept_digest_is_not_believed_after_an_edit(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("domainbridge.data.digests.CHANGING_NS", 0)
        files = write_set(tmp_path / "set")
        age(files)
        before = files_fingerprint(files)
        assert list((cache / "digests").glob("*.json"))
        path = files.labels[1] if files.labels else Path()
        status = path.stat()
        path.write_bytes(b"\xff" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert files_fingerprint(replace(files)) != before

    def test_times_copies_and_moves_do_not_count(self, tmp_path: Path, cache: Path) -> None:
        files = write_set(tmp_path / "set")
        before = files_fingerprint(files)
        age(files)
        assert files_fingerprint(replace(files)) == before
        (tmp_path / "set").rename(tmp_path / "moved")
        assert files_fingerprint(write_set(tmp_path / "copy")) == before
        moved = FileDataset(
            "here",
            tuple(tmp_path / "moved/images" / path.name for path in files.images),
            tuple(tmp_path / "moved/labels" / path.name for path in files.images),
        )
        assert files_fingerprint(moved) == before

    @pytest.mark.parametrize("state", ["absent", "no JSON", "wrong digests", "read-only"])
    def test_the_cache_changes_no_result(
        self, state: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("domainbridge.data.digests.CHANGING_NS", 0)
        files = write_set(tmp_path / "set")
        age(files)
        before = files_fingerprint(files)
        (kept,) = (cache / "digests").glob("*.json")
        if state == "absent":
            kept.unlink()
        elif state == "no JSON":
            kept.write_bytes(b"\xff{")
        elif state == "wrong digests":
            kept.write_text(kept.read_text().replace('", 2', 'f", 2').replace('"0', '"1'))
        else:
            monkeypatch.setenv("DOMAINBRIDGE_CACHE", "/proc/nowhere")
        assert files_fingerprint(replace(files)) == before

    def test_a_young_file_is_read_again(self, tmp_path: Path, cache: Path) -> None:
        files = write_set(tmp_path / "set")
        files_fingerprint(files)
        assert not (cache / "digests").exists()

    def test_a_kept_digest_saves_reading(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("domainbridge.data.digests.CHANGING_NS", 0)
        files = write_set(tmp_path / "set")
        age(files)
        before = files_fingerprint(files)
        monkeypatch.setattr("domainbridge.data.digests._digest", lambda *_: pytest.fail("read again"))
        assert files_fingerprint(replace(files)) == before

    def test_of_many_large_images_the_ends_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fingerprint, "_SMALL", 1000)
        monkeypatch.setattr(fingerprint, "_LARGE_TOGETHER", 50_000)
        files = replace(write_set(tmp_path / "set", size=20_000), labels=None)
        before = files_fingerprint(files)

        def after(position: int) -> str:
            content = bytearray(files.images[1].read_bytes())
            content[position] ^= 1
            files.images[1].write_bytes(content)
            return files_fingerprint(replace(files))

        assert after(10_000) == before
        assert after(-1) != before

    def test_an_entry_of_an_annotation_file_has_the_digest_of_the_file(self, tmp_path: Path) -> None:
        annotations = tmp_path / "annotations.json"
        annotations.write_text("{}")
        paths = [f"{annotations}/{number}.jpg" for number in range(3)]
        states = file_states("here", paths)
        one, *others = file_digests("here", paths, states, [True] * 3)
        assert others == [one, one]
        annotations.write_text("[]")
        assert file_digests("here", paths, file_states("here", paths), [True] * 3)[0] != one

    def test_an_edited_member_of_an_archive_counts(self, tmp_path: Path) -> None:
        def packed(content: bytes) -> str:
            (tmp_path / "a.png").write_bytes(content)
            with tarfile.open(tmp_path / "set.tar", "w") as archive:
                archive.add(tmp_path / "a.png", "a.png")
            return files_fingerprint(FileDataset("here", (tmp_path / "set.tar/a.png",)))

        assert packed(b"one") == packed(b"one") != packed(b"two")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"a\.png is no regular file"):
            files_fingerprint(FileDataset("here", (tmp_path / "a.png",)))


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, build_segmenter(TINY), CONFIG)
    return folder


@pytest.fixture
def edited(model: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to damage."""
    publish_model(model, tmp_path / "model")
    return tmp_path / "model"


class TestChecksums:
    @given(bit=st.integers(0, 10**9))
    @settings(max_examples=200, derandomize=True, suppress_health_check=FILES)
    def test_a_flipped_bit_of_a_checkpoint(self, bit: int, tmp_path: Path) -> None:
        path = tmp_path / "state.pt"
        save_checkpoint(path, Checkpoint(3, "abc", {"w": torch.arange(6.0)}, {}, {"state": {}}, 1.5))
        path.write_bytes(flipped(path.read_bytes(), bit))
        with pytest.raises(RunFolderError, match=r"state\.pt: .*delete it to start the stage again"):
            load_checkpoint(path)

    @given(length=st.integers(0, 2200))
    @settings(max_examples=40, derandomize=True, suppress_health_check=FILES)
    def test_a_checkpoint_that_is_cut_off(self, length: int, tmp_path: Path) -> None:
        path = tmp_path / "state.pt"
        save_checkpoint(path, Checkpoint(3, "abc", {"w": torch.arange(6.0)}, {}, {"state": {}}, 1.5))
        content = path.read_bytes()
        path.write_bytes(content[: min(length, len(content) - 1)])
        with pytest.raises(RunFolderError, match=r"state\.pt: not a checkpoint|damaged"):
            load_checkpoint(path)

    def test_a_checkpoint_is_a_plain_torch_file(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "state.pt", Checkpoint(3, "abc", {"w": torch.ones(2)}, {}, {}, 1.5))
        assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3

    def test_a_checkpoint_of_others_is_refused(self, tmp_path: Path) -> None:
        torch.save({"step": -3}, tmp_path / "state.pt")
        with pytest.raises(RunFolderError, match="not a checkpoint with a checksum"):
            load_checkpoint(tmp_path / "state.pt")

    @pytest.mark.parametrize("step", [-3, "three", True, None])
    def test_a_step_that_is_none(self, step: object, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "state.pt", Checkpoint(step, "abc", {}, {}, {}, 1.5))  # type: ignore[arg-type]
        with pytest.raises(RunFolderError, match=r"not a checkpoint .step"):
            load_checkpoint(tmp_path / "state.pt")

    @given(bit=st.integers(0, 10**9))
    @settings(max_examples=60, derandomize=True, suppress_health_check=FILES)
    def test_a_flipped_bit_of_a_model(self, bit: int, model: Path, tmp_path: Path) -> None:
        publish_model(model, tmp_path / "model")
        path = tmp_path / "model/model.safetensors"
        path.write_bytes(flipped(path.read_bytes(), bit))
        with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
            load_model(tmp_path / "model")
        with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
            publish_model(tmp_path / "model", tmp_path / "published")
        assert not (tmp_path / "published").exists()

    def test_a_damaged_copy_is_published_again(self, model: Path, edited: Path) -> None:
        (edited / "model.safetensors").write_bytes(b"x")
        publish_model(model, edited)
        assert (edited / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()

    def test_a_model_folder_without_checksum_still_loads(self, edited: Path) -> None:
        description = json.loads((edited / "config.json").read_text())
        del description["sha256"]
        (edited / "config.json").write_text(json.dumps(description))
        assert load_model(edited)[1] == CONFIG

    @given(bit=st.integers(0, 10**9))
    @settings(max_examples=200, derandomize=True, suppress_health_check=FILES)
    def test_a_flipped_bit_of_prototypes_gives_no_other_prototypes(self, bit: int, tmp_path: Path) -> None:
        bank = PrototypeBank(torch.rand(3, 4, generator=torch.manual_seed(0)), torch.ones(3))
        save_prototypes(tmp_path, "r1-cut", bank)
        path = tmp_path / "r1-cut.safetensors"
        path.write_bytes(flipped(path.read_bytes(), bit))
        with pytest.raises(RunFolderError, match=r"r1-cut\.safetensors"):
            load_prototypes(tmp_path, "r1-cut", torch.device("cpu"))

    def test_missing_prototypes_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match=r"r1-cut\.safetensors: cannot be read as prototypes"):
            load_prototypes(tmp_path, "r1-cut", torch.device("cpu"))


class TestModelFolders:
    def without_checksum(self, folder: Path, **weights: torch.Tensor) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, **weights}, folder / "model.safetensors")
        self.edit(folder, ("sha256",), None)

    def edit(self, folder: Path, place: tuple[str, ...], value: object) -> None:
        description = json.loads((folder / "config.json").read_text())
        section = description
        for name in place[:-1]:
            section = section[name]
        section[place[-1]] = value
        (folder / "config.json").write_text(json.dumps(description))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (torch.full((3,), torch.nan), "3 of 3 values are NaN or infinite"),
            (torch.tensor([0.0, torch.inf, 0.0]), "1 of 3 values are NaN or infinite"),
            (torch.zeros(3, dtype=torch.int8), "torch.int8, expected floating point"),
            (torch.zeros(3, dtype=torch.complex64), "torch.complex64, expected floating point"),
        ],
    )
    def test_weights_that_are_none(self, value: torch.Tensor, message: str, edited: Path) -> None:
        self.without_checksum(edited, **{"head.classifier.bias": value})
        with pytest.raises(ModelError, match=rf"head\.classifier\.bias: {message}"):
            load_model(edited)

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (("spec", "head", "channels"), 10**6, "another architecture"),
            (("spec", "head", "channels"), 10**30, "describes no network|another architecture"),
            (("spec", "head", "dilations"), [], "0 dilations"),
            (("spec", "head", "dilations"), [1] * 5000, "5000 dilations"),
            (("spec", "head", "kind"), "other", "head 'other' is unknown"),
            (("spec", "head", "kind"), ["deeplabv2"], "unknown|not a model description"),
            (("spec", "head", "dropout"), "x", "dropout 'x'"),
            (("spec", "head", "dropout"), 7, "dropout 7"),
            (("spec", "head"), [], "not a model description"),
            (("resize",), [0, 0, True, None], "whole numbers from 1"),
            (("resize",), [-5, 5, True, None], "whole numbers from 1"),
            (("resize",), [100_000, 100_000, True, None], "whole numbers from 1"),
            (("resize",), "64x48", "expected .width, height"),
            (("resize",), [64, 48], "expected .width, height"),
        ],
    )
    def test_descriptions_that_cannot_be(
        self, place: tuple[str, ...], value: object, message: str, edited: Path
    ) -> None:
        self.edit(edited, place, value)
        with pytest.raises(ModelError, match=message):
            load_model(edited)

    def test_a_description_of_brackets(self, edited: Path) -> None:
        (edited / "config.json").write_text("[" * 100_000)
        with pytest.raises(ModelError, match="not a model description"):
            load_model(edited)


class TestMetrics:
    def test_damaged_lines_are_left_out(self, tmp_path: Path) -> None:
        lines = [b'{"step": 1, "seconds": 2}', b"\xff\xfe", b'{"step": "x", "seconds": 9}', b"{}", b"[" * 99_999]
        lines += [b'{"step": true}', b'{"step": 2, "seconds": "x"}', b'{"step": 3, "seconds": 4}', b'{"st']
        (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
        assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
        assert seconds_per_step(tmp_path) == 3


class TestLocks:
    @pytest.fixture(params=["flock", "pid"])
    def kind(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "pid":
            monkeypatch.setattr(locks, "fcntl", None)
        elif locks.fcntl is None:
            pytest.skip("no fcntl on this system")
        return str(request.param)

    def test_one_at_a_time(self, kind: str, tmp_path: Path) -> None:
        second = FolderLock(tmp_path, print)
        with FolderLock(tmp_path, print), pytest.raises(RunFolderError, match="another process is running in it"):
            second.take(tmp_path)
        with second:
            pass

    def test_stages_of_one_folder_are_locked_one_by_one(self, tmp_path: Path) -> None:
        """`run --only`: once the folder is arranged, other stages may run in it; a whole run may not."""
        with FolderLock(tmp_path, print, "r1-cut") as first:
            assert first.alone
            first.share()
            with FolderLock(tmp_path, print, "r1-class") as second:
                assert not second.alone
                for stage, message in ((None, f"{tmp_path}: another process"), ("r1-cut", "stage r1-cut of")):
                    with pytest.raises(RunFolderError, match=message), FolderLock(tmp_path, print, stage):
                        pytest.fail("locked twice")
                with first.writing_results():
                    pass
        with FolderLock(tmp_path, print) as later:
            assert later.alone

    def test_a_start_that_arranges_the_folder_is_waited_for(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(1) as pool:
            with FolderLock(tmp_path, print, "r1-cut") as first:
                second = FolderLock(tmp_path, print, "r1-class")
                entering = pool.submit(second.__enter__)
                time.sleep(0.5)
                assert not entering.done()
                first.share()
                assert not entering.result(timeout=30).alone
            second.__exit__(None, None, None)

    def test_a_moved_folder_stays_locked_and_its_successor_too(self, kind: str, tmp_path: Path) -> None:
        old, new, kept = tmp_path / "run", tmp_path / "new", tmp_path / "run.1"
        old.mkdir()
        new.mkdir()
        with FolderLock(old, print) as lock:
            lock.take(new)
            old.rename(kept)
            lock.moved(old, kept)
            new.rename(old)
            lock.moved(new, old)
            for folder in (old, kept):
                with pytest.raises(RunFolderError, match="another process"), FolderLock(folder, print):
                    pytest.fail("locked twice")
        for folder in (old, kept):
            with FolderLock(folder, print):
                pass

    def test_the_lock_of_an_ended_process_counts_for_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import socket
        import subprocess

        monkeypatch.setattr(locks, "fcntl", None)
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        (tmp_path / ".lock.pid").write_text(json.dumps({"pid": ended.pid, "host": socket.gethostname()}))
        with FolderLock(tmp_path, print):
            pass
        (tmp_path / ".lock.pid").write_text(json.dumps({"pid": ended.pid, "host": "another machine"}))
        with pytest.raises(RunFolderError, match="If no run is, delete"), FolderLock(tmp_path, print):
            pytest.fail("another machine's processes are not known")

    @pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
    def test_a_disk_without_locks_is_noted(self, number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import errno

        fcntl = pytest.importorskip("fcntl")

        def failing(*_: object) -> None:
            raise OSError(getattr(errno, number), "no locks")

        monkeypatch.setattr(fcntl, "flock", failing)
        messages: list[str] = []
        with FolderLock(tmp_path, messages.append):
            pass
        assert len(messages) == 1
        assert "this disk has no locks" in messages[0]


def test_counts_of_classes_that_are_damaged_are_made_again(recipe_tree: dict, tmp_path: Path) -> None:
    from domainbridge.build.batches import rare_classes
    from domainbridge.build.datasets import open_data
    from domainbridge.build.recipe import parse_recipe

    recipe = parse_recipe({**recipe_tree, "sampling": {"rare_classes": True}})
    data, path = open_data(recipe), tmp_path / "class-counts.npz"
    rare_classes(recipe, data, path)
    good = path.read_bytes()
    fingerprint = str(np.load(path)["fingerprint"])
    np.savez_compressed(tmp_path / "other.npz", counts=np.zeros((2, 2)), fingerprint=np.array(fingerprint))
    damaged = [b"", good[:100], good[:-30], b"text", flipped(good, 8 * 60 + 1), (tmp_path / "other.npz").read_bytes()]
    for content in damaged:
        path.write_bytes(content)
        rare_classes(recipe, data, path)
        assert path.read_bytes() == good
