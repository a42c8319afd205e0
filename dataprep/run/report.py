"""What a run did, and what the workspace holds after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dataprep.manifest.ledger import add_counts
from dataprep.run.chain import WHOLE, Chain


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did: shards committed by stage, shards that could not be, and the account of every stage."""

    committed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)


def make_report(chain: Chain, committed: dict[str, int], errors: dict[str, str]) -> Report:
    """The report of a run over `chain`, with the accounts of all stages as they stand now."""
    report = Report(committed=committed, errors=errors)
    for link in chain.links:
        markers = link.directory.markers()
        if markers:
            report.accounts[link.name] = add_counts(marker.account for marker in markers.values())
        if WHOLE in markers:
            report.extras[link.name] = dict(markers[WHOLE].extra)
    return report
