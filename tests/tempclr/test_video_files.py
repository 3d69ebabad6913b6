"""Decoding and writing video files: real files in, real faults."""

from __future__ import annotations

import math
import struct
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from tempclr.data.files import atomic_path
from tempclr.data.video import iterate_frames, probe, read_frames, write_video
from tempclr.errors import InputError


def moving_ramp(num_frames=30, height=48, width=64):
    """Frame k is a smooth ramp plus 5 k grey levels, so that a frame tells its number."""
    ramp = np.linspace(0, 60, height)[:, None] + np.linspace(0, 30, width)[None, :]
    frames = ramp[None, :, :, None] + 5.0 * np.arange(num_frames)[:, None, None, None]
    return np.broadcast_to(frames, (num_frames, height, width, 3)).round().astype(np.uint8)


def frame_numbers(frames):
    return np.round((frames.astype(float).mean(axis=(1, 2, 3)) - 45) / 5).astype(int)


def remuxed(source, target, **options):
    """The same packets with the index in front, as downloads have it, so that a cut file still opens."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def cut(source, share):
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    return source


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_written_is_read(tmp_path, codec, suffix):
    frames, path = moving_ramp(), tmp_path / f"a{suffix}"
    write_video(path, frames, frames_per_second=10, codec=codec)
    info = probe(path)
    assert (info.height, info.width, info.frames_per_second) == (48, 64, 10.0)
    assert info.duration_seconds == pytest.approx(3.0, abs=0.11)
    decoded, timestamps = read_frames(path)
    assert decoded.dtype == np.uint8 and decoded.shape == frames.shape
    np.testing.assert_allclose(timestamps, np.arange(30) / 10, atol=2e-3)  # Matroska counts milliseconds
    assert np.abs(decoded.astype(int) - frames).mean() < 3


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_writing_follows_note_equal_frames_equal_bytes(tmp_path, codec):
    """Note [Equal frames, equal bytes], with memory in another state at each write."""
    contents = set()
    for number in range(20):
        _ = [np.full(size, number, dtype=np.uint8) for size in (1000, 30_000, 400_000)]
        write_video(tmp_path / "a.mp4", moving_ramp(), frames_per_second=Fraction(30000, 1001), codec=codec)
        contents.add((tmp_path / "a.mp4").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(("rate", "expected"), [(10, range(30)), (5, range(0, 30, 2)), (1, (0, 10, 20))])
def test_frames_at_a_lower_rate_are_those_on_screen(tmp_path, rate, expected):
    write_video(tmp_path / "a.mp4", moving_ramp(), frames_per_second=10)
    frames, timestamps = read_frames(tmp_path / "a.mp4", frames_per_second=rate)
    assert frame_numbers(frames).tolist() == list(expected)
    np.testing.assert_allclose(timestamps, np.arange(len(expected)) / rate)


def test_a_higher_rate_repeats_frames(tmp_path):
    write_video(tmp_path / "a.mp4", moving_ramp(4), frames_per_second=10)
    frames, _ = read_frames(tmp_path / "a.mp4", frames_per_second=20)
    assert frame_numbers(frames).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_variable_rate_follows_note_frames_are_sampled_by_time(tmp_path):
    """Note [Frames are sampled by time]: 20 frames in the first second, then two frames a second."""
    path, times = tmp_path / "vfr.mp4", [k / 20 for k in range(20)] + [1 + k / 2 for k in range(8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for seconds, frame in zip(times, moving_ramp(28), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    frames, timestamps = read_frames(path, frames_per_second=2)
    assert frame_numbers(frames)[:9].tolist() == [0, 10, 20, 21, 22, 23, 24, 25, 26]
    assert timestamps[2] == 1.0
    _, all_timestamps = read_frames(path)
    np.testing.assert_allclose(all_timestamps, times, atol=2e-3)


def test_the_rotation_of_the_metadata_is_applied(tmp_path):
    path = tmp_path / "turned.mp4"
    frames = np.zeros((5, 48, 64, 3), dtype=np.uint8)
    frames[:, :24] = 200  # bright above
    write_video(path, frames, frames_per_second=10)
    content = bytearray(path.read_bytes())
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    place = content.index(upright, content.index(b"tkhd"))
    content[place : place + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    path.write_bytes(content)
    turned, _ = read_frames(path)
    assert turned.shape == (5, 64, 48, 3)
    assert turned[0, :, 36:].mean() > 150 > 50 > turned[0, :, :12].mean()  # above has gone to the right


def test_a_span_is_read(tmp_path):
    write_video(tmp_path / "a.mp4", moving_ramp(), frames_per_second=10)
    frames, timestamps = read_frames(tmp_path / "a.mp4", start_seconds=1.0, end_seconds=1.5)
    assert frame_numbers(frames).tolist() == [10, 11, 12, 13, 14] and timestamps[0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="no frame between 7"):
        read_frames(tmp_path / "a.mp4", start_seconds=7.0)


@pytest.mark.parametrize("rate", [None, 0.5, 4])
def test_a_file_cut_in_mid_stream_is_an_error(tmp_path, rate):
    write_video(tmp_path / "a.mp4", moving_ramp(40), frames_per_second=10, options={"g": "10"})
    path = cut(remuxed(tmp_path / "a.mp4", tmp_path / "fast.mp4", movflags="faststart"), 0.6)
    with pytest.raises(InputError, match=r"fast\.mp4: (is cut off: announces 4\.0 s|cannot be read)") as error:
        read_frames(path, frames_per_second=rate)
    assert "\n" not in str(error.value)


def test_a_file_without_its_index_is_an_error(tmp_path):
    write_video(tmp_path / "a.mp4", moving_ramp(), frames_per_second=10)
    path = cut(tmp_path / "a.mp4", 0.5)
    for reader in (probe, read_frames):
        with pytest.raises(InputError, match=r"a\.mp4: cannot be read as video \(.*\): not a video, or cut off"):
            reader(path)


def test_what_is_not_a_video_is_an_error(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 200)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    faults = {
        "none.mp4": "no such video",
        "empty.mp4": "0 bytes",
        "text.mp4": "not a video",
        "sound.wav": "no video stream",
    }
    for name, words in {**faults, ".": "is a folder"}.items():
        for reader in (probe, read_frames):
            with pytest.raises(InputError, match=words) as error:
                reader(tmp_path / name)
            assert error.value.file == tmp_path / name


def test_a_video_of_no_frames_is_an_error(tmp_path):
    with av.open(str(tmp_path / "zero.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(InputError, match=r"zero\.avi: (the video holds no frame|cannot be read)"):
        read_frames(tmp_path / "zero.avi")


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_rate_must_be_positive(tmp_path, rate):
    with pytest.raises(ValueError, match="must be a positive number"):
        iterate_frames(tmp_path / "a.mp4", frames_per_second=rate)


def test_nothing_is_left_of_a_failed_write(tmp_path):
    def failing():
        yield moving_ramp(1)[0]
        raise RuntimeError("renderer broke")

    bad = {
        "even height": [np.zeros((47, 64, 3), np.uint8)],
        "must be a uint8 array": [np.zeros((48, 64, 3))],
        "one size a video": [np.zeros((48, 64, 3), np.uint8), np.zeros((48, 32, 3), np.uint8)],
        "no frames to write": [],
    }
    for words, frames in bad.items():
        with pytest.raises(ValueError, match=words):
            write_video(tmp_path / "a.mp4", frames, frames_per_second=10)
    with pytest.raises(ValueError, match="got list"):
        write_video(tmp_path / "a.mp4", [[0]], frames_per_second=10)
    with pytest.raises(RuntimeError, match="renderer broke"):
        write_video(tmp_path / "a.mp4", failing(), frames_per_second=10)
    with pytest.raises(ValueError, match="no encoder 'nonsense'"):
        write_video(tmp_path / "a.mp4", moving_ramp(2), frames_per_second=10, codec="nonsense")
    with pytest.raises(ValueError, match="must be positive"):
        write_video(tmp_path / "a.mp4", moving_ramp(2), frames_per_second=0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]
