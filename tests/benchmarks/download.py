"""`dataprep download` against img2dataset, side by side: the same list, the same server on loopback, outputs of both kept.

    python tests/benchmarks/download.py --img2dataset .venv-img2dataset/bin/python

close, keep: a web that is all alive: photos of 17 KB at once, a new connection for each, and with connections kept (by
  dataprep; img2dataset asks for a new one each time).
web: one like VGG-Face's (webs.py): 45 % of the URLs dead, a third of those by silence, 100 ms to an answer, hosts as
  unequal as there. Equal time-outs, no retries. img2dataset as its README begins, with 64 threads, and with more.

Both are real commands from a fresh start, in rounds that take turns; medians count. Both read the same csv, hash with
sha256 and keep an account of every URL. dataprep runs with its defaults, but for the time-outs, retries and
`--allow-private`. img2dataset neither resizes, decodes nor encodes, which is its fastest, and so it must take the server's
word for what is a photo; files or tars, threads and processes are the best of those tried. CPU is user and system of all
of a tool's processes, memory the largest sum of their resident sets (shared pages split). "Once started" is less a run
over one URL. Names are resolved by names/sitecustomize.py for both: there is no network.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from commands import Bench, Run, Setting, shards_seconds, spent
from webs import ALIVE_HOSTS, Ports, Web, all_alive, draw_bases, like_vggface, serving

GOALS = {"rate": 1.3, "cpu": 0.8, "readme": 5.0}
README_THREADS, README_PROCESSES = 64, 1  # img2dataset --url_list=... --thread_count=64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", required=True, metavar="PYTHON", help="a Python in which img2dataset imports")
    parser.add_argument("--cases", default="close,keep,web", help="which webs, of %(default)s")
    parser.add_argument("--urls", type=int, default=20_000, help="photos of the web that is all alive")
    parser.add_argument("--web-urls", type=int, default=8_000, help="URLs of the one like VGG-Face's")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds, of that web; img2dataset's default is 10")
    parser.add_argument("--threads", default="16,32,64,128,256", help="of img2dataset, while all is alive")
    parser.add_argument("--web-threads", default="64,128,256,512,1024", help="of img2dataset, on the other web")
    parser.add_argument("--processes", default="1,2", help="of img2dataset")
    parser.add_argument("--tried", type=int, default=3_000, help="photos over which the best setting is looked for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a new folder for the outputs of both")
    parser.add_argument("--dataprep", default="", help="further options of `dataprep download`, in one string")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.keep or Path(temporary)
        bases = draw_bases(scratch / "bases")
        for case in options.cases.split(","):
            with serving(scratch / "bases", close=case != "keep") as ports:
                if case == "web":
                    web = like_vggface(bases, ports, options.web_urls, latency=0.1)
                    compare_web(web, make(scratch / case, web, options, lookup=0.05), options)
                else:
                    web = all_alive(bases, ports, options.urls)
                    compare_alive(case, web, make(scratch / case, web, options, lookup=0.0), ports, options)


def make(folder: Path, web: Web, options: argparse.Namespace, *, lookup: float) -> Bench:
    table, names = web.write(folder)
    return Bench(
        scratch=folder, python=options.img2dataset, timeout=options.timeout, lookup=lookup, table=table, names=names,
        extra=options.dataprep.split(),
    )  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# all alive ---------------------------------------------------------------------------------------------------------------


def compare_alive(case: str, web: Web, bench: Bench, ports: Ports, options: argparse.Namespace) -> None:
    connections = "a new connection for each" if case == "close" else "connections kept"
    print(f"{case}: {len(web.urls)} photos on {ALIVE_HOSTS} hosts, {connections}", flush=True)
    few = first(bench, options.tried)
    best = best_setting(bench, few, options)
    one = first(bench, 1)
    started = {"dataprep": bench.dataprep(one), "img2dataset": bench.img2dataset(best, one)}
    runs: dict[str, list[Run]] = {"img2dataset": [], "dataprep": []}
    served, before = 0, spent(ports.server)
    for _ in range(options.rounds):
        runs["img2dataset"].append(bench.img2dataset(best, urls=len(web.urls)))
        runs["dataprep"].append(bench.dataprep())
        served += 2 * len(web.urls)
    print(f"  the server spent {1000 * (spent(ports.server) - before) / served:.3f} ms of CPU on each")
    for name, done in runs.items():
        print(f"  {name:<12} {say(done, len(web.urls), started[name])}" + (f"   {best}" if name != "dataprep" else ""))
    later = {name: [run.since(started[name]) for run in done] for name, done in runs.items()}
    for what, done in (("in all", runs), ("once started", later)):
        print(
            f"  {what}: {ratio(done, 'wall'):.2f}x the URLs/s (goal {GOALS['rate']}), "
            f"{1 / ratio(done, 'cpu'):.2f}x the CPU (goal {GOALS['cpu']})",
            flush=True,
        )
    for name, done in runs.items():
        for run in done:
            assert run.photos == web.photos, f"{name} has {len(run.photos)} photos, not all {len(web.photos)}"


def ratio(runs: dict[str, list[Run]], which: str) -> float:
    """How many times ours the peer's median is."""
    peer, ours = (statistics.median(getattr(run, which) for run in runs[name]) for name in ("img2dataset", "dataprep"))
    return peer / ours


