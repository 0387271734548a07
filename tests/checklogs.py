"""Log hygiene (the idea is S3QL's pytest_checklogs): a warning or traceback that no test expected fails the test."""

from __future__ import annotations

import re
import time

SUSPICIOUS = re.compile(
    r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback |^Fatal Python error|^Exception ignored|^fuse: ", re.MULTILINE
)


class CheckedLog:
    """The log file of a process. ``check`` fails on every suspicious line that ``expect`` did not announce."""

    def __init__(self, path):
        self.path = path
        self._expected = []

    @property
    def text(self):
        return self.path.read_text() if self.path.exists() else ""

    def expect(self, pattern, count=1):
        """Announce log records that match ``pattern``: exactly ``count``, with their tracebacks; None = any number."""
        self._expected.append((re.compile(pattern), count))

    def count(self, pattern):
        return len(re.findall(pattern, self.text, re.MULTILINE))

    def wait_for(self, pattern, deadline=10.0):
        end = time.monotonic() + deadline
        while not self.count(pattern):
            assert time.monotonic() < end, f"{pattern!r} did not appear in:\n{self.text}"
            time.sleep(0.01)

    def check(self):
        # A record begins with its date; what follows up to the next one (a traceback) belongs to it.
        records = [
            record for record in re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:)", self.text, flags=re.MULTILINE) if record
        ]
        found = [0] * len(self._expected)
        unexpected = []
        for record in records:
            for index, (pattern, _) in enumerate(self._expected):
                if pattern.search(record):
                    found[index] += 1
                    break
            else:
                if SUSPICIOUS.search(record):
                    unexpected.append(record)
        assert not unexpected, "unexpected in the log:\n" + "".join(unexpected)
        for (pattern, count), seen in zip(self._expected, found, strict=True):
            assert count is None or seen == count, f"{pattern.pattern!r} logged {seen} times, not {count}:\n{self.text}"
