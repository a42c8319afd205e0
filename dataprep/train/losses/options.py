"""The losses by name, and their parameters. torch is not imported here, so that `--help` is quick.

A margin is a triple (m1, m2, m3) of `scale * (cos(m1 * theta + m2) - m3)`, where theta is the angle between an
embedding and the centre of its class (Deng et al. 2019, arXiv:1801.07698, eq. 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from dataprep.errors import UsageError
from dataprep.params import StageParams, counted_field

Kind = Literal["softmax", "margin", "adaface", "center", "triplet", "angular-triplet"]
MarginTriple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPreset:
    """A value of `--loss`: its kind, description, source and default parameters."""

    kind: Kind
    about: str
    source: str
    margins: MarginTriple | None = None
    subcenters: int = 1
    triplet_margin: float | None = None

    @property
    def by_identity(self) -> bool:
        """Whether batches consist of P identities with K images each (`pk_order`)."""
        return self.triplet_margin is not None


_param = partial(counted_field, group="Loss")
_TABLE = "insightface's table of margins (recognition/ArcFace)"
LOSS_PRESETS: Mapping[str, LossPreset] = MappingProxyType(
    {
        "softmax": LossPreset(kind="softmax", about="a linear layer with bias, no margin", source="insightface `softmax`"),
        "norm-softmax": LossPreset(kind="margin", about="cosine logits, no margin", source=_TABLE, margins=(1.0, 0.0, 0.0)),
        # the paper's m = 4 is --m1 4: the same psi, without annealing and with embeddings of length `scale`
        "sphereface": LossPreset(
            kind="margin", about="factor on the angle (Liu et al. 2017)", source=_TABLE, margins=(1.5, 0.0, 0.0)
        ),
        "cosface": LossPreset(
            kind="margin", about="cosine margin (Wang et al. 2018)", source=_TABLE, margins=(1.0, 0.0, 0.35)
        ),
        "arcface": LossPreset(
            kind="margin", about="angular margin (Deng et al. 2019)", source=_TABLE, margins=(1.0, 0.5, 0.0)
        ),
        "combined": LossPreset(
            kind="margin", about="angle and cosine margin; insightface's `combined`", source=_TABLE, margins=(1.0, 0.3, 0.2)
        ),
        "combined-1.2-0.4-0": LossPreset(
            kind="margin", about="factor on the angle, and angular margin", source=_TABLE, margins=(1.2, 0.4, 0.0)
        ),
        "combined-1.1-0-0.35": LossPreset(
            kind="margin", about="factor on the angle, and cosine margin", source=_TABLE, margins=(1.1, 0.0, 0.35)
        ),
        "combined-0.9-0.4-0.15": LossPreset(
            kind="margin", about="factor, angular margin and cosine margin", source=_TABLE, margins=(0.9, 0.4, 0.15)
        ),
        "multimargin": LossPreset(
            kind="margin", about="angle and cosine margin", source="Face_Pytorch `MultiMargin`", margins=(1.0, 0.2, 0.35)
        ),
        "adaface": LossPreset(
            kind="adaface",
            about="margin that adapts to the embedding norm; m2 is the paper's m",
            source="Kim et al. 2022, arXiv:2204.00964",
            margins=(1.0, 0.4, 0.0),
        ),
        "subcenter-arcface": LossPreset(
            kind="margin",
            about="arcface with three centres per identity; the nearest is used",
            source="Deng et al. 2020, ECCV",
            margins=(1.0, 0.5, 0.0),
            subcenters=3,
        ),
        "center": LossPreset(
            kind="center",
            about="softmax plus the distance of each embedding to the mean of its identity",
            source="Wen et al. 2016, ECCV; Face_Pytorch `CenterLoss`",
        ),
        "triplet": LossPreset(
            kind="triplet",
            about="squared distances of semi-hard triplets, for fine-tuning",
            source="Schroff et al. 2015, arXiv:1503.03832; insightface `triplet`",
            triplet_margin=0.3,
        ),
        "angular-triplet": LossPreset(
            kind="angular-triplet",
            about="angles of semi-hard triplets, for fine-tuning",
            source="insightface `atriplet`",
            triplet_margin=0.35,
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LossParams(StageParams):
    """Parameters of the loss. None takes the preset's value."""

    loss: str = _param("arcface", "loss function", choices=tuple(LOSS_PRESETS))
    m1: float | None = _param(None, "multiplier of the angle; default: the loss's own", minimum=0.1)
    m2: float | None = _param(None, "margin added to the angle, in radians; default: the loss's own")
    m3: float | None = _param(None, "margin subtracted from the cosine; default: the loss's own")
    arcface_gradient: str = _param(
        "exact", "gradient of an angular margin: the derivative of the loss, or arcface_torch's, which takes the arccos "
        "outside the graph", choices=("exact", "arcface_torch"),
    )  # fmt: skip
    scale: float = _param(32.0, "scale of the cosines; insightface uses 64 for its 85742 identities", minimum=1.0)
    subcenters: int | None = _param(None, "centres per identity; default: the loss's own", minimum=1)
    sample_rate: float = _param(
        1.0, "share of the other identities' centres sampled per step (PartialFC)", minimum=0.0, maximum=1.0
    )
    adaface_h: float = _param(0.333, "AdaFace's h: how strongly the margin depends on the embedding norm", minimum=0.0)
    adaface_t_alpha: float = _param(
        0.01, "AdaFace's t_alpha: weight of a batch in the running statistics of norms", minimum=0.0, maximum=1.0
    )
    center_weight: float = _param(0.01, "weight of the squared distance to the class mean", minimum=0.0)
    center_rate: float = _param(0.5, "update rate of the class means", minimum=0.0, maximum=1.0)
    triplet_margin: float | None = _param(None, "margin of triplets; default: the loss's own", minimum=0.0)
    identities_per_batch: int = _param(12, "identities per batch of a triplet loss", minimum=2)
    images_per_identity: int = _param(5, "images per identity in a batch of a triplet loss", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        preset = LOSS_PRESETS[self.loss]
        for name, takes in (
            ("m1", preset.kind == "margin"),
            ("m2", preset.margins is not None),
            ("m3", preset.kind == "margin"),
            ("subcenters", preset.margins is not None),
            ("triplet_margin", preset.by_identity),
        ):
            if getattr(self, name) is not None and not takes:
                option = name.replace("_", "-")
                raise UsageError(f"{option} does not apply to the loss {self.loss}", hint=f"leave out --{option}")

        if self.arcface_gradient != "exact" and (preset.margins is None or preset.kind != "margin"):
            raise UsageError(
                f"arcface-gradient does not apply to the loss {self.loss}", hint="leave out --arcface-gradient"
            )

    def margins(self) -> MarginTriple:
        """The preset's (m1, m2, m3), overridden by the fields that are set; UsageError if the loss has no margins."""
        preset = LOSS_PRESETS[self.loss].margins
        if preset is None:
            raise UsageError(f"the loss {self.loss} has no margins")
        asked = (self.m1, self.m2, self.m3)
        m1, m2, m3 = (own if value is None else value for own, value in zip(preset, asked, strict=True))
        return m1, m2, m3
