"""Frames by their times: the same with and without seeking, whatever the container and the rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tempclr.data import video_seeking
from tempclr.data.clip_sampling import ClipSampler, read_nominal_frames
from tempclr.data.video import iterate_frames, read_frames, write_video
from tempclr.data.video_seeking import nominal_frames, read_frames_at
from tempclr.errors import InputError


def numbered_frames(num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame k shows its tens on the left and its ones on the right, as one of ten grays."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    numbers = np.arange(num_frames)[:, None, None, None]
    frames[:, :, : width // 2] = 40 + 16 * (numbers // 10)
    frames[:, :, width // 2 :] = 40 + 16 * (numbers % 10)
    return frames


def numbers_of(frames: np.ndarray) -> list[int]:
    middle = frames.shape[2] // 2
    halves = frames[:, :, : middle - 3].mean((1, 2, 3)), frames[:, :, middle + 3 :].mean((1, 2, 3))
    tens, ones = (np.round((half - 40) / 16).astype(int) for half in halves)
    return (10 * tens + ones).tolist()


def write_variable_rate(path: Path, seconds: list[float]) -> None:
    """A video whose frame k is shown from ``seconds[k]`` on."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time, frame in zip(seconds, numbered_frames(len(seconds)), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seeking")
    frames = numbered_frames(100)
    kinds = {
        "mp4": ("a.mp4", "libx264", {"crf": "10", "g": "12", "sc_threshold": "0"}),
        "one_keyframe": ("b.mp4", "libx264", {"crf": "10", "g": "1000", "sc_threshold": "0"}),
        "mkv": ("c.mkv", "libx264", {"crf": "10", "g": "12"}),
        "avi": ("d.avi", "mpeg4", {"qscale": "2", "g": "15", "bf": "2"}),
        "ts": ("e.ts", "libx264", {"crf": "10", "g": "20"}),
    }
    for name, codec, options in kinds.values():
        write_video(folder / name, frames, frames_per_second=25, codec=codec, options=options)
    return {kind: folder / name for kind, (name, _, _) in kinds.items()}


@pytest.mark.parametrize("kind", ["mp4", "one_keyframe", "mkv", "avi", "ts"])
def test_seeking_does_not_change_a_frame(videos, kind):
    """Note [Seeking must not change a frame]: from every start, equal to decoding it all."""
    everything = np.stack([frame for _, frame in iterate_frames(videos[kind])])
    for start in (0, 5, 13, 40, 71, 95):
        numbers = np.arange(start, min(start + 20, 100), 3)
        frames = read_frames_at(videos[kind], numbers / 25, slack_seconds=1e-3 / 25)
        assert np.array_equal(frames, everything[numbers]), start


def test_frames_of_a_constant_rate_are_its_frames_in_any_order(videos):
    assert numbers_of(read_frames_at(videos["mp4"], [3.0, 0.2, 0.2, 1.0])) == [75, 5, 5, 25]
    for kind in ("mp4", "avi"):
        nominal = nominal_frames(videos[kind])
        assert (nominal.num_frames, nominal.frames_per_second) == (100, 25.0)
    assert nominal_frames(videos["mp4"], frames_per_second=10).num_frames == 40


def test_a_header_without_counts_is_counted(videos):
    """Matroska and MPEG-TS tell no number of frames."""
    for kind in ("mkv", "ts"):
        nominal = nominal_frames(videos[kind])
        assert nominal.num_frames == 100 and nominal.frames_per_second == pytest.approx(25, abs=0.01)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.flv", "a.avi", "a.ts"])
