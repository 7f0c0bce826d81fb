"""Films are there whole or not at all."""

import resource

import numpy as np
import pytest

from ptr_robot.console.video import write_video

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "told"), [("film.gif", "no space left"), ("film.mp4", r"the video was cut short|Broken pipe")]
)
def test_a_film_that_the_disk_has_no_room_for_is_named_and_leaves_nothing(tmp_path, name, told, capsys):
    for package in ("imageio", "imageio_ffmpeg"):
        pytest.importorskip(package)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(OSError, match=rf"cannot write .*/{name}: ({told})"):
            write_video(tmp_path / name, FRAMES, 10.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    write_video(tmp_path / name, FRAMES, 10.0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not capsys.readouterr().err
