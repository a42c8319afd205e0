"""A photo that takes minutes of CPU is left out as too slow, and the others are done."""

import threading
import time

import pytest

from dataprep.errors import ImagingError
from dataprep.interrupts import cpu_limit
from dataprep.reasons import Reason
from dataprep.stages import base
from dataprep.stages.base import Photo


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_the_limit_counts_cpu_not_waiting() -> None:
    with cpu_limit(0.2, lambda: TimeoutError("late")):
        time.sleep(0.5)
    with pytest.raises(TimeoutError, match="late"), cpu_limit(0.2, lambda: TimeoutError("late")):
        burn(5)
    burn(0.3)  # no alarm is left behind


def test_other_threads_are_not_limited() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with cpu_limit(0.05, lambda: TimeoutError("late")):
                burn(0.2)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def test_a_photo_that_is_decoded_for_too_long_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_DECODING", 0.2)
    monkeypatch.setattr(base, "decode_image", lambda data, **options: burn(30))
    with pytest.raises(ImagingError) as raised:
        _ = Photo(lambda: b"x", codec="pillow", max_pixels=100).pixels
    assert raised.value.reason is Reason.TOO_SLOW