@pytest.mark.parametrize("rate", [30, Fraction(30000, 1001), 24, 12, Fraction(15, 2)], ids=str)
def test_rates_that_are_no_whole_numbers_keep_their_frames(tmp_path, name, rate):
    """Note [A video's own rate], Note [Containers round times]: Matroska, WebM and FLV count milliseconds."""
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
    options = {"qscale": "2"} if codec == "mpeg4" else {"crf": "10", "b": "1M"}
    write_video(tmp_path / name, numbered_frames(80), frames_per_second=rate, codec=codec, options=options)
    nominal = nominal_frames(tmp_path / name)
    assert nominal.num_frames == 80
    frames, (places,) = read_nominal_frames(
        tmp_path / name, [np.arange(20, 80)], frames_per_second=nominal.frames_per_second
    )
    assert numbers_of(frames[places]) == list(range(20, 80))
    on_ticks, _ = read_frames(tmp_path / name, frames_per_second=float(rate))
    assert numbers_of(on_ticks) == list(range(80))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_rounding_brings_no_frame_before_its_time(tmp_path, name):
    """Note [Containers round times]: 10 of 24 frames a second; at 0.2 s frame 4.8 is on screen, which is 4."""
    codec, options = ("mpeg4", {"qscale": "2"}) if name == "a.avi" else ("libx264", {"crf": "10"})
    write_video(tmp_path / name, numbered_frames(48), frames_per_second=24, codec=codec, options=options)
    expected = [24 * k // 10 for k in range(20)]
    assert numbers_of(read_frames_at(tmp_path / name, np.arange(20) / 10)) == expected
    frames, _ = read_frames(tmp_path / name, frames_per_second=10)
    assert numbers_of(frames) == expected


def test_a_video_of_variable_rate_is_read_by_time(tmp_path):
    """Note [Frames are sampled by time]: one second at 10, then two at 40 frames a second; what is on screen counts."""
    seconds = [k / 10 for k in range(10)] + [1 + k / 40 for k in range(80)]
    write_variable_rate(tmp_path / "vfr.mp4", seconds)
    nominal = nominal_frames(tmp_path / "vfr.mp4")
    assert nominal.num_frames == 90 and nominal.frames_per_second == pytest.approx(
        30, abs=2
    )  # the header takes the last frame to be short
    clips = ClipSampler().clips(nominal.num_frames, start=10)
    frames, places = read_nominal_frames(
        tmp_path / "vfr.mp4", [clips.global_frames, clips.local_frames], frames_per_second=nominal.frames_per_second
    )
    expected = [
        int(np.searchsorted(seconds, number / nominal.frames_per_second + 1e-6, side="right")) - 1
        for number in clips.global_frames
    ]
    assert numbers_of(frames[places[0]]) == expected
    spacing = np.diff(np.array(seconds)[expected])
    assert spacing.min() > 0.09 and spacing.max() < 0.21  # by number of frame it would be 0.4 s, then 0.1 s
    at_25 = read_frames_at(tmp_path / "vfr.mp4", np.arange(0, 75, 5) / 25)
    assert numbers_of(at_25) == [int(np.searchsorted(seconds, k / 5 + 1e-6, side="right")) - 1 for k in range(15)]


def test_large_frames_are_scaled_while_decoding(videos):
    frames = read_frames_at(videos["mp4"], [0.0, 1.0], short_side=16)
    assert frames.shape == (2, 16, 24, 3) and numbers_of(frames) == [0, 25]
    assert read_frames_at(videos["mp4"], [0.0], short_side=64).shape == (1, 32, 48, 3)


def test_a_little_past_the_end_is_the_last_frame_and_more_is_an_error(videos):
    assert numbers_of(read_frames_at(videos["mp4"], [3.96, 4.5])) == [99, 99]
    assert numbers_of(read_frames_at(videos["mp4"], [4.5])) == [99]
    with pytest.raises(InputError, match=r"a\.mp4: is cut off: a frame at 6\.0 s was wanted but only 4\.0 s"):
        read_frames_at(videos["mp4"], [3.0, 6.0])


@pytest.mark.parametrize("seconds", [[], [-1.0], [float("nan")]])
def test_times_that_are_none_are_refused(videos, seconds):
    with pytest.raises(ValueError, match="seconds must be"):
        read_frames_at(videos["mp4"], seconds)


def test_files_that_are_no_videos_are_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for call in (lambda: nominal_frames(tmp_path / "a.mp4"), lambda: read_frames_at(tmp_path / "a.mp4", [0.0])):
        with pytest.raises(InputError, match=r"a\.mp4: cannot be read as video"):
            call()
    with pytest.raises(ValueError, match="frames_per_second"):
        nominal_frames(tmp_path / "a.mp4", frames_per_second=0)


def test_seeking_passes_over_what_lies_before(videos, monkeypatch):
    """Of 100 frames with a keyframe every 12, those up to the last keyframe before are not decoded."""
    decoded = []
    original = video_seeking._Seekable._decoded

    def counted(self):
        for frame in original(self):
            decoded.append(frame.time)
            yield frame

    monkeypatch.setattr(video_seeking._Seekable, "_decoded", counted)
    assert numbers_of(read_frames_at(videos["mp4"], [3.4, 3.5])) == [85, 87]
    assert len(decoded) <= 1 + 12 + 4 and min(decoded[1:]) >= 84 / 25 - 1e-6
    decoded.clear()
    assert numbers_of(read_frames_at(videos["one_keyframe"], [3.4])) == [85]
    assert len(decoded) >= 86  # no keyframe but the first


def test_a_keyframe_found_too_late_means_decoding_from_the_start(videos, monkeypatch):
    """Note [Seeking must not change a frame]: as with containers that know keyframes by decoding time."""
    original = video_seeking._Seekable._keyframe_before
    monkeypatch.setattr(video_seeking._Seekable, "_keyframe_before", lambda self, time: original(self, time + 0.6))
    assert numbers_of(read_frames_at(videos["mp4"], [2.0, 2.2])) == [50, 55]
    monkeypatch.setattr(video_seeking._Seekable, "_keyframe_before", lambda self, time: None)
    assert numbers_of(read_frames_at(videos["mkv"], [2.0, 2.2])) == [50, 55]
