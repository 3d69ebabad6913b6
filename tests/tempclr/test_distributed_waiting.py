"""Ranks wait for those that are late, and stop where one fails, is told to end, vanishes or never comes."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tempclr.rank_watch import RankWatch, is_lost_rank, lost_rank_reason, watched_ranks

sys.path.insert(0, str(Path(__file__).parent))
import forked_runs

DRIVER = Path(__file__).parent / "distributed_drivers/waiting.py"
STOPPED = 75


class Found:
    """The exit codes, the seconds and the lines of a scene of the driver."""

    def __init__(self, folder, name):
        scene = json.loads((folder / f"{name}.json").read_text())
        self.codes, self.seconds, self.end = scene["codes"], scene["seconds"], scene["end"]
        self.texts = [(folder / f"{name}-{rank}.err").read_text() for rank in range(len(self.codes))]
        self.told = [[line for line in text.splitlines() if line.startswith("tempclr: ")] for text in self.texts]


@pytest.fixture(scope="module")
def found(tmp_path_factory, worker_id):
    """All scenes, played once for all processes that run tests: they are a matter of seconds, and of many processes."""
    base = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = base / "waiting"
    with FileLock(f"{folder}.lock"):
        if not (folder / "all").exists():
            folder.mkdir(exist_ok=True)
            done = forked_runs.run(DRIVER, folder)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            (folder / "all").touch()
    return lambda name: Found(folder, name)


@pytest.mark.timeout(300)
def test_a_rank_that_enters_late_is_waited_for(found):
    late = found("enters_late")
    assert late.codes == [0, 0] and late.texts == ["", ""]


def test_a_rank_that_never_enters_is_told_in_bounded_time(found):
    never = found("never_enters")
    assert never.codes[0] == STOPPED, never.texts
    assert never.seconds < 90
    assert never.told[0][0].startswith("tempclr: rank 1 has not begun after ")
    assert "--ddp_timeout; rank 0 stops" in never.told[0][0]


def test_a_rank_that_enters_when_rank_0_is_gone_says_so(found):
    alone = found("finds_nobody")
    assert alone.codes == [0, 1] and alone.seconds < 90
    assert "rank 1 cannot reach rank 0 (" in alone.texts[1] and "Traceback" not in alone.texts[1]


def test_a_rank_that_waits_for_others_hears_that_it_is_to_end(found):
    """Note [Deaf while it waits] in rank_watch.py: torchrun kills 30 seconds after it has asked."""
    told = found("told_to_end")
    asked = float(told.texts[0].partition("asked at ")[2].splitlines()[0])
    assert told.codes == [STOPPED, -signal.SIGKILL] and told.end - asked < 30
    assert told.told[0] == [
        "tempclr: rank 0 was told to end: another rank has failed, see what it said, or the run is ended from outside"
    ]


def test_behind_the_block_signals_are_as_before(found):
    assert found("told_to_end_afterwards").codes == [-signal.SIGTERM, -signal.SIGTERM]
    assert found("told_to_end_afterwards").told == [[], []]


def test_ranks_that_are_stopped_together_go_on_together(found):
    """Note [Silence means death] in rank_watch.py."""
    assert found("stopped_for_a_while").codes == [0, 0], found("stopped_for_a_while").texts


def test_a_child_that_is_ended_does_not_end_its_rank(found):
    assert found("ends_a_child").codes == [0, 0]


def test_a_rank_that_fails_stops_the_others_though_its_process_goes_on(found):
    fails = found("fails")
    assert fails.codes == [STOPPED, 0]
    assert len(fails.told[0]) == 1 and fails.told[0][0].startswith("tempclr: rank 1 has failed; rank 0 stops")


def test_ranks_that_fail_together_speak_for_themselves(found):
    together = found("fail_together")
    assert together.codes == [1, 1]
    assert together.told == [[], []]
    assert [text.splitlines()[-1] for text in together.texts] == [f"rank {rank} speaks for itself" for rank in range(2)]


def test_all_ranks_hear_of_one_that_vanished(found):
    """Note [Silence means death] in rank_watch.py: each watches the next one alone."""
    vanished = found("vanishes")
    assert vanished.codes == [STOPPED, STOPPED, -signal.SIGKILL], vanished.texts
    assert vanished.seconds < 90
    for rank in range(2):
        assert len(vanished.told[rank]) == 1, vanished.texts[rank]
        assert vanished.told[rank][0].startswith("tempclr: rank 2 has given no sign of life for")


def test_an_operation_that_takes_too_long_is_told_with_its_option(found):
    late = found("waits_too_long")
    assert late.codes[0] == 1 and "took longer than --ddp_timeout allows" in late.texts[0]


def test_ranks_of_a_command_may_be_done_days_apart(found):
    assert found("joins").codes == [0, 0], found("joins").texts


def test_a_command_does_not_wait_for_ever_for_ranks_to_start(found):
    alone = found("joins_alone")
    assert alone.codes[0] == 1 and alone.seconds < 90
    assert "cannot meet the other ranks (" in alone.texts[0]
    assert "were all 2 started within 2 seconds?" in alone.texts[0]


# --- the watch alone

LONG_ENOUGH = 60  # seconds, on any machine, for what comes within one


def watch(store, *, num_ranks=2, **options):
    """A watch of rank 0, and the message that it gives, once it has given one."""
    heard, given = [], threading.Event()

    def hear(message):
        heard.append(message)
        given.set()

    times = {"silence_seconds": 0.3, "beat_seconds": 0.02} | options
    made = RankWatch(store, rank=0, num_ranks=num_ranks, on_silence=hear, **times)
    made.start()
    return made, heard, given


def test_a_rank_that_counts_is_alive_and_one_that_stops_is_not():
    store = torch.distributed.HashStore()
    watching, heard, given = watch(store, silence_seconds=1.5)
    for count in range(100):
        store.set("rank-1", str(count))
        time.sleep(0.02)
    assert not heard
    assert given.wait(LONG_ENOUGH)
    assert heard[0].startswith("rank 1 has given no sign of life for")
    assert store.check(["stopped"]) and store.get("stopped").startswith(b"rank 1 has given no sign of life for")
    assert int(store.get("rank-0")) > 10
    watching.stop()


def test_a_rank_that_took_leave_alarms_nobody_and_the_next_one_is_watched():
    store = torch.distributed.HashStore()
    store.set("rank-1", "left")
    watching, heard, given = watch(store)
    assert not given.wait(1) and not heard
    watching.stop()
    assert store.get("rank-0") == b"left"
    store.set("rank-2", "7")
    watching, heard, given = watch(store, num_ranks=3)
    assert given.wait(LONG_ENOUGH) and heard[0].startswith("rank 2 has given no sign of life for")
    watching.stop()


def test_what_passes_while_this_rank_cannot_look_is_nobodys_silence():
    """Note [Silence means death] in rank_watch.py."""

    class Stopping:
        """Its rank is as if stopped, for four silences, when it is about to count to five."""

        def __init__(self):
            self.store = torch.distributed.HashStore()

        def set(self, key, value):
            if (key, value) == ("rank-0", "5"):
                time.sleep(4.0)
            self.store.set(key, value)

        def __getattr__(self, name):
            return getattr(self.store, name)

    store = Stopping()
    store.set("rank-1", "1")
    watching, heard, given = watch(store, silence_seconds=1.0, beat_seconds=0.02)
    assert given.wait(LONG_ENOUGH) and heard[0].startswith("rank 1 has given no sign of life for 1 seconds")
    assert int(store.get("rank-0")) >= 1.0 / (2 * 0.02)
    watching.stop()


def test_rank_0_whose_process_may_hold_the_store_leaves_last():
    store = torch.distributed.HashStore()
    watching, heard, _ = watch(store, num_ranks=3, silence_seconds=30)
    store.set("rank-1", "left")
    leaving = threading.Thread(target=watching.stop)
    leaving.start()
    leaving.join(1)
    assert leaving.is_alive() and store.get("rank-0") == b"left"
    store.set("rank-2", "left")
    leaving.join(LONG_ENOUGH)
    assert not leaving.is_alive() and not heard


def test_rank_0_waits_neither_for_a_silent_rank_for_ever_nor_after_a_failure():
    watching, _, _ = watch(torch.distributed.HashStore(), silence_seconds=0.5)
    begin = time.monotonic()
    watching.stop()
    assert time.monotonic() - begin >= 0.5
    for is_own in (True, False):
        store = torch.distributed.HashStore()
        watching, _, _ = watch(store, silence_seconds=100)
        if not is_own:
            store.set("stopped", "rank 1 has failed")
        begin = time.monotonic()
        watching.stop(failed=is_own)
        assert time.monotonic() - begin < 50


def test_a_rank_that_has_not_begun_has_more_time():
    watching, heard, given = watch(torch.distributed.HashStore(), join_seconds=3.0)
    assert not given.wait(1) and given.wait(LONG_ENOUGH)
    assert heard[0].startswith("rank 1 has not begun after 3 seconds")
    watching.stop()


@pytest.mark.parametrize("num_ranks", [2, 64])
def test_what_a_rank_asks_of_the_store_does_not_grow_with_the_ranks(num_ranks):
    class Counting:
        def __init__(self):
            self.store, self.num_asked = torch.distributed.HashStore(), 0

        def __getattr__(self, name):
            self.num_asked += 1
            return getattr(self.store, name)

    store = Counting()
    store.set("rank-1", "1")
    watching, _, given = watch(store, num_ranks=num_ranks, silence_seconds=30, beat_seconds=0.01)
    assert not given.wait(0.5)
    num_beats = store.num_asked / 4
    watching.stop(failed=True)
    assert 5 < num_beats <= 0.5 / 0.01 + 3


def test_a_store_that_is_gone_means_rank_0_is():
    class Gone:
        def set(self, key, value):
            raise RuntimeError("Connection was closed\nand a long trace")

        check = get = set

    watching, heard, given = watch(Gone())
    assert given.wait(LONG_ENOUGH)
    assert heard[0].startswith("rank 0 cannot reach rank 0 (Connection was closed) and stops")
    watching.stop()


def test_one_process_watches_nobody():
    before = threading.active_count()
    with watched_ranks():
        assert threading.active_count() == before


def test_errors_of_lost_ranks_are_known():
    assert is_lost_rank(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1"))
    assert "another rank has stopped" in lost_rank_reason(RuntimeError("Connection reset by peer"))
    assert not is_lost_rank(RuntimeError("shapes do not fit")) and not is_lost_rank(OSError("Broken pipe"))