def best_setting(bench: Bench, table: Path, options: argparse.Namespace) -> Setting:
    """The peer's fastest by its own clock: files or tars by the first number of threads, then threads and processes."""
    found: dict[Setting, float] = {}

    def attempt(setting: Setting) -> None:
        bench.img2dataset(setting, table, options.tried)
        found[setting] = shards_seconds(bench.newest)
        print(f"    img2dataset, {setting}: {options.tried / found[setting]:.0f} URLs/s once started", flush=True)

    for output in ("files", "webdataset"):
        attempt(Setting(output=output, processes=1, threads=numbers(options.threads)[0]))
    output = min(found, key=found.__getitem__).output
    for processes, threads in itertools.product(numbers(options.processes), numbers(options.threads)):
        setting = Setting(output=output, processes=processes, threads=threads)
        if setting not in found:
            attempt(setting)
    return min(found, key=found.__getitem__)


def first(bench: Bench, count: int) -> Path:
    """The list's first URLs, as a list."""
    path = bench.scratch / f"list-{count}.csv"
    path.write_text("".join(bench.table.read_text().splitlines(keepends=True)[: count + 1]))
    return path


# a web like VGG-Face's ---------------------------------------------------------------------------------------------------


def compare_web(web: Web, bench: Bench, options: argparse.Namespace) -> None:
    hosts = Counter(url.split("/")[2] for url in web.urls)
    busiest = 100 * hosts.most_common(1)[0][1] / len(web.urls)
    print(
        f"web: {len(web.urls)} URLs on {len(hosts)} hosts, {busiest:.1f} % on the busiest; "
        f"{', '.join(f'{fate} {count}' for fate, count in web.fates.items())}; time-out {options.timeout:g} s",
        flush=True,
    )
    one = first(bench, 1)
    tried: dict[Setting, list[Run]] = {}
    for processes, threads in itertools.product(numbers(options.processes), numbers(options.web_threads)):
        setting = Setting(output="webdataset", processes=processes, threads=threads)
        tried[setting] = [bench.img2dataset(setting, urls=len(web.urls))]
        show_web(f"img2dataset, {setting}", tried[setting], web)
    best = min(tried, key=lambda setting: tried[setting][0].wall)
    ours: list[Run] = []
    for number in range(options.rounds):
        if number:
            tried[best].append(bench.img2dataset(best, urls=len(web.urls)))
        ours.append(bench.dataprep())
    show_web(f"img2dataset, {best}", tried[best], web)
    show_web("dataprep", ours, web)
    readme = tried[Setting(output="webdataset", processes=README_PROCESSES, threads=README_THREADS)]
    start, peer_start = bench.dataprep(one).wall, bench.img2dataset(best, one).wall
    for what, less, peer_less in (("in all", 0.0, 0.0), ("once started", start, peer_start)):
        middle = statistics.median(run.wall for run in ours) - less
        of_readme, of_best = (
            (statistics.median(run.wall for run in runs) - peer_less) / middle for runs in (readme, tried[best])
        )
        print(
            f"  {what}: {of_readme:.1f}x img2dataset as its README begins (goal {GOALS['readme']:.0f}), "
            f"{of_best:.2f}x its best (goal: more than 1)",
            flush=True,
        )
    got = min(len(right(run, web)) for run in ours)
    for run in tried[best]:
        missed = right(run, web) - set.intersection(*(right(one_of_ours, web) for one_of_ours in ours))
        assert not missed, f"img2dataset got {len(missed)} photos that dataprep ({got}) did not"


def right(run: Run, web: Web) -> set[str]:
    """The URLs whose photo it has, whole."""
    return {url for url, sha256 in run.photos.items() if web.photos.get(url) == sha256}


def show_web(name: str, runs: Sequence[Run], web: Web) -> None:
    have = [len(right(run, web)) for run in runs]
    wrong = max(len(run.photos) - len(right(run, web)) for run in runs)
    print(
        f"  {name:<42} {say(runs, len(web.urls))}; {min(have)} of {len(web.photos)} photos, {wrong} pages kept as photos",
        flush=True,
    )


# measuring ---------------------------------------------------------------------------------------------------------------


def say(runs: Sequence[Run], urls: int, start: Run | None = None) -> str:
    wall, cpu = (statistics.median(getattr(run, which) for run in runs) for which in ("wall", "cpu"))
    spread = f" ({min(run.wall for run in runs):.1f} to {max(run.wall for run in runs):.1f})" if len(runs) > 1 else ""
    text = f"{wall:6.1f} s{spread}, {urls / wall:6.0f} URLs/s, {1000 * cpu / urls:.2f} ms of CPU"
    if start:
        rest_wall, rest_cpu = wall - start.wall, cpu - start.cpu
        text += f"; once started {urls / rest_wall:.0f} URLs/s, {1000 * rest_cpu / urls:.2f} ms"
    return f"{text}; {max(run.memory for run in runs) / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
