"""All stages, in build order: the download, stages that look at one sample at a time, stages over all shards."""

from __future__ import annotations

from typing import Any

from dataprep.stages.align import AlignStage
from dataprep.stages.base import MapStage, MergeStage, Stage
from dataprep.stages.crop import CropStage
from dataprep.stages.detect import DetectStage
from dataprep.stages.download import DownloadStage
from dataprep.stages.lst import ListStage
from dataprep.stages.pack import PackStage
from dataprep.stages.validate import ValidateStage

MAP_STAGES: tuple[type[MapStage[Any]], ...] = (ValidateStage, CropStage, DetectStage, AlignStage)
MERGE_STAGES: tuple[type[MergeStage[Any]], ...] = (ListStage, PackStage)
_STAGES: tuple[type[Stage[Any]], ...] = (DownloadStage, *MAP_STAGES, *MERGE_STAGES)
STAGES_BY_NAME = {stage.name: stage for stage in _STAGES}


def stage_verb(stage: str) -> str:
    """Return the command-line verb that runs a stage."""
    return {"detect": "align"}.get(stage, stage)
