"""transformers' own common tests, run on our models and processors: see ``make compat``.

They ship in transformers' source distribution, not in what is installed. ``TRANSFORMERS_SDIST`` names the folder of the
unpacked one, of the version that is installed; without it nothing here is collected.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SDIST = os.environ.get("TRANSFORMERS_SDIST")
collect_ignore_glob = [] if SDIST else ["test_*.py"]
# What the distributed files take from files that are not: mixins whose tests are of generation and of export to formats
# that no model of ours has, and settings that every configuration is asked to take, of which there are none here.
NOT_DISTRIBUTED: dict[str, dict[str, object]] = {
    ".exporters": {},
    ".exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    ".generation": {},
    ".generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    ".utils": {},
    ".utils.test_configuration_utils": {"config_common_kwargs": {}},
}
_outcomes: Counter[tuple[str, str]] = Counter()
_reasons: Counter[tuple[str, str]] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--expect-common",
        action="append",
        default=[],
        metavar="KIND=COUNT",
        help="fail unless at least so many of the common tests in test_KIND_*.py passed",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not SDIST:
        return
    folder = Path(SDIST, "tests").absolute()
    # Those in use are declared in files that are not distributed, and this run is strict about markers.
    helpers = importlib.util.find_spec("transformers").submodule_search_locations[0] + "/testing_utils.py"
    for source in (Path(helpers), *folder.glob("test_*.py")):
        for marker in set(re.findall(r"\bmark\.([a-z]\w*)", source.read_text(encoding="utf-8"))):
            config.addinivalue_line("markers", marker)
    _load_common_tests(folder)


def _load_common_tests(folder: Path) -> None:
    """Make the package importable as ``transformers_common``: it calls itself ``tests``, and so do our own."""
    # Media of the Hub, which no test of ours asks for; the function that names their copies is not distributed.
    media = ModuleType("fetch_hub_objects_for_ci")
    media.url_to_local_path = lambda url: url  # type: ignore[attr-defined]
    sys.modules.setdefault("fetch_hub_objects_for_ci", media)
    for name, members in {"": {}, **NOT_DISTRIBUTED}.items():
        module = ModuleType(f"transformers_common{name}")
        module.__path__ = [] if name else [str(folder)]
        vars(module).update(members)
        sys.modules.setdefault(module.__name__, module)


def _kind(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).name.removeprefix("test_").partition("_")[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "tests/common/" not in report.nodeid or type(report) is not pytest.TestReport:
        return  # a part of a test (subtest) is no test
    if report.skipped and isinstance(report.longrepr, tuple):
        _outcomes[_kind(report.nodeid), "skipped"] += 1
        _reasons[_kind(report.nodeid), report.longrepr[2].removeprefix("Skipped: ")] += 1
    elif report.when == "call":
        _outcomes[_kind(report.nodeid), report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not _outcomes:
        return
    terminalreporter.section("transformers' common tests")
    for kind in sorted({kind for kind, _ in _outcomes}):
        counts = ", ".join(f"{_outcomes[kind, outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        terminalreporter.write_line(f"{kind}: {counts}")
        for (of_kind, reason), count in _reasons.most_common():
            if of_kind == kind:
                terminalreporter.write_line(f"  skipped {count:>3}: {reason}")
    for shortfall in _shortfalls(config):
        terminalreporter.write_line(f"ERROR: {shortfall}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and _shortfalls(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _shortfalls(config: pytest.Config) -> list[str]:
    found = []
    for expectation in config.getoption("--expect-common"):
        kind, _, count = expectation.partition("=")
        if _outcomes[kind, "passed"] < int(count):
            found.append(f"{_outcomes[kind, 'passed']} {kind} tests passed, expected at least {count}")
    return found
