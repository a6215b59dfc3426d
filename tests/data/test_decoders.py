"""Both decoders decode the window they are told, and nothing else."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.decoder import Decoder, Pictures, Request, Undecodable
from hvdtrain.data.reference import ReferenceDecoder

SIDE = 16
CPU = torch.device("cpu")


def plain(size: int = SIDE, dtype: torch.dtype = torch.float32) -> Pictures:
    """Pixels as they are, 0 to 255."""
    return Pictures(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), dtype)


def dali(pictures: Pictures, *, batch_size: int = 4, prefetch: int = 2, by_name: bool = True) -> Decoder:
    return DaliDecoder(
        batch_size=batch_size,
        pictures=pictures,
        decode_on_gpu=False,
        device=CPU,
        threads=1,
        prefetch=prefetch,
        by_name=by_name,
        largest=(500, 500),
    )


def reference(pictures: Pictures, *, batch_size: int = 4, prefetch: int = 2, by_name: bool = True) -> Decoder:
    return ReferenceDecoder(pictures=pictures, device=CPU, threads=2, prefetch=prefetch, by_name=by_name)


Make = Callable[..., Decoder]


@pytest.fixture(params=[dali, reference], ids=["dali", "pillow"])
def decoder(request: pytest.FixtureRequest) -> Make:
    """decoder(pictures, batch_size=…, prefetch=…, by_name=…)"""
    make: Make = request.param
    return lambda pictures=None, **given: make(pictures or plain(), **given)


def request(path: Path | str, *windows: Sequence[float], flip: bool = False) -> Request:
    n = len(windows)
    name = np.frombuffer(os.fsencode(path), np.uint8)
    return Request([name] * n, np.array(windows, np.float32), np.array(windows, np.int32), np.full(n, flip))


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture, so that resizing and JPEG hurt it little."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (9 + seed)) + np.cos(y / 7), np.cos(x / 11) * np.sin(y / (8 + seed)), np.sin((x + y) / 13)]
    return np.stack([(127.5 + 60 * wave).clip(0, 255) for wave in waves], axis=2).astype(np.uint8)


def saved(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


def shown(picture: torch.Tensor) -> np.ndarray:
    """(3, H, W) -> (H, W, 3)"""
    return picture.permute(1, 2, 0).numpy()


def test_a_window_of_the_pictures_size_keeps_every_pixel(decoder: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = saved(tmp_path / "a.png", image)
    (batch,) = decoder().decode([request(path, (3, 5, SIDE, SIDE), (24, 44, SIDE, SIDE))])
    assert batch.dtype == torch.float32
    assert batch.shape == (2, 3, SIDE, SIDE)
    np.testing.assert_array_equal(shown(batch[0]).round(3), image[3:19, 5:21])
    np.testing.assert_array_equal(shown(batch[1]).round(3), image[24:40, 44:60])


def test_a_flip_mirrors_left_to_right(decoder: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    path = saved(tmp_path / "a.png", image)
    both = replace(request(path, (1, 2, SIDE, SIDE), (1, 2, SIDE, SIDE)), flips=np.array([True, False]))
    (batch,) = decoder().decode([both])
    np.testing.assert_array_equal(shown(batch[0]).round(3), image[1:17, 2:18][:, ::-1])
    np.testing.assert_array_equal(shown(batch[1]).round(3), image[1:17, 2:18])


def test_pixels_are_normalised_by_colour(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.full((SIDE, SIDE, 3), (255, 51, 0), np.uint8))
    pictures = Pictures(SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (batch,) = decoder(pictures).decode([request(path, (0, 0, SIDE, SIDE))])
    wanted = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    np.testing.assert_allclose(batch[0, :, 3, 5].numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("window", [(10, 20, 100, 120), (0, 0, 160, 240), (50, 60, 8, 9), (159, 0, 1, 240)])
def test_a_resized_window_is_what_pillow_makes_of_it(
    decoder: Make, window: tuple[int, int, int, int], tmp_path: Path
) -> None:
    image = pixels(160, 240)
    path = saved(tmp_path / "a.png", image)
    (batch,) = decoder(plain(32)).decode([request(path, window)])
    top, left, height, width = window
    cut = Image.fromarray(image[top : top + height, left : left + width])
    theirs = np.asarray(cut.resize((32, 32), Image.Resampling.BILINEAR), np.float32)  # Pillow's is antialiased too
    apart = np.abs(shown(batch[0]) - theirs)
    assert apart.max() < 6  # at the border, beyond which Pillow sees nothing and DALI the last pixel again
    assert apart.mean() < 0.4


def test_shrinking_is_antialiased(decoder: Make, tmp_path: Path) -> None:
    board = np.indices((256, 256)).sum(0)[..., None] % 2 * np.full(3, 255)
    path = saved(tmp_path / "a.png", board.astype(np.uint8))
    (batch,) = decoder().decode([request(path, (0, 0, 256, 256))])
    assert float((batch - 127.5).abs().max()) < 3  # without it, black and white


def test_a_jpeg_is_decoded_as_pillow_decodes_it(decoder: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    Image.fromarray(pixels(50, 70)).save(path, quality=95)
    (batch,) = decoder().decode([request(path, (20, 30, SIDE, SIDE))])
    with Image.open(path) as image:
        theirs = np.asarray(image, np.float32)[20:36, 30:46]
    assert np.abs(shown(batch[0]) - theirs).max() <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_kinds_of_pictures_become_red_green_and_blue(decoder: Make, mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    Image.fromarray(pixels(SIDE, SIDE)).convert(mode).save(path)
    (batch,) = decoder().decode([request(path, (0, 0, SIDE, SIDE))])
    with Image.open(path) as image:
        assert image.mode == mode
        theirs = np.asarray(image.convert("RGB"), np.float32)
    assert np.abs(shown(batch[0]) - theirs).max() <= 6


@pytest.mark.parametrize("suffix", ["bmp", "webp", "png", "jpg"])
def test_every_suffix_that_the_index_counts_is_decoded(decoder: Make, suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{suffix}", pixels(24, 24))
    (batch,) = decoder().decode([request(path, (4, 4, SIDE, SIDE))])
    assert np.abs(shown(batch[0]) - pixels(24, 24)[4:20, 4:20]).mean() < 6


def test_exif_does_not_turn_a_picture(decoder: Make, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(24, 40)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    (batch,) = decoder().decode([request(tmp_path / "a.jpg", (8, 24, SIDE, SIDE))])
    assert np.abs(shown(batch[0]) - pixels(24, 40)[8:24, 24:40]).mean() < 3


def test_pictures_are_channels_last_and_their_own(decoder: Make, tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{i}.png", pixels(SIDE, SIDE, seed=i)) for i in range(5)]
    batches = list(decoder().decode(request(path, (0, 0, SIDE, SIDE), (0, 0, SIDE, SIDE)) for path in paths))
    for i, batch in enumerate(batches):  # compared after all are there: none lies in memory that DALI used again
        assert batch.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(shown(batch[1]).round(3), pixels(SIDE, SIDE, seed=i))


def test_batches_may_be_of_any_size_up_to_the_largest(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", pixels(24, 24))
    sizes = [4, 1, 3, 2]
    found = decoder().decode(request(path, *[(i, 0, SIDE, SIDE) for i in range(size)]) for size in sizes)
    for size, batch in zip(sizes, found, strict=True):
        assert len(batch) == size
        for i in range(size):
            np.testing.assert_array_equal(shown(batch[i]).round(3), pixels(24, 24)[i : i + SIDE, :SIDE])


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_one_decoder_decodes_again_and_again(decoder: Make, prefetch: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", pixels(24, 24))
    once = decoder(prefetch=prefetch)
    for round_ in range(3):
        windows = [(i, round_, SIDE, SIDE) for i in range(5)]
        found = list(once.decode(request(path, window) for window in windows))
        assert len(found) == 5
        for (top, left, *_), batch in zip(windows, found, strict=True):
            np.testing.assert_array_equal(
                shown(batch[0]).round(3), pixels(24, 24)[top : top + SIDE, left : left + SIDE]
            )


def test_a_decoder_that_was_left_midway_shows_nothing_of_the_old_requests(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", pixels(40, 40))
    once = decoder()
    left = once.decode(request(path, (i, 0, SIDE, SIDE)) for i in range(9))
    next(left)
    left.close()
    found = [shown(batch[0]) for batch in once.decode([request(path, (20, 1, SIDE, SIDE))])]
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].round(3), pixels(40, 40)[20:36, 1:17])


def test_no_requests_give_no_pictures(decoder: Make) -> None:
    assert list(decoder().decode([])) == []


def test_names_may_have_spaces_and_letters_of_any_language(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "ein Bild ü 图.png", pixels(SIDE, SIDE))
    (batch,) = decoder().decode([request(path, (0, 0, SIDE, SIDE))])
    np.testing.assert_array_equal(shown(batch[0]).round(3), pixels(SIDE, SIDE))


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("place", [0, 1, 5, 8])
def test_a_picture_that_cannot_be_decoded_fails_and_the_decoder_lives_on(
    decoder: Make, place: int, prefetch: int, tmp_path: Path
) -> None:
    good = saved(tmp_path / "good.png", pixels(24, 24))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    once = decoder(prefetch=prefetch)
    asked = [request(good, (i, 1, SIDE, SIDE)) for i in range(8)]
    asked.insert(place, request(tmp_path / "broken.jpg", (0, 0, SIDE, SIDE)))
    found = []
    with pytest.raises(Undecodable):
        found.extend(once.decode(asked))
    assert len(found) <= place
    again = list(once.decode(asked[:place] + asked[place + 1 :]))
    for i, batch in enumerate(again):
        np.testing.assert_array_equal(shown(batch[0]).round(3), pixels(24, 24)[i : i + SIDE, 1 : 1 + SIDE])
    assert len(again) == 8


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 no more", "half", "beyond", "gone"])
def test_one_bad_image_among_many_ends_in_an_error_and_not_in_a_crash(
    decoder: Make, content: bytes | str, tmp_path: Path
) -> None:
    """As DALI's own decoder would, where its threads are busy with the others."""
    Image.fromarray(pixels(300, 400)).save(tmp_path / "good.jpg", quality=95)
    good = (tmp_path / "good.jpg").read_bytes()
    if content != "gone":
        (tmp_path / "bad.jpg").write_bytes(content if isinstance(content, bytes) else good[: len(good) // 2])
    name = tmp_path / ("good.jpg" if content == "beyond" else "bad.jpg")
    (bad,) = request(name, (299, 300, 101, 100)).inputs
    many = request(tmp_path / "good.jpg", *[(0, 0, 300, 400)] * 64)
    once = decoder(batch_size=64)
    for place in (0, 7, 40, 63):
        inputs, windows = list(many.inputs), many.windows.copy()
        inputs[place], windows[place] = bad, (299, 300, 101, 100) if content == "beyond" else (0, 0, 300, 400)
        asked = replace(many, inputs=inputs, windows=windows, decoded=windows.astype(np.int32))
        for _ in range(3):
            with pytest.raises(Undecodable):
                list(once.decode([many, asked, many]))
    assert len(list(once.decode([many]))) == 1


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 no more", None])
def test_the_fault_of_one_image_is_told(decoder: Make, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    assert decoder().fault(request(path, (0, 0, SIDE, SIDE)))
    Image.fromarray(pixels(40, 40)).save(path)
    assert decoder().fault(request(path, (0, 0, SIDE, SIDE))) is None
    assert decoder().fault(request(path, (30, 30, SIDE, SIDE)))  # the window ends beyond the picture


def test_bytes_are_decoded_as_their_file_is(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", pixels(40, 40))
    asked = request(path, (1, 2, 30, 20), (5, 5, SIDE, SIDE))
    held = replace(asked, inputs=[np.frombuffer(path.read_bytes(), np.uint8)] * 2)
    (from_file,), (from_bytes,) = decoder().decode([asked]), decoder(by_name=False).decode([held])
    assert torch.equal(from_file, from_bytes)


def test_pictures_may_be_of_half_precision(decoder: Make, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", pixels(40, 40))
    normal = Pictures(SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    asked = request(path, (1, 2, 30, 20))
    (whole,), (half,) = decoder(normal).decode([asked]), decoder(replace(normal, dtype=torch.float16)).decode([asked])
    assert half.dtype == torch.float16
    assert half.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(half.float(), whole, atol=2e-3, rtol=2e-3)


@pytest.mark.gpu
def test_the_gpu_shows_what_the_cpu_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels(160, 240)).save(path, quality=95)
    asked = request(path, (10, 20, 100, 120), (0, 0, 160, 240))
    on_gpu = DaliDecoder(
        batch_size=2,
        pictures=plain(32),
        decode_on_gpu=True,
        device=torch.device("cuda", 0),
        threads=1,
        prefetch=2,
        by_name=True,
        largest=(160, 240),
    )
    (ours,) = on_gpu.decode([asked])
    (theirs,) = dali(plain(32)).decode([asked])
    assert ours.device.type == "cuda"
    assert float((ours.cpu() - theirs).abs().mean()) < 1
