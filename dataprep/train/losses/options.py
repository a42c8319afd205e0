"""What can be trained for: the losses by name, and the parameters of all. No torch here, so that `--help` is quick.

A margin is a triple (m1, m2, m3) of `scale * (cos(m1 * theta + m2) - m3)`, theta being the angle between an embedding
and the centre of its class (Deng et al. 2019, arXiv:1801.07698, eq. 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from dataprep.errors import UsageError
from dataprep.params import StageParams, param

Kind = Literal["softmax", "margin", "adaface", "center", "triplet", "angular-triplet"]
Margins = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One name of `--loss`: what it is, where it is from, and what it takes where nothing else is said."""

    kind: Kind
    about: str
    source: str
    margins: Margins | None = None
    subcenters: int = 1
    triplet_margin: float | None = None

    @property
    def by_identity(self) -> bool:
        """Whether its batches are P identities of K images each (`pk_order`)."""
        return self.triplet_margin is not None


_param = partial(param, group="Loss")
_TABLE = "insightface's table of margins (recognition/ArcFace)"
LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "softmax": Loss(kind="softmax", about="a linear layer with bias, no margin", source="insightface `softmax`"),
        "norm-softmax": Loss(kind="margin", about="cosines, no margin", source=_TABLE, margins=(1.0, 0.0, 0.0)),
        # the paper's own m = 4 is --m1 4: the same psi, without its annealing and with embeddings of length `scale`
        "sphereface": Loss(
            kind="margin", about="a multiple of the angle (Liu et al. 2017)", source=_TABLE, margins=(1.5, 0.0, 0.0)
        ),
        "cosface": Loss(
            kind="margin", about="less than the cosine (Wang et al. 2018)", source=_TABLE, margins=(1.0, 0.0, 0.35)
        ),
        "arcface": Loss(
            kind="margin", about="more than the angle (Deng et al. 2019)", source=_TABLE, margins=(1.0, 0.5, 0.0)
        ),
        "combined": Loss(
            kind="margin", about="angle and cosine; insightface's `combined`", source=_TABLE, margins=(1.0, 0.3, 0.2)
        ),
        "combined-1.2-0.4-0": Loss(
            kind="margin", about="multiple and angle", source=_TABLE, margins=(1.2, 0.4, 0.0)
        ),
        "combined-1.1-0-0.35": Loss(
            kind="margin", about="multiple and cosine", source=_TABLE, margins=(1.1, 0.0, 0.35)
        ),
        "combined-0.9-0.4-0.15": Loss(
            kind="margin", about="all three", source=_TABLE, margins=(0.9, 0.4, 0.15)
        ),
        "multimargin": Loss(
            kind="margin", about="angle and cosine", source="Face_Pytorch `MultiMargin`", margins=(1.0, 0.2, 0.35)
        ),
        "adaface": Loss(
            kind="adaface",
            about="a margin that follows the length of the embedding, m2 is its m",
            source="Kim et al. 2022, arXiv:2204.00964",
            margins=(1.0, 0.4, 0.0),
        ),
        "subcenter-arcface": Loss(
            kind="margin",
            about="arcface with three centres for each identity, the nearest counts",
            source="Deng et al. 2020, ECCV",
            margins=(1.0, 0.5, 0.0),
            subcenters=3,
        ),
        "center": Loss(
            kind="center",
            about="softmax, and the distance of each embedding to the mean of its identity",
            source="Wen et al. 2016, ECCV; Face_Pytorch `CenterLoss`",
        ),
        "triplet": Loss(
            kind="triplet",
            about="squared distances of semi-hard triplets, to fine-tune a trained model",
            source="Schroff et al. 2015, arXiv:1503.03832; insightface `triplet`",
            triplet_margin=0.3,
        ),
        "angular-triplet": Loss(
            kind="angular-triplet",
            about="angles of semi-hard triplets, to fine-tune a trained model",
            source="insightface `atriplet`",
            triplet_margin=0.35,
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LossParams(StageParams):
    """What decides the loss. None is the preset's."""

    loss: str = _param("arcface", "what is trained for", choices=tuple(LOSSES))
    m1: float | None = _param(None, "the multiple of the angle; default: the loss's", minimum=0.1)
    m2: float | None = _param(None, "what is added to the angle, in radians; default: the loss's")
    m3: float | None = _param(None, "what is taken off the cosine; default: the loss's")
    scale: float = _param(32.0, "scale of the cosines; insightface takes 64 for its 85742 identities", minimum=1.0)
    subcenters: int | None = _param(None, "centres for each identity; default: the loss's", minimum=1)
    sample_rate: float = _param(
        1.0, "share of the other identities' centres in a step (PartialFC)", minimum=0.0, maximum=1.0
    )
    adaface_h: float = _param(0.333, "how far the margin follows the length", minimum=0.0)
    adaface_t_alpha: float = _param(0.01, "weight of a batch in the running mean of lengths", minimum=0.0, maximum=1.0)
    center_weight: float = _param(0.01, "weight of the squared distance to the mean", minimum=0.0)
    center_rate: float = _param(0.5, "how fast the means move", minimum=0.0, maximum=1.0)
    triplet_margin: float | None = _param(None, "margin of triplets; default: the loss's", minimum=0.0)
    identities_per_batch: int = _param(12, "identities in a batch of triplets", minimum=2)
    images_per_identity: int = _param(5, "images of each identity in a batch of triplets", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        preset = LOSSES[self.loss]
        for name, takes in (
            ("m1", preset.kind == "margin"),
            ("m2", preset.margins is not None),
            ("m3", preset.kind == "margin"),
            ("subcenters", preset.margins is not None),
            ("triplet_margin", preset.by_identity),
        ):
            if getattr(self, name) is not None and not takes:
                raise UsageError(f"--{name.replace('_', '-')} means nothing to --loss {self.loss}: leave it out")

    def margins(self) -> Margins:
        """The preset's (m1, m2, m3) with what was asked for instead; UsageError for a loss without margins."""
        preset = LOSSES[self.loss].margins
        if preset is None:
            raise UsageError(f"--loss {self.loss} has no margins")
        asked = (self.m1, self.m2, self.m3)
        m1, m2, m3 = (own if value is None else value for own, value in zip(preset, asked, strict=True))
        return m1, m2, m3
