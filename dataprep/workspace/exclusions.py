"""People and photos that are left out of everything a workspace hands out: WORKSPACE/exclusions.json.

An exclusion lasts until it is undone. It need not be in the plan: somebody who asked to be left out stays out of later
lists too. Names are compared without regard to case, Unicode normalisation, and blanks, underscores or hyphens, and a
name that the plan numbered (`anna~2`) goes with the plain one, since it may be the same person.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataprep.errors import DamagedFileError, UsageError, WorkspaceError
from dataprep.names import casefold_name, plain_name
from dataprep.storage import Folder, lock_directory
from dataprep.types import Sample
from dataprep.workspace.plan_table import SampleTable

_FILE = "exclusions.json"
_REMEDY = (
    f"restore {_FILE} from a copy, or move it away and name all excluded people again with `dataprep exclude` before the "
    "next pack"
)


@dataclass(frozen=True, slots=True)
class Exclusions:
    """The excluded people, by name, and photos: what was named (key, path or URL), with the keys it had in the plan."""

    people: frozenset[str] = frozenset()
    photos: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _person_forms: frozenset[str] = field(init=False, repr=False, compare=False)
    _photo_forms: frozenset[str] = field(init=False, repr=False, compare=False)
    keys: frozenset[str] = field(init=False, repr=False, compare=False)  # of the excluded photos that were in the plan

    def __post_init__(self) -> None:
        object.__setattr__(self, "_person_forms", frozenset(map(loose_name, self.people)))
        object.__setattr__(self, "_photo_forms", frozenset(map(_loose_key, self.photos)) | frozenset(self.photos))
        object.__setattr__(self, "keys", frozenset(key for keys in self.photos.values() for key in keys))

    def __bool__(self) -> bool:
        return bool(self.people or self.photos)

    def covers(self, identity: str, key: str, *locations: str) -> bool:
        """Whether a photo is excluded: its person, or itself by its key or one of its locations (path, URL)."""
        if loose_name(identity) in self._person_forms:
            return True
        return bool(self.photos) and (
            _loose_key(key) in self._photo_forms
            or key in self.keys
            or any(place in self._photo_forms for place in locations if place)
        )

    def covers_person(self, identity: str) -> bool:
        return loose_name(identity) in self._person_forms

    def digest(self) -> str:
        """A hash of what is excluded; empty if nothing is."""
        if not self:
            return ""
        parts = [*sorted(self._person_forms), "", *sorted(self._photo_forms), "", *sorted(self.keys)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def filter_samples(
        self, samples: Iterable[Sample | SampleTable], *, on_excluded: Callable[[str], None] = lambda identity: None
    ) -> Iterator[Sample | SampleTable]:
        """The samples (or tables of them, see plan_table.py) that are not excluded; the identities of others are told."""
        if not self:
            yield from samples
            return
        for found in samples:
            if isinstance(found, Sample):
                if found.error or not self.covers(found.identity, found.key, found.url, found.path):
                    yield found
                else:
                    on_excluded(found.identity)
                continue
            names = found["identity"].to_pylist()
            columns = (found[name].to_pylist() for name in ("key", "url", "path"))
            kept = [not self.covers(*row) for row in zip(names, *columns, strict=True)]
            for name, keep in zip(names, kept, strict=True):
                if not keep:
                    on_excluded(name)
            yield found if all(kept) else found.filter(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionMatch:
    """What an entry means in a plan: the photos and people it covers, or, if none, the names that are spelt like it.
    `keys` are given for a photo only."""

    entry: str
    photos: int
    people: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()


class ExclusionFile:
    """Reads and changes the exclusions of a workspace."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self) -> Exclusions:
        try:
            found = self._folder.get_record(_FILE)
        except DamagedFileError as error:
            error.hint = _REMEDY
            raise
        if found is None:
            return Exclusions()
        try:
            return Exclusions(
                frozenset(_texts(found["people"])),
                {photo: tuple(_texts(keys)) for photo, keys in found["photos"].items()},
            )
        except (AttributeError, KeyError, TypeError) as error:
            path = self._folder / _FILE
            raise WorkspaceError(
                f"{path} is not a list of exclusions ({error!r})",
                hint=_REMEDY,
            ) from None

    def add(self, matches: Iterable[ExclusionMatch]) -> Exclusions:
        """Exclude the people and photos of `match_exclusions`, in addition to those excluded before."""
        matches = list(matches)
        added = [_entry(match.entry) for match in matches]
        people = frozenset().union(*(each.people for each in added))
        photos = {photo: match.keys for each, match in zip(added, matches, strict=True) for photo in each.photos}
        return self._write(lambda now: Exclusions(now.people | people, {**now.photos, **photos}))

    def remove(self, entries: Iterable[str]) -> Exclusions:
        """Undo exclusions, in any spelling that excludes the same. Raises UsageError, and changes nothing, for an entry
        that is not excluded."""
        undone = [_entry(entry) for entry in entries]

        def change(now: Exclusions) -> Exclusions:
            people, photos = set(now.people), dict(now.photos)
            for entry in undone:
                persons = {name for name in now.people if entry.covers_person(name)}
                images = {p for p, keys in now.photos.items() if entry.photos and entry.covers("", p, p, *keys)}
                if not persons | images:
                    named = min([*entry.people, *entry.photos])
                    raise UsageError(f"{named!r} is not excluded", hint="`dataprep exclude --list` shows what is")
                people -= persons
                photos = {photo: keys for photo, keys in photos.items() if photo not in images}
            return Exclusions(frozenset(people), photos)

        return self._write(change)

    def _write(self, change: Callable[[Exclusions], Exclusions]) -> Exclusions:
        with lock_directory(self._folder.path / "plan", "the plan"):
            changed = change(self.read())
            photos = {photo: list(keys) for photo, keys in changed.photos.items()}
            self._folder.put_record(_FILE, {"people": sorted(changed.people), "photos": photos})
        return changed


