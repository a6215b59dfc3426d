"""Every kind of bad file is found by name, sound ones are not, and training leaves out just the bad."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvdtrain.data import diagnose, pack, quarantine, scan, verify
from hvdtrain.data.diagnose import KINDS
from hvdtrain.data.verify import Finding, Report
from hvdtrain.errors import ConfigError, DataError

from . import bad_files

Written = Callable[..., Path]


def picture(seed: int = 0, *, mode: str = "RGB", height: int = 64, width: int = 80) -> Image.Image:
    """Noise that is smooth enough for a decoder."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def look(folder: Path, **options: int) -> Report:
    return verify.verify(folder, cache=folder / "cache", workers=2, **options)


def found(report: Report) -> dict[str, str]:
    """Name -> its one kind."""
    names = [finding.name for finding in report.findings]
    assert len(names) == len(set(names))
    return {finding.name: finding.kind for finding in report.findings}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two classes of five and two images; nothing is wrong with any."""
    for i in range(10):
        put(tmp_path / "train" / "ab"[i % 2] / f"{i}.JPEG", encoded(picture(i)))
    for i in range(4):
        put(tmp_path / "val" / "ab"[i % 2] / f"{i}.JPEG", encoded(picture(10 + i)))
    return tmp_path


@pytest.fixture
def bad(sound: Path) -> tuple[Path, dict[str, str]]:
    """The same among bad files, and the kind of each of those by name."""
    kinds = bad_files.write(sound / "train" / "a", encoded(picture(99, height=200, width=300)))
    return sound, {f"train/a/{name}": kind for name, kind in kinds.items()}


def test_nothing_is_found_in_a_sound_data_set(sound: Path) -> None:
    report = look(sound)
    assert report.findings == ()
    assert report.sound
    assert [(part.name, part.images, part.looked_at) for part in report.parts] == [("train", 10, 10), ("val", 4, 4)]
    assert verify.render(report).startswith("train  10 images looked at: 0 with a fault, 0 odd\nval    4 images")


def test_every_bad_file_is_found_under_its_kind(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    report = look(folder)
    assert found(report) == kinds
    assert len(kinds) > 12
    assert {kind for kind, about in KINDS.items() if about.fault} - set(kinds.values()) == {"not-dali"}
    assert not report.sound


def test_the_list_is_what_training_leaves_out(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    path = verify.quarantine_file(folder)
    line = verify.write_quarantine(look(folder), path)
    assert line == f"{len(kinds)} images to leave out, listed in {folder}/.hvdtrain/quarantine.jsonl"
    reasons = quarantine.read(path)
    assert {name: reason.partition(":")[0] for name, reason in reasons.items()} == kinds
    index = scan.find(folder / "train", cache=folder, workers=1)
    rows = quarantine.rows_of(index, "train", reasons)
    assert sorted(f"train/{index.names[row]}" for row in rows) == sorted(kinds)
    assert len(index) - len(rows) == 10


def test_a_detail_says_why(bad: tuple[Path, dict[str, str]]) -> None:
    details = {finding.image: finding.detail for finding in look(bad[0]).findings}
    assert details["a/page.JPEG"] == "begins with b'<!DOCTYPE html><title>40'"
    assert details["a/zeros.JPEG"] == "5000 zero bytes"
    assert details["a/moving.JPEG"] == "GIF"
    assert details["a/folder.JPEG"] == "a folder"
    assert details["a/socket.JPEG"] == "a socket"
    assert details["a/nowhere.JPEG"].endswith(os.strerror(errno.ENOENT))
    assert "bytes are zero" in details["a/zero_tail.JPEG"]
    assert "0x" not in " ".join(details.values())  # no address of memory, or two reports would differ


def test_what_may_not_be_read_is_found(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(sound)
    really = os.open

    def refusing(path: str, *given: int) -> int:
        if path == f"{sound}/val/a/0.JPEG":  # root may read everything, so no mode of the file would do
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really(path, *given)

    monkeypatch.setattr(os, "open", refusing)
    (finding,) = look(sound).findings
    assert (finding.name, finding.kind, finding.detail) == (
        "val/a/0.JPEG",
        "unreadable",
        "[Errno 13] Permission denied",
    )


def test_what_dali_alone_refuses_is_found(sound: Path) -> None:
    put(sound / "train" / "a" / "endless.png", encoded(picture(21), "PNG")[:-8])
    put(sound / "train" / "b" / "sound.png", encoded(picture(22), "PNG"))
    jpeg = encoded(picture(23))
    put(sound / "train" / "b" / "between.JPEG", jpeg[:20] + b"\0\0\0" + jpeg[20:])
    faults = {finding.name: finding.kind for finding in look(sound).findings if finding.fault}
    assert faults == {
        "train/a/endless.png": "truncated",
        "train/b/between.JPEG": "not-dali",
    }


def test_without_dali_pillow_decides(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encoded(picture(23))
    put(sound / "train" / "b" / "between.JPEG", jpeg[:20] + b"\0\0\0" + jpeg[20:])
    monkeypatch.setattr(diagnose, "find_spec", lambda name: None)
    report = look(sound)
    assert found(report) == {}
    assert "DALI is not installed" in verify.render(report)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(3), exif=exif)


ODD = {
    "cmyk.JPEG": ("cmyk", lambda: encoded(picture(1, mode="CMYK"))),
    "gray.JPEG": ("gray", lambda: encoded(picture(2, mode="L"))),
    "palette.png": ("palette", lambda: encoded(picture(4, mode="P"), "PNG")),
    "glass.png": ("transparent", lambda: encoded(picture(5, mode="RGBA"), "PNG")),
    "tiny.JPEG": ("tiny", lambda: encoded(picture(7, height=31))),
    "turned.JPEG": ("turned", turned),
    "a.JPEG": ("suffix", lambda: encoded(picture(8), "PNG")),
    "two.webp": ("frames", lambda: encoded(picture(9), "WEBP", save_all=True, append_images=[picture(10)])),
}


@pytest.mark.parametrize("name", ODD)
def test_an_oddity_is_told_and_no_fault(name: str, tmp_path: Path) -> None:
    kind, content = ODD[name]
    put(tmp_path / "train" / "a" / name, content())
    report = look(tmp_path)
    assert kind in {finding.kind for finding in report.findings}
    assert report.sound
    assert verify.write_quarantine(report, verify.quarantine_file(tmp_path)) == (
        "no fault found, and no quarantine list written"
    )


def test_more_than_eight_bits_are_told(tmp_path: Path) -> None:
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    put(tmp_path / "train" / "a" / "deep.png", encoded(deep, "PNG"))
    details = {(f.image, f.kind): f.detail for f in look(tmp_path).findings}
    assert details["a/deep.png", "16-bit"] == "16 bits"


def test_metadata_that_cannot_be_read_hurts_nobody(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a" / "a.JPEG", turned().replace(b"MM\0*", b"MM??"))
    assert found(look(tmp_path)) == {}


def test_garbage_after_the_end_hurts_nobody(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a" / "a.JPEG", encoded(picture()) + b"garbage")
    assert found(look(tmp_path)) == {}


def test_duplicates_are_told_by_how_bad_they_are(sound: Path) -> None:
    def copy(source: str, target: str) -> None:
        (sound / target).write_bytes((sound / source).read_bytes())

    copy("train/a/0.JPEG", "train/a/same.JPEG")
    copy("train/b/1.JPEG", "val/b/leak.JPEG")
    copy("train/a/2.JPEG", "train/b/conflict.JPEG")
    copy("train/a/4.JPEG", "val/b/both.JPEG")
    put(sound / "train" / "a" / "empty_1.JPEG", b"")
    put(sound / "train" / "b" / "empty_2.JPEG", b"")
    report = look(sound)
    assert [(f.name, f.kind, f.detail) for f in report.findings if not f.fault] == [
        ("train/a/same.JPEG", "duplicate", "train/a/0.JPEG"),
        ("train/b/conflict.JPEG", "label-conflict", "train/a/2.JPEG"),
        ("val/b/both.JPEG", "label-conflict", "train/a/4.JPEG"),
        ("val/b/both.JPEG", "leak", "train/a/4.JPEG"),
        ("val/b/leak.JPEG", "leak", "train/b/1.JPEG"),
    ]


def test_three_with_the_same_bytes_point_at_the_first(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/3"):
        put(tmp_path / "val" / f"{name}.JPEG", encoded(picture()))
    assert [(f.name, f.kind, f.detail) for f in look(tmp_path).findings] == [
        ("val/a/2.JPEG", "duplicate", "val/a/1.JPEG"),
        ("val/b/3.JPEG", "label-conflict", "val/a/1.JPEG"),
    ]


def test_an_index_of_other_bytes_is_stale(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SPOT_CHECKS", 1)  # the finder of the index looks at the first image alone
    said: list[str] = []
    monkeypatch.setattr(verify.logger, "warning", lambda message, *given: said.append(message % given))
    look(sound)
    put(sound / "train" / "b" / "1.JPEG", encoded(picture(50, width=77)))
    report = look(sound)
    (finding,) = report.findings
    assert (finding.name, finding.kind) == ("train/b/1.JPEG", "stale-index")
    assert finding.detail.startswith("the index has ")
    assert finding.detail.endswith(" bytes, 77x64 pixels")
    assert not report.sound
    assert said == [f"the index of {sound}/train is stale: delete {sound}/.hvdtrain/train.npz"]
    assert "no fault found" in verify.write_quarantine(report, verify.quarantine_file(sound))


def test_shards_are_verified_as_folders_are(bad: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, kinds = bad
    irregular = {name for name, kind in kinds.items() if kind == "unreadable"}
    for name in irregular:
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
    put(folder / "val" / "a" / "leak.JPEG", (folder / "train" / "b" / "1.JPEG").read_bytes())
    packed = tmp_path / "packed"
    pack.pack(folder, packed, cache=tmp_path, workers=1, shard_bytes=100_000, max_side=None)
    from_folders, from_shards = look(folder), look(packed)
    assert {f.name for f in from_shards.findings} == kinds.keys() - irregular | {"val/a/leak.JPEG"}
    assert [(f.name, f.kind, f.detail) for f in from_shards.findings] == [
        (f.name, f.kind, f.detail) for f in from_folders.findings
    ]
    assert {f.shard for f in from_shards.findings} > {"train-000000.tar", "val-000000.tar"}
    assert f"{packed}/train/train-000000.tar:a/" in verify.render(from_shards).replace("\n", "").replace(" ", "")


def test_a_sample_is_the_same_every_time(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    once, again = (look(folder, sample=12) for _ in range(2))
    assert once.findings == again.findings
    assert [(part.name, part.looked_at, part.whole) for part in once.parts] == [("train", 12, False), ("val", 4, True)]
    assert found(once).items() < kinds.items()
    assert "12 of 32 images looked at" in verify.render(once)


@pytest.mark.parametrize("images", [1, 7, 1000])
def test_a_sample_is_drawn_evenly(images: int) -> None:
    assert verify.drawn(images, None).tolist() == verify.drawn(images, images).tolist() == list(range(images))
    rows = verify.drawn(10 * images, images)
    assert len(set(rows.tolist())) == images
    assert rows.tolist() == sorted(rows)
    assert verify.drawn(1000, 100).mean() == pytest.approx(500, abs=4 * 1000 / np.sqrt(12 * 100))


def test_a_sample_adds_to_the_list_and_a_whole_look_replaces_it(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    path = verify.quarantine_file(folder)
    before = {"train/a/gone.JPEG": "an earlier finding"}
    put(path, b"")
    quarantine.write(path, before)
    sample = look(folder, sample=12)
    verify.write_quarantine(sample, path)
    assert set(quarantine.read(path)) == set(before) | set(found(sample))
    verify.write_quarantine(look(folder), path)
    assert set(quarantine.read(path)) == set(kinds)
    for name in kinds:
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
    assert verify.write_quarantine(look(folder), path).startswith("0 images to leave out")
    assert quarantine.read(path) == {}


def test_a_list_that_cannot_be_written_has_a_remedy(bad: tuple[Path, dict[str, str]]) -> None:
    report = look(bad[0])
    in_the_way = put(bad[0] / "file", b"")
    with pytest.raises(DataError, match=r"cannot write the quarantine list .*--quarantine PATH, .*--data.quarantine"):
        verify.write_quarantine(report, in_the_way / "list.jsonl")


def test_json_has_the_whole_report(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    (folder / "train/a/half.JPEG").rename(folder / "train/a/half\udcff.JPEG")  # the byte 255, which is no text
    report = look(folder)
    read = json.loads(verify.as_json(report))
    assert tuple(Finding(**finding) for finding in read["findings"]) == report.findings
    assert read["counts"]["unreadable"] == 5
    assert sum(read["counts"].values()) == len(kinds)
    assert (read["sound"], read["dali"]) == (False, True)
    assert [part["images"] for part in read["parts"]] == [len(kinds) + 10, 4]
    assert read["images_per_second"] == pytest.approx(report.looked_at / read["seconds"])


def test_the_table_has_each_kind_once_with_three_examples(bad: tuple[Path, dict[str, str]]) -> None:
    folder, kinds = bad
    (folder / "train/a/empty.JPEG").rename(folder / "train/a/[b]\udcff.JPEG")
    table = verify.render(look(folder))
    table.encode()
    for kind in set(kinds.values()):
        assert sum(line.split()[:2] == ["no", kind] for line in table.splitlines()) == 1
    joined = table.replace("\n", "").replace(" ", "")
    assert f"{folder}/train/a/[b]\\xff.JPEG:0bytes" in joined
    assert joined.count(f"{folder}/train/a/") == sum(
        min(list(kinds.values()).count(kind), verify.EXAMPLES) for kind in set(kinds.values())
    )


def test_one_part_is_enough(sound: Path) -> None:
    (sound / "val").rename(sound / "elsewhere")
    report = look(sound)
    assert [part.name for part in report.parts] == ["train"]
    assert "val    is not there" in verify.render(report)


def test_neither_part_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither train/ nor val/"):
        look(tmp_path)


def test_a_sample_of_none_is_an_error(sound: Path) -> None:
    with pytest.raises(ConfigError, match="a sample of 0 images"):
        look(sound, sample=0)


def test_processes_find_what_threads_find(bad: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(verify, "CHUNK", 3)
    assert found(look(bad[0])) == bad[1]
