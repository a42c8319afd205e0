"""Registry of source kinds, which are created from the options of the command line or of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataprep.errors import UsageError
from dataprep.sources.base import Source
from dataprep.sources.selection import IdentityFilter, SelectedSource
from dataprep.text import similar_to


def open_source(kind: str, options: Mapping[str, Any], workspace: str) -> Source:
    """Create a source from its options. `limit`, `per_identity` and `identities` apply to every kind. Raises UsageError
    for unknown or missing options, SourceError for unreadable input."""
    if kind not in _KINDS:
        raise UsageError(f"unknown source {kind!r}; the kinds are {', '.join(_KINDS)}")
    given = {name.replace("-", "_"): value for name, value in options.items() if value not in (None, ())}
    try:
        _check_options(kind, given)
        if kind == "synth":  # `identities` is the number of people to draw
            return _synth(workspace, **given)
        limit, per_identity, whom = (given.pop(name, None) for name in ("limit", "per_identity", "identities"))
        identities = None if whom is None else IdentityFilter.parse(",".join(map(str, _several(whom))))
        if kind == "vggface":  # skips the lists of other identities
            source, identities = _vggface(workspace, identities=identities, **given), None
        else:
            source = _KINDS[kind](**given)
        if limit is None and per_identity is None and identities is None:
            return source
        return SelectedSource(source, limit=limit, per_identity=per_identity, identities=identities)
    except TypeError as error:
        raise UsageError(f"source {kind}: {error}") from None


def _check_options(kind: str, given: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that the source does not have, or one that it needs and was not given."""
    needed, others = _OPTIONS[kind]
    known = (*needed, *others, *(() if kind == "synth" else _SELECTION))
    for name in given:
        if name not in known:
            raise UsageError(
                f"source {kind} has no option {name!r}; its options are: {', '.join(known)}",
                hint=similar_to(name, known),
            )
    missing = [name for name in needed if name not in given]
    if missing:
        raise UsageError(f"source {kind} needs {missing[0]!r}", hint=f"set source.{missing[0]} in the recipe")


def _vggface(workspace: str, *, lists: str | None = None, **options: Any) -> Source:
    from dataprep.sources.archive import fetch_lists
    from dataprep.sources.vggface import ARCHIVE_URL, VggFaceSource

    return VggFaceSource(
        lists or fetch_lists(ARCHIVE_URL, Path(workspace) / "lists" / Path(ARCHIVE_URL).name), **options
    )


def _facescrub(*, lists: Any = (), **options: Any) -> Source:
    from dataprep.sources.facescrub import FaceScrubSource

    return FaceScrubSource(_several(lists), **options)


def _urls(*, table: str, identity: str = "", box_column: Any = (), size_columns: Any = (), **options: Any) -> Source:
    from dataprep.sources.tables import TableLayout
    from dataprep.sources.urls import ColumnMapping, UrlTableSource

    delimiter = options.pop("delimiter", "")
    if len(delimiter := _DELIMITERS.get(delimiter.lower(), delimiter)) > 1:
        raise UsageError(f"the delimiter {delimiter!r} is not one character", hint="give one, or tab, with --delimiter")
    layout = TableLayout(
        delimiter=delimiter,
        columns=_split_names(options.pop("columns", ())),
        **{name: options.pop(name) for name in ("format", "encoding") if name in options},
    )
    named = {name.removesuffix("_column"): value for name, value in options.items()}
    box, size = _split_names(box_column), _split_names(size_columns)
    if identity and "identity" in named:
        raise UsageError(
            "identity and identity_column exclude each other", hint="give --identity or --identity-column, not both"
        )
    return UrlTableSource(table, ColumnMapping(**named, box=box, size=size, constant=identity), layout=layout)


def _folder(*, root: str, **options: Any) -> Source:
    from dataprep.sources.folder import FolderSource

    return FolderSource(Path(root), **options)


def _lfw(*, root: str, pairs_file: str | None = None, **options: Any) -> Source:
    from dataprep.sources.lfw import LfwSource

    return LfwSource(Path(root), pairs=Path(pairs_file) if pairs_file else None, **options)


def _casia(*, root: str, names: str | None = None, **options: Any) -> Source:
    from dataprep.sources.casia import CasiaSource

    return CasiaSource(Path(root), names=Path(names) if names else None, **options)


def _vggface2(
    *, root: str, names: str | None = None, box_tables: Any = (), landmark_tables: Any = (), **options: Any
) -> Source:
    from dataprep.sources.vggface2 import VggFace2Source

    return VggFace2Source(
        Path(root),
        names=Path(names) if names else None,
        boxes=[Path(path) for path in _several(box_tables)],
        landmarks=[Path(path) for path in _several(landmark_tables)],
        **options,
    )


def _rec(*, pack: str) -> Source:
    from dataprep.sources.rec import PackSource

    return PackSource(Path(pack))


def _lst(*, file: str, root: str | None = None, **options: Any) -> Source:
    from dataprep.sources.image_list import LstSource

    return LstSource(Path(file), root=Path(root) if root else None, **options)


def _synth(workspace: str, *, root: str | None = None, **options: Any) -> Source:
    from dataprep.synth.photos import SyntheticSource, draw_folder

    place = Path(root or Path(workspace) / "synth" / "recipe")
    draw_folder(place, **options)
    return SyntheticSource(place)


def _split_names(given: Any) -> tuple[str, ...]:
    """Names from one or several values, each with commas between them."""
    return tuple(name.strip() for value in _several(given) for name in str(value).split(","))


def _several(given: Any) -> list[Any]:
    """Return a list of one or several values."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "blank": " ", "space": " "}
_SELECTION = ("limit", "per_identity", "identities")
# kind -> the options that it needs, and its others
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vggface": ((), ("lists", "curated_only", "frontal_only")),
    "facescrub": ((), ("lists", "ignore_hashes")),
    "urls": (
        ("table",),
        (
            "format", "columns", "delimiter", "encoding", "url_column", "identity_column", "identity", "key_column",
            "box_column", "box_format", "size_columns", "hash_column", "hash_algorithm",
        ),
    ),
    "folder": (("root",), ("aligned", "follow_links")),
    "lfw": (("root",), ("pairs_file", "aligned")),
    "casia": (("root",), ("names", "aligned")),
    "vggface2": (("root",), ("split", "box_tables", "landmark_tables", "names")),
    "rec": (("pack",), ()),
    "lst": (("file",), ("root", "dialect", "aligned")),
    "synth": ((), ("root", "identities", "photos", "seed")),
}  # fmt: skip
_KINDS: dict[str, Any] = {
    "vggface": _vggface,
    "facescrub": _facescrub,
    "urls": _urls,
    "folder": _folder,
    "lfw": _lfw,
    "casia": _casia,
    "vggface2": _vggface2,
    "rec": _rec,
    "lst": _lst,
    "synth": _synth,
}
