"""Random verbs, kills, flipped bits, full disks and changed photos on a workspace, and a model that knows what must be
there.

    python tests/crash/chaos.py                         # `make chaos`: ten thousand steps
    python tests/crash/chaos.py --steps 300 --seed 4    # the short form of `make crash`

The model is a dictionary of what lies in the folder of photos, and a few sets; it knows nothing of how a workspace is made.
From time to time the folder is imported and packed, and then pack and export must hold exactly the model's faces. Every verb
must end with a documented exit code and without a traceback, whatever was done to the workspace before it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.command import command, environment  # noqa: E402
from helpers.small_faces import noise  # noqa: E402

from dataprep.cli.main import main as run_command  # noqa: E402
from dataprep.packs.io import open_pack  # noqa: E402

CODES = (0, 1, 2, 3, 4)
PEOPLE, SIDE = 8, 112
Faces = dict[str, Counter[bytes]]


class Chaos:
    """A folder of photos, a workspace, and the model of both."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.photos, self.workspace, self.out = folder / "photos", folder / "ws", folder / "out"
        self.random, self.drawn = random.Random(seed), 0
        self.files: dict[str, bytes | None] = {}  # what lies in the folder, by path; None is no image
        self.excluded: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.min_images = 1
        self.history: list[str] = []
        self.told = ""
        self.counts: Counter[str] = Counter()
        for person in range(PEOPLE):
            for number in range(3):
                self._write(f"p{person}/{number}.jpg", self._draw())

    # the model -------------------------------------------------------------------------------------------------------

    def in_export(self) -> Faces:
        found: Faces = {}
        for path, image in self.files.items():
            person = path.partition("/")[0]
            if image is not None and person not in self.excluded and self.renamed.get(person) not in self.excluded:
                found.setdefault(person, Counter())[image] += 1
        return found

    def in_pack(self) -> Faces:
        found: Faces = {}
        for person, images in self.in_export().items():
            found.setdefault(self.renamed.get(person, person), Counter()).update(images)
        return {person: images for person, images in found.items() if images.total() >= self.min_images}

    # steps -----------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        steps: dict[Callable[[], None], int] = {
            self.add: 6, self.replace: 5, self.delete: 4, self.spoil: 2, self.forget_person: 1, self.exclude: 2,
            self.undo: 2, self.rename: 1, self.look: 6, self.build: 10, self.kill: 2, self.flip: 5, self.full_disk: 1,
            self.at_once: 1, self.clean: 3, self.settle: 6,
        }  # fmt: skip
        chosen = self.random.choices(list(steps), list(steps.values()))[0]
        self.counts[chosen.__name__] += 1
        chosen()

    def add(self) -> None:
        self._write(f"p{self.random.randrange(PEOPLE)}/{self.random.randrange(12)}.jpg", self._draw())

    def replace(self) -> None:
        if self.files:
            self._write(self.random.choice(sorted(self.files)), self._draw())

    def spoil(self) -> None:
        if self.files:
            self._write(self.random.choice(sorted(self.files)), None)

    def delete(self) -> None:
        if self.files:
            path = self.random.choice(sorted(self.files))
            self._note(f"rm {path}")
            del self.files[path]
            (self.photos / path).unlink()

    def forget_person(self) -> None:
        person = f"p{self.random.randrange(PEOPLE)}"
        self._note(f"rm -r {person}")
        shutil.rmtree(self.photos / person, ignore_errors=True)
        self.files = {path: image for path, image in self.files.items() if not path.startswith(f"{person}/")}

    def exclude(self) -> None:
        person = f"p{self.random.randrange(PEOPLE)}"
        if self.verb("exclude", person) == 0:
            self.excluded.add(person)

    def undo(self) -> None:
        if self.excluded:
            person = self.random.choice(sorted(self.excluded))
            if self.verb("exclude", "--undo", person) == 0:
                self.excluded.discard(person)

    def rename(self) -> None:
        chosen = self.random.sample(range(PEOPLE), 2)
        self.renamed = self.random.choice([{}, {f"p{chosen[0]}": f"p{chosen[1]}"}, {f"p{chosen[0]}": "Ada"}])
        self.names.write_text("".join(f"{old}\t{new}\n" for old, new in self.renamed.items()))
        self._note(f"map {self.renamed}")

    def look(self) -> None:
        verbs = (["status"], ["status", "--why"], ["samples", "--dropped"], ["check"], ["status", "--json"])
        self.verb(*self.random.choice(verbs))

    def build(self) -> None:
        self.min_images = self.random.choice((1, 1, 1, 2, 3))
        verb = self.random.choice(("validate", "align", "lst", "pack", "export", "import", "retry"))
        self.verb(*self._arguments(verb))

    def clean(self) -> None:
        self.verb(*self.random.choice((["gc"], ["check", "--redo"], ["gc", "--dry-run"])))

    def kill(self) -> None:
        process = self._start(self._arguments(self.random.choice(("import", "align", "pack", "export"))))
        time.sleep(self.random.uniform(0.3, 1.6))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def at_once(self) -> None:
        verbs = [self._arguments(verb) for verb in self.random.sample(("import", "pack", "export", "align"), 2)]
        both = [self._start(verb) for verb in [*verbs, ["gc"]]]
        for process in both:
            _, errors = process.communicate()
            self._judge(process.returncode, errors)

    def full_disk(self) -> None:
        """The disk's end is a limit on the size of files."""
        limit = self.random.choice((0, 300, 5_000, 40_000))
        process = self._start(
            self._arguments(self.random.choice(("import", "pack", "export", "align"))),
            before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit,) * 2),
        )
        _, errors = process.communicate()
        self._judge(process.returncode, errors)

    def flip(self) -> None:
        """One bit, anywhere but in the plan's tables and the lists that only the user can restore."""
        files = [
            path
            for path in sorted(self.workspace.rglob("*"))
            if path.is_file() and path.stat().st_size and path.name != ".lock"
            and path.relative_to(self.workspace).parts[0] in ("stages", "packs")
        ]  # fmt: skip
        if files:
            path = self.random.choice(files)
            data = bytearray(path.read_bytes())
            bit = self.random.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            self._note(f"flip {path.relative_to(self.workspace)} bit {bit}")

    def settle(self) -> None:
        """Import and pack, by the tool's own advice where something is damaged, and compare with the model."""
        self.verb("check", "--redo")
        code = self.verb(*self._arguments("import"))
        assert code == 0 or not self.files, self._story(f"import: exit {code}\n{self.told}")
        code = self.verb(*self._arguments("pack"), "--overwrite")
        wanted = self.in_pack()
        if not wanted:
            assert code in (1, 2), self._story(f"a pack of nobody: exit {code}")
            return
        assert code in (0, 1), self._story(
            f"pack: exit {code}"
        )  # 1: nearly all are lost for one reason, and that is said
        self._compare("pack", self._packed(), wanted)
        self.verb(*self._arguments("export"))
        exported: Faces = {}
        for path in self.out.rglob("*.jpg"):
            exported.setdefault(path.relative_to(self.out).parts[0], Counter())[path.read_bytes()] += 1
        self._compare("export", exported, self.in_export())

    # tools -----------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> Path:
        return self.photos.parent / "names.tsv"

    def verb(self, *words: object) -> int:
        self._note("dataprep " + " ".join(map(str, words)))
        told = io.StringIO()
        code: object = None
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                run_command(["-w", str(self.workspace), *map(str, words)])
            except SystemExit as ended:
                code = ended.code
        self.told = told.getvalue()  # the last verb's
        self._judge(code, self.told)
        assert isinstance(code, int)
        return code

    def _arguments(self, verb: str) -> list[object]:
        if verb == "import":
            return ["import", "folder", self.photos, "--aligned"]
        if verb == "export":
            return ["export", self.out]
        if verb == "retry":
            return ["retry", "--reason", "io_error,photo_changed"]
        if verb in ("lst", "pack"):
            return [verb, "--min-images", self.min_images, *(["--map", self.names] if self.renamed else []), "-j", 0]
        return [verb, "-j", 0]

    def _start(self, words: list[object], before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
        self._note("process: " + " ".join(map(str, words)))
        return subprocess.Popen(
            command("-w", self.workspace, *words), env=environment(), start_new_session=True, preexec_fn=before,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _judge(self, code: object, told: str) -> None:
        assert code in CODES, self._story(f"exit {code}\n{told}")
        assert "Traceback" not in told, self._story(told)

    def _packed(self) -> Faces:
        pack = open_pack(self.workspace / "packs/train")
        found: Faces = {}
        for position in range(len(pack)):
            face = pack.face(position)
            found.setdefault(face.identity, Counter())[face.image] += 1
        return found

    def _compare(self, what: str, found: Faces, wanted: Faces) -> None:
        if found != wanted:
            people = {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}
            sizes = {n: (found.get(n, Counter()).total(), wanted.get(n, Counter()).total()) for n in sorted(people)}
            raise AssertionError(self._story(f"{what}: (found, expected) images of {sizes}"))

    def _draw(self) -> bytes:
        self.drawn += 1
        return noise(self.drawn, SIDE)

    def _write(self, path: str, image: bytes | None) -> None:
        self._note(f"{'write' if image else 'spoil'} {path}")
        self.files[path] = image
        (self.photos / path).parent.mkdir(parents=True, exist_ok=True)
        # a new file, as programs write them
        (self.photos / path).unlink(missing_ok=True)
        (self.photos / path).write_bytes(image or b"no image %d" % self.random.randrange(1000))

    def _note(self, text: str) -> None:
        self.history.append(text)

    def _story(self, what: str) -> str:
        return f"{what}\nthe last steps:\n  " + "\n  ".join(self.history[-60:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        chaos = Chaos(Path(scratch), given.seed)
        chaos.settle()
        for number in range(1, given.steps + 1):
            chaos.step()
            if number % 100 == 0:
                print(f"step {number} of {given.steps}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        chaos.settle()
    print(f"{given.steps} steps with seed {given.seed}: {dict(chaos.counts)}")
    print("no difference from the model")


if __name__ == "__main__":
    main()
