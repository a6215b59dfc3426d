"""The folder of a run's checkpoints: which is the latest, what stays, and what a fault leaves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.errors import CheckpointError
from hvdtrain.files import folder_whole

from .saving import save


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tear(path: Path) -> None:
    (path / "tensors.pt").write_bytes(b"torn")


def test_a_checkpoint_is_two_files_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints")
    assert names(path) == ["manifest.json", "tensors.pt"]
    assert list(path.parent.iterdir()) == [path]


def test_the_latest_has_the_most_images(tmp_path: Path) -> None:
    for images_seen in (1000, 99, 20000, 500):
        save(tmp_path, images_seen)
    found = store.latest(tmp_path)
    assert found.checkpoint is not None
    assert (found.checkpoint.path, found.broken) == (tmp_path / "images-000000020000", ())
    assert store.paths(tmp_path)[-1] == tmp_path / "images-000000000099"


def test_without_checkpoints_there_is_no_latest(tmp_path: Path) -> None:
    assert store.latest(tmp_path / "none").checkpoint is None
    assert store.latest(tmp_path).checkpoint is None


def test_a_broken_latest_gives_way_to_the_one_before_and_is_put_aside(tmp_path: Path) -> None:
    whole = save(tmp_path, 10)
    for images_seen in (20, 30):
        tear(save(tmp_path, images_seen))
    found = store.latest(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.path == whole
    assert [str(error).partition(" is torn")[0] for error in found.broken] == [
        f"{tmp_path}/images-000000000030/tensors.pt",
        f"{tmp_path}/images-000000000020/tensors.pt",
    ]
    assert names(tmp_path) == [*("broken-images-000000000020", "broken-images-000000000030", "images-000000000010")]
    assert store.latest(tmp_path).broken == ()  # nothing stumbles over them twice


def test_where_none_is_whole_nothing_is_touched_and_nothing_begins_anew(tmp_path: Path) -> None:
    for images_seen in (20, 30):
        tear(save(tmp_path, images_seen))
    with pytest.raises(CheckpointError, match=f"none of the 2 checkpoints in {tmp_path} is whole: .*30/tensors.pt"):
        store.latest(tmp_path)
    assert names(tmp_path) == ["images-000000000020", "images-000000000030"]


def test_what_a_killed_process_left_half_is_swept_and_never_the_latest(tmp_path: Path) -> None:
    whole = save(tmp_path, 10)
    half = tmp_path / ".images-000000000020.77.tmp"
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    found = store.latest(tmp_path).checkpoint
    assert found is not None
    assert found.path == whole
    store.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]


def test_the_same_images_give_way_only_to_news_of_their_accuracy(tmp_path: Path) -> None:
    """As of an evaluation that a run was preempted in, and that was made up for when it came back."""
    path = save(tmp_path, 10)
    began = (path / "manifest.json").stat().st_ino
    assert save(tmp_path, 10) == path
    assert (path / "manifest.json").stat().st_ino == began
    save(tmp_path, 10, top1=0.5)
    assert form.read(path).manifest.top1 == 0.5
    for top1 in (None, 0.25):
        save(tmp_path, 10, top1=top1)
        assert form.read(path).manifest.top1 == 0.5
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_was_giving_way_when_the_process_was_killed_is_there(tmp_path: Path) -> None:
    path = save(tmp_path, 10)
    path.rename(tmp_path / f".{path.name}.old")
    found = store.latest(tmp_path).checkpoint
    assert found
    assert found.path == path
    save(tmp_path, 20).rename(tmp_path / f".{path.name}.old")  # and one whose successor had come
    store.latest(tmp_path)
    store.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_one_that_may_not_be_read_is_not_taken_for_broken(tmp_path: Path) -> None:
    """Else a wrong umask would cost the newest state."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    save(tmp_path, 10)
    (save(tmp_path, 20) / "tensors.pt").chmod(0)
    program = (
        "import os, sys, pathlib\n"
        "from hvdtrain.checkpoint import store\n"
        "os.setuid(65534)\n"
        "store.latest(pathlib.Path(sys.argv[1]))"
    )
    ran = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert "CheckpointError" in ran.stderr
    assert "20/tensors.pt cannot be read: Permission denied" in ran.stderr
    assert len(names(tmp_path)) == 2


def test_saving_the_same_images_again_leaves_the_first(tmp_path: Path) -> None:
    first = save(tmp_path)
    before = (first / "tensors.pt").read_bytes()
    assert save(tmp_path, model={"w": torch.zeros(9)}) == first
    assert (first / "tensors.pt").read_bytes() == before


def test_saving_where_a_broken_one_is_replaces_it(tmp_path: Path) -> None:
    tear(save(tmp_path))
    assert form.read(save(tmp_path)).manifest.images_seen == 640
    assert names(tmp_path) == ["broken-images-000000000640", "images-000000000640"]


@pytest.mark.parametrize("when", ["begin", "tensors", "manifest"])
def test_a_save_that_fails_midway_leaves_no_checkpoint(when: str, tmp_path: Path) -> None:
    """As `save` does it, ended after none, one or both of the files."""
    path = tmp_path / "images-000000000001"
    with pytest.raises(KeyboardInterrupt), folder_whole(path) as temporary:
        for name in {"begin": [], "tensors": ["tensors.pt"], "manifest": ["tensors.pt", "manifest.json"]}[when]:
            (temporary / name).write_bytes(b"{}")
        assert not path.exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        save(tmp_path, model=lambda: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("accuracies", "keep", "stay"),
    [
        ([None] * 5, 2, [4, 5]),
        ([0.1, 0.9, 0.2, 0.3, 0.4], 2, [2, 4, 5]),
        ([0.9, 0.1, 0.9, 0.2, 0.3], 1, [3, 5]),  # of equals the later one
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, [5]),
        ([0.1, 0.2], 3, [1, 2]),
    ],
)
def test_the_last_ones_and_the_best_stay(
    accuracies: list[float | None], keep: int, stay: list[int], tmp_path: Path
) -> None:
    for images_seen, top1 in enumerate(accuracies, start=1):
        save(tmp_path, images_seen, top1)
    store.prune(tmp_path, keep)
    assert names(tmp_path) == [f"images-{images_seen:012}" for images_seen in stay]


def test_broken_ones_do_not_count_among_the_last(tmp_path: Path) -> None:
    """Else a row of torn saves would push out the last whole one."""
    for images_seen in range(1, 6):
        path = save(tmp_path, images_seen)
        if images_seen > 2:
            (path / "manifest.json").unlink()
    store.prune(tmp_path, 1)
    assert names(tmp_path) == [f"images-{images_seen:012}" for images_seen in (2, 3, 4, 5)]


def test_without_room_a_save_says_how_much_is_missing(tmp_path: Path) -> None:
    store.check_space(tmp_path, 1000)
    much = shutil.disk_usage(tmp_path).free
    with pytest.raises(CheckpointError, match=r"has no room for a checkpoint: [\d,]+ MB free, it takes [\d,]+ MB"):
        store.check_space(tmp_path, much)


def test_where_nothing_can_be_written_the_cause_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="images-000000000640 cannot be saved: Not a directory"):
        save(tmp_path / "file")
