"""What is recorded of a failed worker holds no credentials."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.ray_train.failure_log import FailureLog, summary
from pipeline.tuning.trial import _shortened

SECRET = "SECRET1" * 20
ERRORS = [
    f"GET https://me:{SECRET}@host/x failed",
    f"{'x' * 150} https://me:{SECRET}@host/x failed",
    f"{'x' * 150} https://host/x?X-Amz-Signature={SECRET} failed",
    f"Traceback\n  File x\nClientError: Session(aws_secret_access_key='{SECRET}')\n\n",
]


@pytest.mark.parametrize("text", ERRORS)
def test_the_failure_of_a_worker_is_recorded_without_credentials(text: str) -> None:
    pushed: list[dict[str, Any]] = []
    coordinator = SimpleNamespace(push=SimpleNamespace(remote=pushed.append))
    FailureLog(coordinator).after_exception(None, {3: ValueError("later"), 1: RuntimeError(text)})
    (event,) = pushed
    assert (event["event"], event["ranks"]) == ("failure", [1, 3])
    assert event["error"]
    assert "SECRET1" not in event["error"]
    assert len(event["error"]) <= 203


@pytest.mark.parametrize("text", ERRORS)
def test_the_reason_of_a_failed_trial_holds_no_credentials(text: str) -> None:
    assert "SECRET1" not in _shortened(f"ClientError: {'y' * 300} {text}")


def test_an_error_without_a_message_is_its_kind() -> None:
    assert summary(KeyError()) == "KeyError"
