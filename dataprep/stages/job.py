"""A URL on its way through a download, and the row that it ends as."""

from __future__ import annotations

from dataclasses import dataclass, field

import yarl

from dataprep.samples import Row, Sample
from dataprep.stages.http import Answer
from dataprep.stages.writer import OpenShard


@dataclass(slots=True)
class Job:
    """A URL to be asked for. `at`: where redirects from host to host have led it in this attempt, which took `hops` of
    them and `spent` seconds."""

    shard: OpenShard
    sample: Sample
    url: yarl.URL
    at: yarl.URL
    hops: int = 0
    spent: float = 0.0
    attempts: int = 0
    seconds: float = 0.0
    answer: Answer | None = field(default=None)


def row_of(job: Job, answer: Answer) -> Row:
    return Row(
        key=job.sample.key,
        identity=job.sample.identity,
        reason=answer.reason,
        detail="".join(c if c.isprintable() else "?" for c in answer.detail),  # a server's words may be no text
        payload=answer.data,
        values={
            "url": job.sample.url,
            "status": answer.status,
            "final_url": answer.final_url if answer.final_url != job.sample.url else "",
            "attempts": job.attempts,
            "seconds": round(job.seconds, 3),
            "bytes": answer.received,
        },
    )
