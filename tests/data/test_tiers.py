"""Where frames go, from sizes alone: Bridge on real cards, small stores, stores of either kind."""

import pytest

from ptr_fast.data.tiers import FrameSizes, choose_tier, explain_tiers, frame_tiers, step_reserve_bytes

GIB = 2**30
H100, H200 = int(78 * GIB), int(139 * GIB)


def sizes(num_jpeg=0, num_raw=0, side=128):
    return FrameSizes(frame_bytes=side * side * 3, num_named=num_jpeg + num_raw, num_jpeg=num_jpeg, num_raw=num_raw)


def tiers(what, device="cuda", free=H100, budget=64 * GIB, batch=64):
    return frame_tiers(what, device, free, step_reserve_bytes(batch, 128, 128), budget)


@pytest.mark.parametrize(
    ("what", "options", "expected"),
    [
        (sizes(num_jpeg=200_000), {}, "device"),
        (sizes(num_raw=200_000), {}, "device"),
        (sizes(num_jpeg=2_280_000), {}, "jpeg"),  # 112 GB
        (sizes(num_raw=2_280_000), {}, "map"),
        (sizes(num_jpeg=2_280_000), {"budget": 120 * GIB}, "host"),
        (sizes(num_jpeg=2_280_000), {"free": H200}, "device"),
        (sizes(num_jpeg=1_000_000), {"batch": 1024, "budget": 0}, "jpeg"),  # 49 GB beside 38 GB for the step
        (sizes(num_jpeg=1000), {"device": "cpu"}, "host"),
        (sizes(num_raw=1000), {"device": "cpu"}, "map"),
        (sizes(num_jpeg=1000), {"device": "cpu", "budget": 0}, "jpeg"),
        (sizes(num_jpeg=1000, num_raw=1000), {"device": "cpu"}, "host"),
    ],
)
def test_auto_takes_the_fastest_that_fits(what, options, expected):
    every = tiers(what, **options)
    taken = choose_tier(every)
    assert taken.name == expected
    text = explain_tiers(every, taken)
    assert text.startswith(expected)
    assert text.count("not ") >= every.index(taken)  # each faster one with its reason


def test_the_explanation_has_sizes_and_reasons():
    every = tiers(sizes(num_jpeg=2_280_000))
    text = explain_tiers(every, choose_tier(every))
    assert "not device (raw pixels, 112.1 GB): does not fit: 83.8 GB free, 6.4 GB of it kept for the step" in text
    assert "not available" in text
    assert "not host (decoded in memory, 112.1 GB): does not fit: 68.7 GB allowed" in text


@pytest.mark.parametrize(
    ("wanted", "what", "message"),
    [
        ("device", sizes(num_jpeg=2_280_000), "does not fit"),
        ("host", sizes(num_jpeg=2_280_000), "68.7 GB allowed"),
        ("host", sizes(num_raw=5), "see map"),
        ("map", sizes(num_jpeg=5), "stored as JPEG"),
        ("jpeg", sizes(num_raw=5), "no frame is stored as JPEG"),
        ("disk", sizes(num_raw=5), "expected auto or one of"),
        ("jpeg on the device", sizes(num_jpeg=5), "expected auto or one of"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(wanted, what, message):
    with pytest.raises(ValueError, match=message):
        choose_tier(tiers(what), wanted)


def test_device_frames_can_be_asked_for_on_the_cpu():
    assert choose_tier(tiers(sizes(num_jpeg=5), device="cpu"), "device").name == "device"