def match_exclusions(entries: Iterable[str], tables: Iterable[SampleTable]) -> list[ExclusionMatch]:
    """What each entry covers in the plan, given as tables with the columns identity, key, url and path."""
    wanted = {entry: _entry(entry) for entry in entries}
    counts, keys = dict.fromkeys(wanted, 0), {entry: list[str]() for entry in wanted}
    people: dict[str, set[str]] = {entry: set() for entry in wanted}
    forms: dict[str, str] = {}
    for table in tables:
        names = {row["values"]: row["counts"] for row in table["identity"].value_counts().to_pylist()}
        forms.update((loose_name(name), name) for name in names)
        columns = [table[name].to_pylist() for name in ("identity", "key", "url", "path")] if _photos(wanted) else []
        for entry, exclusion in wanted.items():
            if exclusion.people:
                covered = {name: count for name, count in names.items() if exclusion.covers_person(name)}
                counts[entry] += sum(covered.values())
                people[entry].update(covered)
            else:
                rows = [row for row in zip(*columns, strict=True) if exclusion.covers(*row)]
                counts[entry] += len(rows)
                people[entry].update(row[0] for row in rows)
                keys[entry].extend(row[1] for row in rows)
    return [
        ExclusionMatch(
            entry=entry,
            photos=counts[entry],
            people=tuple(sorted(people[entry])),
            keys=tuple(keys[entry]),
            similar=() if counts[entry] else _similar(entry, forms),
        )
        for entry in wanted
    ]


def _photos(wanted: Mapping[str, Exclusions]) -> bool:
    return any(exclusion.photos for exclusion in wanted.values())


@functools.lru_cache(maxsize=1 << 16)
def loose_name(name: str) -> str:
    """A form that is equal for spellings of one person's name: `Anna Smith`, `anna_smith`, `Anna-Smith.`, `anna_smith~2`."""
    plain = re.sub(r"~\d+$", "", plain_name(name.strip()))
    return re.sub(r"[\s_\-\u2010-\u2015]+", "_", casefold_name(plain)).strip("_")


def _loose_key(key: str) -> str:
    """The key of a photo as excluded: the name of the person loosely, the photo's own without a photo's suffix."""
    identity, slash, name = key.partition("/")
    return f"{loose_name(identity)}{slash}{re.sub(r'[.](jpe?g|png|webp|bmp|gif)$', '', casefold_name(name))}"


def _entry(text: str) -> Exclusions:
    """The exclusion of what a user named: a person, or a photo by its key, URL or file."""
    name = text.strip()
    if not loose_name(name.partition("/")[0]) and "/" not in name:
        raise UsageError(f"{text!r} is not a name", hint="name a person, or a photo as PERSON/PHOTO, path or URL")
    if "://" in name:
        return Exclusions(photos={name: ()})
    if os.path.isfile(name) and ("/" in name or os.path.splitext(name)[1]):
        return Exclusions(photos={os.path.abspath(name): ()})
    return Exclusions(photos={name: ()}) if "/" in name else Exclusions(frozenset({plain_name(name)}))


def _similar(entry: str, forms: Mapping[str, str]) -> tuple[str, ...]:
    close = difflib.get_close_matches(loose_name(entry.partition("/")[0]), forms, n=3, cutoff=0.6)
    return tuple(forms[form] for form in close)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("expected a list of names")
    return values
