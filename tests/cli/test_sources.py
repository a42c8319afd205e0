"""download and import on the command line and in recipes: options, mistakes, and what is told."""

import socket
from pathlib import Path

import pytest
from helpers.command import Run

from dataprep.storage import lock_directory
from dataprep.workspace.workspace import Workspace


def photos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_mistakes_name_the_option_that_helps(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("link,who\nhttp://x,A\n")
    assert "on request" in dataprep("download", "facescrub", code=1).stderr
    said = dataprep("download", "urls", tmp_path / "t.csv", "--url-column", "link", code=1).stderr
    assert "its columns are: link, who\nhint: name the column with --identity-column" in said
    both = ("--url-column", "link", "--identity-column", "who", "--identity", "B")
    assert (
        "give --identity or --identity-column, not both"
        in dataprep("download", "urls", tmp_path / "t.csv", *both, code=2).stderr
    )
    assert "csv, tsv, txt" in dataprep("download", "urls", tmp_path / "t.csv", "--format", "xls", code=1).stderr
    said = dataprep("import", "folder", photos(tmp_path, "A/1"), "--identities", "Ann", code=1).stderr
    assert "has none of the identities (Ann)" in said


def test_a_table_with_columns_of_its_own(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("link,who,a,b,c,d\nhttp://x,A,1,2,3,4\nhttp://y,B,1,2,3,4\n")
    columns = ("--format", "csv", "--url-column", "link", "--identity-column", "who", "--box-column", "a,b,c,d")
    out = dataprep("download", "urls", tmp_path / "list", *columns, "--identities", "B", "--dry-run").stdout
    assert "urls: 1 sample of 1 person would be planned" in out
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"source: {{kind: urls, table: {tmp_path}/t.csv, box-column: [a, b, c, d], identities: 1}}\n")
    (tmp_path / "t.csv").write_text("url,name,a,b,c,d\n")
    dataprep("run", recipe, "--dry-run")


def test_of_a_list_that_grew_it_is_told_what_is_new_and_that_the_rest_stays(dataprep: Run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = ["url,name,left,top,right,bottom", "javascript:a,A,1,2,3,4", "javascript:b,A,1,2,3,4"]
    table.write_text("\n".join(lines))
    preview = dataprep("download", "urls", table, "--dry-run").stdout
    assert "2 samples of 1 person would be planned and downloaded; 0 are" in preview
    assert not (tmp_path / "ws").exists()
    assert "already" not in dataprep("download", "urls", table, code=1).stdout
    table.write_text("\n".join([line.replace(",1,", ",0,") for line in lines] + ["javascript:c,A,1,2,3,4"]))
    preview = dataprep("download", "urls", table, "--dry-run").stdout
    assert "1 sample of 1 person would be planned and downloaded; 2 are" in preview
    out = dataprep("download", "urls", table, code=1).stdout
    assert "urls: 1 sample planned, 3 samples of 1 person in total\n2 were already planned and stay unchanged" in out


def test_what_makes_the_web_be_asked_again_is_named(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url,name\njavascript:a,A\n")
    assert "again" not in dataprep("download", "urls", tmp_path / "t.csv", code=1).stderr
    again = dataprep("download", "urls", tmp_path / "t.csv", "--per-host", "2")
    assert "again" not in again.stderr
    changed = ("download", "urls", tmp_path / "t.csv", "--max-bytes", "5000")
    why = "(1 shard: parameters changed: max_bytes 5000, was 20000000)"
    assert why in dataprep("download", "urls", tmp_path / "t.csv", "--max-bytes", "5000", "--dry-run").stdout
    assert "download: 1 shard downloaded again (parameters changed" in dataprep(*changed, code=1).stderr
    (tmp_path / "t.csv").write_text("url,name\njavascript:a,A\njavascript:b,A\n")
    assert "again" not in dataprep(*changed, code=1).stderr


def test_other_people_of_the_same_list_are_planned(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for number in range(30):
        (tmp_path / f"lists/P{number:02d}.txt").write_text("1 javascript:a://x 0 0 9 9 3 2 1\n" * 2)

    def planned(*options: object) -> str:
        code = 0 if "P02" in options and len(Workspace(tmp_path / "ws").plan().generations) > 1 else 1  # nothing to do
        said = dataprep("download", "vggface", "--lists", tmp_path / "lists", *options, code=code)
        return str(said.stdout).splitlines()[0]

    some = [f"P{number:02d}" for number in range(30)]
    assert "1 sample planned" in planned("--per-identity", 1, "--identities", "P01")
    assert "1 sample planned" in planned("--per-identity", 1, "--identities", "P02")
    assert "already planned" in planned("--per-identity", 1, "--identities", "P02")
    assert "21 samples planned" in planned("--per-identity", 1, "--identities", ",".join(some[3:24]))
    assert "6 samples planned" in planned("--per-identity", 1, "--identities", ",".join(some[9:]))
    assert "1 sample planned" in planned("--per-identity", 1, "--identities", 1)
    assert "2 samples planned" in planned("--identities", 2)  # the second photo of each
    sources = [generation.source for generation in Workspace(tmp_path / "ws").plan().generations]
    assert [source["identities"] for source in sources] == ["P01", "P02", "21 names", "21 names", 1, 2]


def test_a_download_goes_on_without_its_list(dataprep: Run, tmp_path: Path) -> None:
    assert "download SOURCE" in dataprep("download", code=1).stderr
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # and nobody listens
        (tmp_path / "t.csv").write_text(f"url,name\nhttp://127.0.0.1:{refusing.getsockname()[1]}/a,A\n")
        quick = ("--allow-private", "--retries", "0", "--max-bytes", "5000", "--outage-patience", "0")
        dataprep("download", "urls", tmp_path / "t.csv", *quick, code=1)
        assert "nothing to do" in dataprep("download").stdout
        said = dataprep("retry", "--reason", "connection").stdout
        assert "connection 1 will be retried by the next `dataprep download`, `pack` or `run`" in said
        assert "download would run (1 shard: retry requested" in dataprep("download", "--dry-run").stdout
        assert "connection 1" in dataprep("download", code=1).stdout
    assert len(list((tmp_path / "ws/stages").glob("download@*"))) == 1
    assert (
        "put the options after `urls`" in dataprep("download", "--dry-run", "urls", tmp_path / "t.csv", code=2).stderr
    )


def test_one_download_at_a_time_whatever_its_options(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url,name\njavascript:a,A\n")
    dataprep("download", "urls", tmp_path / "t.csv", code=1)
    before = Workspace(tmp_path / "ws").recipe()
    with lock_directory(tmp_path / "ws/stages", "the download"):
        said = dataprep("download", "urls", tmp_path / "t.csv", "--max-bytes", "5000", code=4).stderr
    assert "the download is being written by another run" in said
    assert Workspace(tmp_path / "ws").recipe() == before


def test_links_to_nowhere_are_accounted_for(dataprep: Run, tmp_path: Path) -> None:
    root = photos(tmp_path / "p", "A/1.jpg")
    (root / "A/2.jpg").symlink_to("/nonexistent")
    assert "2 samples" in dataprep("import", "folder", root).stdout
    assert "io_error 1" in dataprep("validate", "-j", "0").stdout


def test_lfw_and_casia_say_what_they_are(dataprep: Run, tmp_path: Path) -> None:
    out = dataprep("import", "lfw", photos(tmp_path / "l", "A_B/A_B_0001.jpg", "C/C_0001.jpg"), "--limit", "1").stdout
    assert "lfw: 1 sample planned" in out
    out = dataprep("import", "lfw", tmp_path / "l").stdout
    assert "lfw: 1 sample planned" in out  # only what is new
    assert "2 of LFW's 5749 people" in out
    assert "already planned, 2 samples of" in dataprep("import", "lfw", tmp_path / "l").stdout
    (tmp_path / "names.txt").write_text("0000045 Ann\n")
    casia = photos(tmp_path / "c", "0000045/001.jpg", "0000046/001.jpg")
    assert "1 people without a name" in dataprep("import", "casia", casia, "--names", tmp_path / "names.txt").stdout


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("{kind: lfw}", 2, "source lfw needs 'root'"),
        ("{kind: lfw, root: /no/such, colour: red}", 2, "source lfw has no option 'colour'"),
        ("{kind: nothing}", 2, "the kinds are vggface, facescrub, urls"),
        ("{kind: casia, root: /no/such}", 1, "no such directory"),
        ("{kind: folder, root: /usr, limit: many}", 2, "source folder: '<' not supported"),
    ],
)
def test_a_recipes_source_is_checked(dataprep: Run, tmp_path: Path, source: str, code: int, said: str) -> None:
    (tmp_path / "r.yaml").write_text(f"source: {source}\n")
    assert said in dataprep("run", tmp_path / "r.yaml", code=code).stderr
