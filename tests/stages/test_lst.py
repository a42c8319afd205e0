"""lst in columns against the same rules said plainly, row by row; and what users see of faces that come again."""

import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.errors import SourceError
from dataprep.imaging.codec import encode_jpeg
from dataprep.reasons import Reason
from dataprep.stages.align import AlignStage
from dataprep.stages.base import MergeContext, MergeInput, Stage
from dataprep.stages.detect import DetectStage
from dataprep.stages.lst import ListingParams, ListStage, choose_held_out
from dataprep.stages.validate import ValidateStage
from dataprep.storage import Folder
from dataprep.types import Row
from dataprep.workspace.exclusions import Exclusions
from dataprep.workspace.ledger import add_missing_columns
from dataprep.workspace.stage_store import StageStore

PEOPLE = ["ann", "bob", "Zoë", "émile", "zed"]


def photo_hash(photo: int) -> str:
    return f"{photo % 2:016x}{photo:016x}" + "0" * 32  # the difference lies in either half of what is compared


def part(folder: Path, shard: str, faces: list[dict[str, Any]]) -> MergeInput:
    """A shard's ledgers as the stages write them; each face has key, identity, photo, face (or None) and lost."""
    ledgers = {}
    kinds: list[type[Stage[Any]]] = [ValidateStage, DetectStage, AlignStage]
    for kind in kinds:
        rows = []
        for face in faces:
            reason = Reason.NO_FACE if face["lost"] and kind is AlignStage else None
            values: dict[str, Any] = {}
            if kind is ValidateStage:
                values = {"photo_sha256": photo_hash(face["photo"])}
            elif kind is DetectStage and face["face"] is not None:
                offsets = np.array([[0, 0], [10, 0], [5, 5], [1, 10], [9, 10]])
                points = [*offsets.ravel() + 700.0, *(offsets + 40 * face["face"]).ravel()]
                values = {"landmarks": points, "selected": 1}
            payload = face["key"].encode() if kind is AlignStage and not reason else None
            rows.append(Row(key=face["key"], identity=face["identity"], reason=reason, values=values, payload=payload))
        directory = StageStore(Folder(folder / kind.name), name=kind.name, columns=kind.columns, counted=())
        ledgers[kind.name] = directory.rows_path(directory.commit(shard, rows, upstream="", seconds=0))
    return MergeInput(shard=shard, ledgers=ledgers)


def listed(parts: list[MergeInput], params: ListingParams, exclusions: Exclusions) -> tuple[list[dict[str, Any]], Any]:
    context = MergeContext(workspace=Path(), recipe={}, sources=[], payloads={}, progress=lambda done: None)
    merged = ListStage(params, exclusions).merge(parts, context)
    rows = add_missing_columns(merged.table, ListStage.columns).to_pylist()
    return [{name: row[name] for name in row if name not in ("offset", "size", "sha256")} for row in rows], merged.extra


