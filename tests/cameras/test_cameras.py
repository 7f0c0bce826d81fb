"""Cameras: a video played back at its rate, faults, and a camera given to a robot."""

from __future__ import annotations

import glob
import time

import numpy as np
import pytest
import toy_robot

from ptr_robot.cameras import BufferedCamera, make_camera
from ptr_robot.robots import make_robot

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH, HZ = 48, 64, 25.0


def write_video(path, num_frames: int, size=(HEIGHT, WIDTH)) -> str:
    """Red grows by 10 a frame; blue is 200."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), HZ, (size[1], size[0]))
    for number in range(num_frames):
        writer.write(np.full((*size, 3), (200, 0, 10 * number), np.uint8))
    writer.release()
    return str(path)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "video.avi", 20)


def number_of(frame: np.ndarray) -> int:
    return round(float(frame[..., 0].mean()) / 10)


def test_a_video_plays_at_its_rate_whoever_reads_it(video):
    camera = make_camera(f"playback:{video}")
    began = time.monotonic_ns()
    camera.connect()
    try:
        frame, first_ns = camera.read()
        assert camera.size == (HEIGHT, WIDTH)
        assert frame.dtype == np.uint8
        assert abs(float(frame[..., 2].mean()) - 200) < 12  # RGB
        assert began <= first_ns <= time.monotonic_ns()
        time.sleep(0.4)
        frame, captured_ns = camera.read()
        shown = (captured_ns - first_ns) * 1e-9 * HZ
        assert 1 <= number_of(frame) <= shown + 1.5  # not before its time
        assert camera.num_frames == number_of(frame) + 1
    finally:
        camera.disconnect()
        camera.disconnect()
    with pytest.raises(RuntimeError, match="not connected"):
        camera.read()


def test_the_end_of_a_video(tmp_path):
    video = write_video(tmp_path / "short.avi", 3)
    camera = make_camera(f"playback:{video}?hz=100")
    camera.connect()
    time.sleep(0.3)
    with pytest.raises(RuntimeError, match=r"short.avi: the video ended"):
        camera.read()
    camera.connect()  # from the beginning
    camera.disconnect()
    camera = make_camera(f"playback:{video}?hz=100&loop=1")
    camera.connect()
    time.sleep(0.3)
    camera.read()
    assert camera.num_frames > 3
    camera.disconnect()


class Scripted(BufferedCamera):
    """Gives the frames that a test says."""

    def __init__(self, frames, timeout_s=0.2):
        super().__init__("camera scripted", timeout_s)
        self.frames, self.released = list(frames), False

    def _open(self):
        pass

    def _take(self):
        if not self.frames:
            self._closed.wait()
            return None
        time.sleep(0.01)
        frame = self.frames.pop(0)
        if isinstance(frame, Exception):
            raise frame
        return frame, time.monotonic_ns()

    def _release(self):
        self.released = True


GOOD = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ([], r"no new frame for 0.2 s"),
        ([np.zeros((6, 4, 3), np.uint8)], "its frames changed from 4x6 to 6x4"),
        ([np.zeros((4, 6, 3))], r"expected uint8 \[H, W, 3\], got float64"),
        ([np.zeros((4, 6), np.uint8)], r"expected uint8 \[H, W, 3\]"),
        ([OSError("unplugged")], "unplugged"),
    ],
)
def test_faults_are_one_clear_error(then, message):
    camera = Scripted([GOOD, *then])
    camera.connect()
    camera.read()
    time.sleep(0.3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="camera scripted: " + message):
            camera.read()
    camera.disconnect()
    assert camera.released


def test_a_camera_without_a_first_frame():
    camera = Scripted([])
    with pytest.raises(RuntimeError, match="no new frame"):
        camera.connect()
    assert camera.released
    assert not camera.is_connected


def test_the_newest_frame_wins():
    frames = [np.full((4, 6, 3), number, np.uint8) for number in range(5)]
    camera = Scripted(frames, timeout_s=5.0)
    camera.connect()
    deadline = time.monotonic() + 5
    while camera.num_frames < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert camera.read()[0].max() == 4
    camera.disconnect()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webcam:0", "expected opencv:DEVICE or playback:VIDEO"),
        ("opencv:", "expected a device or file"),
        ("opencv:0?zoom=2", "has no option 'zoom'; it has width, height, hz, fourcc, timeout_s"),
        ("opencv:0?width=wide", "width: expected a value of type int, got 'wide'"),
        ("opencv:0?width=-3", "must be positive"),
        ("opencv:0?fourcc=RGB", "four letters"),
        ("playback:a.avi?loop=perhaps", "loop: expected a value of type bool"),
        ("playback:a.avi?timeout_s=0", "timeout_s"),
    ],
)
def test_texts_that_name_no_camera(text, message):
    with pytest.raises(ValueError, match=message):
        make_camera(text)


def test_devices_and_files_that_are_not_there(tmp_path):
    with pytest.raises(RuntimeError, match=r"camera /dev/video97: cannot open /dev/video97"):
        make_camera("opencv:/dev/video97").connect()
    with pytest.raises(RuntimeError, match=r"nowhere.avi: no such file"):
        make_camera(f"playback:{tmp_path}/nowhere.avi").connect()
    (tmp_path / "text.avi").write_text("hello")
    with pytest.raises(RuntimeError, match="not a video"):
        make_camera(f"playback:{tmp_path}/text.avi").connect()


@pytest.mark.skipif(not glob.glob("/dev/video*"), reason="no V4L2 device on this machine")
def test_a_v4l2_device():
    camera = make_camera("opencv:0?timeout_s=10")
    camera.connect()
    frame, first_ns = camera.read()
    assert frame.shape == (480, 640, 3)
    time.sleep(0.5)
    assert camera.read()[1] > first_ns
    camera.disconnect()


def test_a_robot_with_a_camera_of_this_machine(tmp_path, video):
    store = toy_robot.write_store(tmp_path / "store", toy_robot.toy_episodes(1, cameras=("image_0",)))
    robot = make_robot("replay", store=store, **{"camera:wrist": f"playback:{video}?loop=1"})
    assert robot.observation_features["wrist"] == (HEIGHT, WIDTH, 3)
    with robot:
        observed = robot.get_observation()
        assert observed["wrist"].shape == (HEIGHT, WIDTH, 3)
        assert observed["image_0"].shape == (toy_robot.SIZE, toy_robot.SIZE, 3)
        assert observed["captured_ns"] <= time.monotonic_ns()
        assert robot.limits(5.0).axes  # the robot's own
        assert robot.is_connected
        assert robot.name == "replay"
    assert not robot.is_connected
    with pytest.raises(RuntimeError, match="not connected"):
        robot.get_observation()
    with pytest.raises(ValueError, match=r"replay: has \['image_0'\] already"):
        make_robot("replay", store=store, **{"camera:image_0": f"playback:{video}"})
