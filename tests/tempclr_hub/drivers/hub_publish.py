"""``tempclr publish`` in a process whose Hub is the loopback one; prints its exit code and what it said."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from tempclr.cli import main

out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main(["publish", *sys.argv[1:]])
print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}))
