"""The workspace on disk: its plan, its recipe (the parameters used last) and its stage directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep import __version__
from dataprep.errors import DamagedFileError, WorkspaceError
from dataprep.storage import Folder
from dataprep.workspace.exclusions import ExclusionFile, Exclusions
from dataprep.workspace.plan import Plan
from dataprep.workspace.stage_store import StageStore

SCHEMA_VERSION = 2


class Workspace:
    """A workspace directory. Opening a missing one raises WorkspaceError unless `create` is set."""

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.folder = Folder(path)
        found = self._record("dataprep.json", "restore it from a copy, or name a new workspace with -w")
        if found is None:
            if not create:
                raise WorkspaceError(
                    f"there is no workspace at {self.folder.path}",
                    hint="create one with `dataprep download SOURCE` or `dataprep import SOURCE`, or name one with -w",
                )
            self.folder.put_record("dataprep.json", {"schema": SCHEMA_VERSION, "made_by": f"dataprep {__version__}"})
        elif found.get("schema") != SCHEMA_VERSION:
            raise WorkspaceError(
                f"{self.folder.path} has workspace schema {found.get('schema')!r}; this version reads {SCHEMA_VERSION}",
                hint="name a new workspace with -w, or open this one with the version that made it",
            )

    @property
    def path(self) -> Path:
        return self.folder.path

    def plan(self) -> Plan:
        return Plan(self.folder.folder("plan"))

    def exclusions(self) -> Exclusions:
        """The people and photos that the workspace hands out to nobody."""
        return ExclusionFile(self.folder).read()

    def recipe(self) -> dict[str, dict[str, Any]]:
        """Return the parameters used last, by stage."""
        found = self._record("recipe.json", f"remove {self.folder / 'recipe.json'}, and give the options again") or {}
        if not all(isinstance(values, dict) for values in found.values()):
            raise WorkspaceError(
                f"{self.folder / 'recipe.json'} holds no parameters by stage",
                hint=f"remove {self.folder / 'recipe.json'}, and give the options again",
            )
        return found

    def write_recipe(self, stage_params: Mapping[str, Mapping[str, Any]]) -> None:
        recipe = self.recipe() | {name: dict(values) for name, values in stage_params.items()}
        if recipe != self.recipe():
            self.folder.put_record("recipe.json", recipe)

    def _record(self, name: str, hint: str) -> dict[str, Any] | None:
        try:
            return self.folder.get_record(name)
        except DamagedFileError as error:
            error.hint = hint
            raise

    def open_stage(
        self, name: str, fingerprint: str, *, columns: Mapping[str, str], counted: Sequence[str]
    ) -> StageStore:
        folder = self.folder.folder(f"stages/{name}@{fingerprint[:8]}")
        return StageStore(folder, name=name, columns=columns, counted=counted)

    def stage_names(self) -> list[str]:
        """Return the names of all stage directories, such as `align@3f9a1c2e`."""
        return self.folder.folder("stages").names("*@*")
