"""All stages, in build order."""

from __future__ import annotations

from typing import Any

from dataprep.stages.align import Align
from dataprep.stages.base import Stage
from dataprep.stages.crop import Crop
from dataprep.stages.detect import Detect
from dataprep.stages.download import Download
from dataprep.stages.lst import Listing
from dataprep.stages.pack import Pack
from dataprep.stages.validate import Validate

STAGES: tuple[type[Stage[Any]], ...] = (Download, Validate, Crop, Detect, Align, Listing, Pack)
BY_NAME = {stage.name: stage for stage in STAGES}


def verb(stage: str) -> str:
    """Return the command-line verb that runs a stage."""
    return {"detect": "align"}.get(stage, stage)
