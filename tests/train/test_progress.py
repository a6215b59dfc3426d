"""What a person sees where there is no terminal."""

import pytest

from hvdtrain import log
from hvdtrain.train.progress import Display


def show(display: Display, step: int) -> None:
    display.show(step=step, epoch=0.5, images_seen=500, loss=1.25, images_per_second=100.0)


@pytest.mark.parametrize(("every", "lines"), [(0, 3), (3600, 1)])
def test_a_plain_line_now_and_then(
    every: float, lines: int, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    log.configure(0)
    request.addfinalizer(log.logger.handlers.clear)
    with Display(total_images=2000, epochs=2, plain_every_seconds=every) as display:
        for step in range(3):
            show(display, step)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == lines
    assert shown[0] == "epoch 0.50/2  step 0  100 images/s  loss 1.2500  15 s left"


def test_without_a_speed_no_time_is_left(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    """As after steps of which every image was left out."""
    log.configure(0)
    request.addfinalizer(log.logger.handlers.clear)
    with Display(total_images=2000, epochs=2, plain_every_seconds=0) as display:
        display.show(step=1, epoch=0.5, images_seen=500, loss=1.25, images_per_second=0.0)
    assert capsys.readouterr().err == "epoch 0.50/2  step 1  0 images/s  loss 1.2500\n"


def test_efficiency_stands_beside_the_speed(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    log.configure(0)
    request.addfinalizer(log.logger.handlers.clear)
    with Display(total_images=2000, epochs=2, plain_every_seconds=0) as display:
        display.show(step=1, epoch=0.5, images_seen=500, loss=1.25, images_per_second=100.0, efficiency=0.912)
    assert "100 images/s (91 % efficient)" in capsys.readouterr().err
