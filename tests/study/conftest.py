"""Shared by the tests of the study."""

import os

import pytest

from cifar_lightning.study import plan

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = ".*"  # as the command does, before Ray is imported


@pytest.fixture(autouse=True)
def _settings_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse configurations in this process, which has imported Lightning anyway; test_kills.py has the real one."""
    monkeypatch.setattr(plan, "answers", lambda target, questions: target(questions))
