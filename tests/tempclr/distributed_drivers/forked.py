"""Ranks as forks of one process, so that what takes seconds to import is imported once."""

from __future__ import annotations

import os
import socket
import sys
import traceback


def fork_ranks(work, num_ranks, *arguments):
    """Run ``work(*arguments)`` on so many ranks, with the environment that torchrun makes; exit where one failed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"ranks ended with {codes}")
