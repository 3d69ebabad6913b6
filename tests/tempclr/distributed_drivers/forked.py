"""Ranks as forks of one process, so that what takes seconds to import is imported once."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import traceback


def reserved_port():
    """A TCP port, and a UDP socket of its number that keeps other runs of these tests from it until it is closed.

    It is below those that a system gives to connections: one of them could be taken before a rank listens on it.
    """
    for port in random.SystemRandom().sample(range(10_000, 30_000), 200):
        keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            keeper.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            keeper.close()
            continue
        return port, keeper
    raise OSError("of 200 ports between 10000 and 30000 none is free")


def fork_ranks(work, num_ranks, *arguments, must_end_well=True, in_own_group=False):
    """Run ``work(*arguments)`` on so many ranks, with the environment that torchrun makes; gives their exit codes.

    Where they need not end well, ranks that are left when rank 0 has ended are killed; None waits for all of them.
    In a process group of their own one signal reaches all ranks at once, as Ctrl-C in a terminal does.
    """
    port, keeper = reserved_port()
    children = []
    for rank in range(num_ranks):
        child = os.fork()
        if child == 0:
            if num_ranks > 1:
                own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
                own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in own.items()})
            code = 1
            try:
                work(*arguments)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else print(end.code, file=sys.stderr) or 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
        if in_own_group:
            os.setpgid(child, children[0])
    codes = []
    for child in children:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if must_end_well is False and child != children[-1]:
            for other in children[len(codes) :]:
                os.kill(other, signal.SIGKILL)
    keeper.close()
    if must_end_well and any(codes):
        sys.exit(f"ranks ended with {codes}")
    return codes
