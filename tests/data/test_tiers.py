"""Where frames go, from sizes alone: Bridge on real cards, small stores, stores of either kind."""

import pytest

from ptr_fast.data.tiers import FrameSizes, choose_tier, explain_tiers, frame_tiers, step_reserve_bytes

GIB = 2**30
A100_40, H100, H200 = int(39 * GIB), int(78 * GIB), int(139 * GIB)
BRIDGE = 2_280_000


def sizes(num_jpeg=0, num_raw=0, side=128):
    return FrameSizes(height=side, width=side, num_named=num_jpeg + num_raw, num_jpeg=num_jpeg, num_raw=num_raw)


def tiers(what, device="cuda", free=H100, budget=64 * GIB, batch=64):
    return frame_tiers([what], device, free, step_reserve_bytes(batch, 128 * 128), budget)


@pytest.mark.parametrize(
    ("what", "options", "expected"),
    [
        (sizes(num_jpeg=200_000), {}, "device"),
        (sizes(num_raw=200_000), {}, "device"),
        (sizes(num_jpeg=BRIDGE), {}, "device-yuv420"),  # 112 GB as pixels, 56 GB as planes
        (sizes(num_raw=BRIDGE), {}, "device-yuv420"),
        (sizes(num_jpeg=BRIDGE), {"free": H200}, "device"),
        (sizes(num_jpeg=BRIDGE), {"free": A100_40}, "jpeg"),
        (sizes(num_raw=BRIDGE), {"free": A100_40}, "map"),
        (sizes(num_jpeg=BRIDGE), {"free": A100_40, "budget": 120 * GIB}, "host"),
        (sizes(num_jpeg=1_000_000), {"batch": 1024}, "device-yuv420"),  # 49 or 25 GB beside 38 GB for the step
        (sizes(num_jpeg=BRIDGE), {"batch": 1024, "budget": 0}, "jpeg"),
        (sizes(num_jpeg=2_220_000, side=129), {"budget": 0}, "jpeg"),
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
    every = tiers(sizes(num_jpeg=BRIDGE))
    text = explain_tiers(every, choose_tier(every))
    assert text.startswith("device-yuv420 (luma, and colour at half the resolution, 56.0 GB); not device (")
    every = tiers(sizes(num_jpeg=BRIDGE), free=A100_40)
    text = explain_tiers(every, choose_tier(every))
    assert "not device (raw pixels, 112.1 GB): does not fit: 41.9 GB free, 6.4 GB of it kept for the step" in text
    assert "56.0 GB): does not fit" in text
    assert "device-jpeg (JPEG decoded in the step, at most 0.0 MB): no frame is stored as jpeg-restart" in text
    assert "not host (decoded in memory, 112.1 GB): does not fit: 68.7 GB allowed" in text


@pytest.mark.parametrize(
    ("wanted", "what", "message"),
    [
        ("device", sizes(num_jpeg=BRIDGE), "does not fit"),
        ("device-yuv420", sizes(num_jpeg=2 * BRIDGE), "does not fit"),
        ("device-yuv420", sizes(num_jpeg=5, side=85), "85x85 pixels are an odd number"),
        ("host", sizes(num_jpeg=BRIDGE), "68.7 GB allowed"),
        ("host", sizes(num_raw=5), "see map"),
        ("map", sizes(num_jpeg=5), "stored as JPEG"),
        ("jpeg", sizes(num_raw=5), "no frame is stored as JPEG"),
        ("disk", sizes(num_raw=5), "expected auto or one of"),
        ("on the device", sizes(num_jpeg=5), "expected auto or one of"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(wanted, what, message):
    with pytest.raises(ValueError, match=message):
        choose_tier(tiers(what), wanted)


def test_device_frames_can_be_asked_for_on_the_cpu():
    for name in ("device", "device-yuv420"):
        every = tiers(sizes(num_jpeg=5), device="cpu")
        taken = choose_tier(every, name)
        assert taken.name == name
        assert explain_tiers(every, taken, name) == f"{name} ({taken.what}), as asked for"  # not what auto goes by


def test_a_run_that_goes_on_keeps_its_pixels():
    every = tiers(sizes(num_jpeg=BRIDGE))
    taken = choose_tier(every, keep_pixels=True)
    assert taken.name == "jpeg"
    assert "56.0 GB): this run began with other pixels" in explain_tiers(every, taken)
    assert choose_tier(every, "device-yuv420", keep_pixels=True).name == "device-yuv420"


def test_packed_jpeg_is_taken_where_it_is_asked_for():
    """Bridge in 12.3 GB on a card of 24 GB; by itself it is not taken before a GPU has run it."""
    packed = FrameSizes(
        height=128,
        width=128,
        num_named=BRIDGE,
        num_jpeg=BRIDGE,
        num_raw=0,
        jpeg_bytes=BRIDGE * 5400,
        why_not_packed=None,
    )
    every = tiers(packed, free=24 * GIB, budget=0)
    taken = choose_tier(every, "device-jpeg")
    assert str(taken).startswith("device-jpeg (JPEG decoded in the step, at most 12.3 GB)")
    assert choose_tier(every).name == "jpeg"
    assert "device-jpeg (JPEG decoded in the step, at most 12.3 GB): not measured on a GPU" in explain_tiers(
        every, choose_tier(every)
    )
    with pytest.raises(ValueError, match=r"device-jpeg cannot be had: .* does not fit"):
        choose_tier(tiers(packed, free=12 * GIB), "device-jpeg")
