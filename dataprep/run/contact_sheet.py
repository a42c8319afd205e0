"""A picture of aligned faces, a person per row: the quickest way to see that an alignment is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataprep.errors import WorkspaceError
from dataprep.imaging.photo import Pixels, decode, encode_png
from dataprep.run.export import images_of
from dataprep.storage import Folder


def draw_contact_sheet(workspace: str, path: Path, *, people: int = 8, faces: int = 12) -> Path:
    """Write a PNG with the first faces of the first identities; returns its path."""
    rows: dict[str, list[Pixels]] = {}
    for row, data in images_of(workspace, "align"):
        mine = rows.setdefault(row["identity"], [])
        if len(mine) < faces:
            mine.append(decode(data)[0])
        elif len(rows) > people:
            break
    shown = list(rows.values())[:people]
    if not shown:
        raise WorkspaceError(f"{workspace} holds no aligned faces yet: `dataprep align`")
    height, width = (max(face.shape[axis] for mine in shown for face in mine) for axis in (0, 1))
    sheet = np.full((height * len(shown), width * faces, 3), 255, np.uint8)
    for y, mine in enumerate(shown):
        for x, face in enumerate(mine):
            sheet[y * height : y * height + face.shape[0], x * width : x * width + face.shape[1]] = face
    return Folder(path.parent).put(path.name, encode_png(sheet))
