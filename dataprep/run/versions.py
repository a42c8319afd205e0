"""A stage that was begun goes on under the library versions it was begun under, or the user is asked."""

from __future__ import annotations

from dataprep.errors import WorkspaceError
from dataprep.run.chain import Link


def check_versions(link: Link, accept: bool) -> None:
    """Write stage.json at the beginning; later, raise WorkspaceError if versions that may change bytes are others."""
    versions = link.stage.versions()
    described = link.directory.described()
    if described is not None and described["versions"] != versions and link.directory.markers() and not accept:
        changed = ", ".join(
            f"{name} {described['versions'].get(name, 'none')} -> {versions.get(name, 'none')}"
            for name in sorted({*versions, *described["versions"]})
            if versions.get(name) != described["versions"].get(name)
        )
        raise WorkspaceError(
            f"{link.name} was begun under other library versions ({changed}), which may change its output: "
            "install those, or go on with --accept-versions"
        )
    if described is None or described["versions"] != versions:
        link.directory.describe(
            {
                "stage": link.name,
                "version": link.stage.version,
                "params": link.stage.params.as_dict(),
                "counted": link.stage.params.counted(),
                "resources": link.stage.resources(),
                "fingerprint": link.fingerprint,
                "versions": versions,
            }
        )
