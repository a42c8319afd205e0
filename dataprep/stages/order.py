"""All stages, in build order."""

from __future__ import annotations

from typing import Any

from dataprep.stages.align import AlignStage
from dataprep.stages.base import Stage
from dataprep.stages.crop import CropStage
from dataprep.stages.detect import DetectStage
from dataprep.stages.download import DownloadStage
from dataprep.stages.lst import ListStage
from dataprep.stages.pack import PackStage
from dataprep.stages.validate import ValidateStage

STAGES: tuple[type[Stage[Any]], ...] = (
    DownloadStage,
    ValidateStage,
    CropStage,
    DetectStage,
    AlignStage,
    ListStage,
    PackStage,
)
STAGES_BY_NAME = {stage.name: stage for stage in STAGES}


def stage_verb(stage: str) -> str:
    """Return the command-line verb that runs a stage."""
    return {"detect": "align"}.get(stage, stage)