def plainly(
    shards: dict[str, list[dict[str, Any]]], places: dict[str, Any], params: ListingParams, excluded: Collection[str]
) -> list[Any]:
    """The rules, one row at a time."""
    rows = sorted(
        ({**face, "source": shard} for shard, faces in shards.items() for face in faces if not face["lost"]),
        key=lambda face: (face["identity"], face["key"]),
    )
    for row in rows:
        same = [
            other
            for other in rows
            if (other["photo"], other["face"]) == (row["photo"], row["face"])
            and other["key"] not in excluded
            and row["key"] not in excluded
        ]
        row["duplicate_of"] = same[0]["key"] if same and same[0] is not row else None
        mine = [other for other in same if other["identity"] == row["identity"]]
        row["again"] = mine[0]["key"] if mine and mine[0] is not row else None
        others = [other["key"] for other in same if other["identity"] != row["identity"]]
        row["contested"] = others[0] if others else None
        row["reason"], row["detail"] = None, ""
        if row["key"] in excluded:
            row["reason"] = "excluded"
        elif row["contested"] and params.duplicates in ("across", "both"):
            row["reason"], row["detail"] = "identity_conflict", f"the same photo and face as {row['contested']}"
        elif row["again"] and params.duplicates in ("within", "both"):
            row["reason"], row["detail"] = "duplicate", f"the same photo and face as {row['again']}"
    images = Counter(row["identity"] for row in rows if not row["reason"])
    kept = {name: images[name] for name in sorted(images) if images[name] >= params.min_images}
    held_out = choose_held_out(kept, params.holdout, params.seed)
    assert len(held_out) >= min(4, sum(count > 1 for count in kept.values()) // 2) * bool(params.holdout)
    labels = {name: label for label, name in enumerate(name for name in kept if name not in held_out)}
    result = []
    for row in rows:
        name = row["identity"]
        if not row["reason"] and name not in kept:
            row["reason"], row["detail"] = "too_few_images", f"{images[name]} of {name}"
        values = {
            "label": labels.get(name, -1),
            "split": "holdout" if name in held_out else "train",
            "shard": row["source"],
            "face_offset": places[row["key"]][0],
            "face_size": places[row["key"]][1],
        }
        result.append(
            {
                "key": row["key"],
                "identity": name,
                "verdict": "dropped" if row["reason"] else "ok",
                "reason": row["reason"],
                "detail": row["detail"],
                **(dict.fromkeys(values) if row["reason"] else values),
                "duplicate_of": row["duplicate_of"],
            }
        )
    return result


FACES = st.fixed_dictionaries(
    {
        "identity": st.sampled_from(PEOPLE),
        "photo": st.integers(0, 7),
        "face": st.integers(0, 2),
        "lost": st.sampled_from([False, False, False, True]),
    }
)


@settings(max_examples=25, deadline=None)
@given(
    shards=st.lists(st.lists(FACES, max_size=12), min_size=1, max_size=3),
    duplicates=st.sampled_from(["keep", "within", "across", "both"]),
    min_images=st.integers(1, 3),
    holdout=st.sampled_from([0.0, 0.5]),
    exclusions=st.sampled_from([Exclusions(), Exclusions(frozenset({"BOB"})), Exclusions(photos={"x": ("ann/07é",)})]),
)
def test_the_listing_is_what_its_rules_say(
    tmp_path_factory: pytest.TempPathFactory, shards: list[Any], exclusions: Exclusions, **chosen: Any
) -> None:
    folder = tmp_path_factory.mktemp("lst")
    params = ListingParams(**chosen)
    named = {f"g0-{number}": faces for number, faces in enumerate(shards)}
    number = 0
    for faces in named.values():
        for face in faces:
            number += 1
            face["key"] = f"{face['identity']}/{(number * 7) % 100:02d}é"
            if face["photo"] > 5:
                face["face"] = None  # faces as a pack holds them
    parts = [part(folder, shard, faces) for shard, faces in named.items()]
    places = {
        row["key"]: (row["offset"], row["size"])
        for one in parts
        for row in one.read_passed("align", ["key", "offset", "size"]).to_pylist()
    }
    excluded = {face["key"] for faces in named.values() for face in faces if face["identity"] == "bob"}
    excluded = excluded if exclusions.people else {"ann/07é"} if exclusions.photos else set()
    expected = plainly(named, places, params, excluded)
    photos = Counter(row["identity"] for row in expected if not row["reason"])
    if params.holdout and sum(count > 1 for count in photos.values()) < 4:
        with pytest.raises(SourceError, match="takes 4 people with two images each"):
            listed(parts, params, exclusions)
        return
    rows, extra = listed(parts, params, exclusions)
    assert rows == expected
    assert extra["identities"] == len({row["label"] for row in rows} - {None, -1})


def test_two_people_in_one_photo_are_no_duplicates_and_the_same_face_a_little_beside_is_one(tmp_path: Path) -> None:
    group = [
        {"key": "ann/1", "identity": "ann", "photo": 1, "face": 0.0, "lost": False},
        {"key": "bob/1", "identity": "bob", "photo": 1, "face": 5.0, "lost": False},
        {"key": "zed/1", "identity": "zed", "photo": 1, "face": 5.05, "lost": False},
    ]
    rows, extra = listed([part(tmp_path, "g0-0", group)], ListingParams(min_images=1, duplicates="both"), Exclusions())
    assert [row["reason"] for row in rows] == [None, "identity_conflict", "identity_conflict"]
    assert rows[2]["duplicate_of"] == "bob/1"
    assert extra["duplicates"] == {"within": 0, "across": 2}


def test_faces_that_come_again_are_counted_and_dropped_if_asked_for(dataprep: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for person in ("ann", "bob", "eve"):
        (tmp_path / f"faces/{person}").mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 255, (112, 112, 3), np.uint8)
            (tmp_path / f"faces/{person}/{number}.jpg").write_bytes(encode_jpeg(pixels))
    shutil.copy(tmp_path / "faces/ann/0.jpg", tmp_path / "faces/ann/9.jpg")
    shutil.copy(tmp_path / "faces/bob/1.jpg", tmp_path / "faces/eve/8.jpg")
    dataprep("import", "folder", tmp_path / "faces", "--aligned")
    said = "duplicate faces in identical photos: 1 within a person, 2 across people"
    assert said in dataprep("lst", "-j", "0").stdout
    assert said in dataprep("status").stdout
    shown = dataprep("lst", "--duplicates", "both", "-j", "0").stdout
    assert "lst: 11 in = 8 ok + 3 dropped (identity_conflict 2, duplicate 1) + 0 failed" in shown
