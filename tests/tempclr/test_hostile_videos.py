"""Damaged and hostile videos: told in one line, within limits; what a process of its own protects from."""

from __future__ import annotations

import ctypes
import os
import random
import runpy
import signal
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tempclr.data import isolated_decoding, video
from tempclr.data.isolated_decoding import IsolatedDecoder
from tempclr.data.video import iterate_frames, probe, write_video
from tempclr.errors import InputError

SOAK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "soak_videos.py"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return SOAK["whole_videos"](tmp_path_factory.mktemp("whole"))


@pytest.fixture
def clip(whole):
    return next(path for path in whole if path.name == "libx264.mp4")


@pytest.mark.parametrize("number", range(24))
def test_a_damaged_video_is_decoded_or_refused_in_one_line(number, whole, tmp_path):
    outcome = SOAK["decoded"](str(SOAK["write_mutation"](number, whole, tmp_path)))
    assert outcome["lost"] is None
    assert outcome["fault"] is None or "\n" not in outcome["fault"]
    assert outcome["fault"] or outcome["num_frames"]


def test_every_kind_of_damage_changes_the_file(clip):
    content = clip.read_bytes()
    for kind in SOAK["KINDS"]:
        changed = [SOAK["mutated"](content, kind, random.Random(seed)) for seed in range(3)]
        assert len({content, *changed}) > 1, kind


def test_the_soak_tries_names_and_resumes(tmp_path, capsys):
    words = ["--num_files", "6", "--output", str(tmp_path)]
    assert SOAK["main"](words) == 0
    told = capsys.readouterr().out
    assert "6 files tried" in told and "0 lost" in told and told.count("of 6 extracted") == 2
    lines = (tmp_path / "files.jsonl").read_text()
    (tmp_path / "files.jsonl").write_text(lines + '{"file": "cut')  # as a killed run leaves it
    assert SOAK["main"](words) == 0 and (tmp_path / "files.jsonl").read_text().startswith(lines)


# --- limits, without a process of its own


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".sdp"])
def test_what_names_other_files_follows_note_what_a_video_file_may_ask_for(kind, suffix, clip, tmp_path):
    """Note [What a video file may ask for]: FFmpeg would open the file that the concat script names."""
    path = tmp_path / f"video{suffix}"
    path.write_text(PLAYLISTS[kind].format(clip))
    for read in (probe, lambda file: list(iterate_frames(file))):
        with pytest.raises(InputError, match="cannot be read as video"):
            read(path)


def test_a_picture_beyond_all_measure_is_refused(clip, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 96 * 128 - 1)
    with pytest.raises(InputError, match="cannot be read as video"):
        list(iterate_frames(clip))
    monkeypatch.setattr(video, "MAX_PIXELS", 1 << 20)
    assert len(list(iterate_frames(clip))) == 30


