"""A skipped test fails the run, unless its reason is listed: in CI, or with `--strict-skips`."""

from __future__ import annotations

import os
import re

import pytest

ALLOWED = {
    r"there is a GPU": "The test is about a machine without one.",
    r"a small disk cannot be mounted here": "Only root can mount a disk, and not in every container.",
    r"needs llama-index-embeddings-openai-like": "Its newest version (0.4.0) wants llama-index-embeddings-openai below "
    "0.7, and constraints.txt has 0.7. tests/test_lowest_versions.py runs the test.",
}
"""Pattern of a reason for which a test may be skipped in CI -> why that is fine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips",
        action="store_true",
        default=os.environ.get("CI", "").lower() not in ("", "0", "false"),
        help="fail if a test is skipped for a reason that tests/strict_skips.py does not list (default: if CI is set)",
    )


def unexpected_skips(config: pytest.Config) -> list[str]:
    """Return "test: reason" for each skip that is not allowed. Whole modules count, and so do tests of xdist's workers.

    The terminal reporter holds the reports of all of them. An xdist worker has no terminal reporter, so that only the
    controller judges.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("strict_skips"):
        return []
    found = [(report.nodeid, report.longrepr[2].removeprefix("Skipped: ")) for report in reporter.getreports("skipped")]
    return [f"{test}: {why}" for test, why in found if not any(re.search(pattern, why) for pattern in ALLOWED)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and unexpected_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skips := unexpected_skips(config):
        terminalreporter.section("skipped, which fails this run (tests/strict_skips.py)", red=True)
        for skip in skips:
            terminalreporter.line(skip)