def write_with_pause(path, seconds):
    """Two frames, the second ``seconds`` after the first."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.codec_context.time_base = 32, 32, Fraction(1, 10)
        for number in (0, seconds * 10):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("rate", [None, 1.0])
def test_a_frame_days_after_the_last_is_refused(rate, tmp_path):
    path = tmp_path / "slow.mkv"
    write_with_pause(path, 600)
    assert len(list(iterate_frames(path, frames_per_second=rate))) == (2 if rate is None else 601)
    write_with_pause(path, 10_000)
    with pytest.raises(InputError, match="its times are damaged, or it is too long: a frame at 10000 s"):
        list(iterate_frames(path, frames_per_second=rate))


# --- in a process of its own


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder() as made:
        yield made


@pytest.mark.parametrize("rate", [None, 4.0])
def test_isolated_decoding_gives_the_same_frames(rate, whole, decoder):
    for path in whole:
        for one, other in zip(
            iterate_frames(path, frames_per_second=rate),
            decoder.iterate_frames(path, frames_per_second=rate),
            strict=True,
        ):
            assert one[0] == other[0] and np.array_equal(one[1], other[1])


def test_faults_are_told_as_without_it_and_the_process_is_kept(clip, decoder, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:400])
    list(decoder.iterate_frames(clip))
    kept = decoder._idle[-1].pid
    for path in (cut, tmp_path / "none.mp4"):
        messages = []
        for decode in (iterate_frames, decoder.iterate_frames):
            with pytest.raises(InputError) as told:
                list(decode(path))
            messages.append(str(told.value))
        assert messages[0] == messages[1]
    assert [process.pid for process in decoder._idle] == [kept]


def test_a_crash_of_the_decoder_costs_one_video(clip, decoder):
    frames = decoder.iterate_frames(clip)
    next(frames)
    process = next(frames.gi_frame.f_locals[name] for name in ("process",))
    os.kill(process.pid, signal.SIGSEGV)
    with pytest.raises(InputError, match="its decoder was ended by SIGSEGV"):
        list(frames)
    assert len(list(decoder.iterate_frames(clip))) == 30


def test_a_decoder_that_hangs_is_ended(clip):
    with IsolatedDecoder(seconds_per_second=0.0) as decoder:
        frames = decoder.iterate_frames(clip)
        next(frames)
        decoder.first_seconds = 1.0
        process = frames.gi_frame.f_locals["process"]
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(InputError, match="decoding takes more than 1 s"):
            list(frames)
        assert process.poll() == -signal.SIGKILL
        decoder.first_seconds = 60.0
        assert len(list(decoder.iterate_frames(clip))) == 30


def test_a_video_that_needs_all_memory_is_refused(tmp_path):
    path = tmp_path / "large.mp4"
    frames = np.zeros((2, 2048, 4096, 3), dtype=np.uint8)
    write_video(path, frames, frames_per_second=1, codec="mpeg4")
    with IsolatedDecoder() as decoder:
        assert len(list(decoder.iterate_frames(path))) == 2
    with IsolatedDecoder(max_memory_bytes=160 << 20) as decoder, pytest.raises(InputError) as told:
        list(decoder.iterate_frames(path))
    assert "\n" not in str(told.value)


def test_nothing_is_left_running(clip):
    with IsolatedDecoder() as decoder:
        frames = decoder.iterate_frames(clip)
        next(frames)
        processes = [frames.gi_frame.f_locals["process"]]
        frames.close()
        threads = [threading.Thread(target=lambda: list(decoder.iterate_frames(clip))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        processes += decoder._idle
        assert 2 <= len(processes) <= 4
    assert all(process.poll() is not None for process in processes)


def test_the_process_ends_when_the_program_does(clip):
    """It reads requests from a pipe: once the other end is gone, there is nothing to do."""
    with IsolatedDecoder() as decoder:
        list(decoder.iterate_frames(clip))
        process = decoder._idle[0]
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_process_that_waits_ends_by_note_a_decoder_is_not_left_behind(clip):
    """Note [A decoder is not left behind]: here it waits for somebody to take its frames."""
    with IsolatedDecoder() as decoder:
        frames = decoder.iterate_frames(clip)
        next(frames)
        process = frames.gi_frame.f_locals["process"]
        process.stdin.close()
        assert process.wait(10) == -signal.SIGIO
        frames.close()


@pytest.mark.parametrize("how", ["asleep", "busy", "too late"])
def test_a_decoder_that_hangs_ends_with_the_program(how, monkeypatch):
    """Also within C, where no handler of Python would run."""
    requests, asking = os.pipe()
    began, beginning = os.pipe()

    def hang(*_, **__):
        os.write(beginning, b".")
        while how == "busy":
            pass
        ctypes.PyDLL(None).sleep(100)  # without letting go of the lock of the interpreter

    monkeypatch.setattr(video, "iterate_frames", hang)
    child = os.fork()
    if child == 0:
        os.close(asking)
        os.dup2(requests, 0)
        if how == "too late":
            os.read(0, 1)
        request = {"path": "v.mp4", "rate": 1.0, "num_threads": 1}
        watch = isolated_decoding._ended_with_its_program
        isolated_decoding._answer(request, os.fdopen(1, "wb"), while_decoding=watch)
        os._exit(7)
    os.close(requests)
    if how != "too late":
        os.read(began, 1)
    os.close(asking)
    late = threading.Timer(20, os.kill, (child, signal.SIGKILL))
    late.start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    late.cancel()
    assert status == (1 if how == "too late" else -signal.SIGIO)


def test_requests_are_answered_in_this_process_too(clip, tmp_path):
    """The code of the process itself, where its coverage can be seen."""
    answers = tmp_path / "answers"
    with answers.open("wb") as output:
        for path in (clip, tmp_path):
            isolated_decoding._answer({"path": str(path), "rate": 1.0, "num_threads": 1}, output)
    content, head = answers.read_bytes(), isolated_decoding._HEAD
    assert head.unpack(content[: head.size]) == (0.0, 96, 128)
    size = 3 * (head.size + 96 * 128 * 3)
    assert head.unpack(content[size : size + head.size])[1] == 0
    assert content.endswith(b'{"fault": "is a folder, expected a video file"}')
