"""Folders of shards: a million records imported, an index of five million opened, and random access three ways.

``import`` writes tiny images and an annotation in the form ham, imports them, and says the time and the most memory of
all processes together. ``index`` makes the index of as many records without their images, opens it and reads captions,
in this process and in others. ``access`` reads images and captions of one folder in random order from our offset
tables, and, where the package wids is installed (it came with webdataset 0.2), through it.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.shards.index import ShardIndex, write_index
from datasets.shards.tar import ShardContent

CAPTION = "A man with short dark hair wears a navy jacket over a white shirt, grey trousers and black shoes, number"


def write_pairs(folder: Path, count: int) -> Path:
    """``count`` JPEG files of 24 x 8 pixels that all differ, 10,000 in a folder, with two captions each."""
    generator = np.random.default_rng(0)
    path = folder / "caption.json"
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            name = f"{number // 10_000}/{number}.jpg"
            if number % 10_000 == 0:
                (folder / "images" / name).parent.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (24, 8, 3), np.uint8)).save(folder / "images" / name, "JPEG")
            row = f"{json.dumps(name)}: {json.dumps([f'{CAPTION} {number}.', f'{CAPTION} {number}, again.'])}"
            file.write(("{" if number == 0 else ",\n") + row)
        file.write("}")
    return path


def memory(pid: int) -> tuple[int, int]:
    """Bytes of a process and its children: resident, with shared pages divided among them, and written by one alone."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = np.zeros(2, np.int64)
    for each in (pid, *map(int, children)):
        try:
            rows = dict(line.split(":") for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:])
        except OSError:
            continue
        size = {name: int(text.split()[0]) * 1024 for name, text in rows.items()}
        total += size["Pss"], size["Private_Dirty"]
    return tuple(total.tolist())


def bench_import(folder: Path, count: int, workers: int) -> None:
    start = time.perf_counter()
    path = folder / "caption.json"
    if not path.exists():  # otherwise an earlier run left them in --folder
        path = write_pairs(folder, count)
    written = time.perf_counter() - start
    print(f"{count:,} images written in {written:.0f} s, annotation {path.stat().st_size / 1e6:.0f} MB")
    line = ["--form", "ham", "--annotation", path, "--images", folder / "images", "--output", folder / "out"]
    command = [sys.executable, "-m", "datasets.shards", "import", *map(str, line), "--workers", str(workers)]
    start = time.perf_counter()
    most = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            try:
                most = max(most, memory(process.pid)[0])
            except OSError:
                break
            time.sleep(0.25)
    assert process.returncode == 0
    spent, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"imported in {spent:.0f} s with {workers} processes, {cpu:.0f} s of CPU time, at most {most / 1e9:.2f} GB")


def bench_index(folder: Path, count: int) -> None:
    def contents():
        for shard in range(0, count, 5000):
            number = min(5000, count - shard)
            texts = [f"{CAPTION} {shard + n // 2}.".encode() for n in range(2 * number)]
            (folder / f"{shard // 5000:06d}.tar").write_bytes(b"")
            yield (
                f"{shard // 5000:06d}.tar",
                ShardContent(
                    np.arange(number) * 20_000,
                    np.full(number, 15_000),
                    np.full(number, 2),
                    np.array([len(text) for text in texts]),
                    b"".join(texts),
                    [None] * number,
                    0,
                    "",
                ),
            )

    start = time.perf_counter()
    write_index(folder, contents(), {})
    size = sum(path.stat().st_size for path in (folder / "index").iterdir())
    print(f"index of {count:,} images, {size / 1e9:.2f} GB, written in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    index = ShardIndex(folder)
    print(f"opened in {time.perf_counter() - start:.3f} s")
    own = memory(os.getpid())[1]
    generator = random.Random(0)
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(200_000):
                index.captions_of(generator.randrange(len(index)))
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
    time.sleep(20)
    private = [memory(pid)[1] for pid in pids]
    print(f"memory of its own: this process {own / 1e6:.0f} MB, 4 forked ones that read 200,000 captions", end=" ")
    print(", ".join(f"{each / 1e6:.0f} MB" for each in private))
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def bench_access(folder: Path, samples: int) -> None:
    start = time.perf_counter()
    index = ShardIndex(folder)
    opened = time.perf_counter() - start
    order = np.random.default_rng(0).integers(0, len(index), samples).tolist()
    start = time.perf_counter()
    for image in order:
        index.image_bytes(image), index.captions_of(image)
    ours = time.perf_counter() - start
    print(f"offset tables: opened in {1e3 * opened:.1f} ms, {samples / ours:,.0f} random records/s")
    if importlib.util.find_spec("wids") is None:
        print("wids: not installed")
        return
    wids = importlib.import_module("wids")
    shards = [{"url": str(folder / shard[0]), "nsamples": shard[1]} for shard in index.about["shards"]]
    description = folder / "wids.json"
    description.write_text(json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}))
    before = memory(os.getpid())[1]
    start = time.perf_counter()
    theirs = wids.ShardListDataset(
        str(description), lru_size=len(shards), keep=True, localname=lambda url: url, transformations=[]
    )
    theirs[0]
    first = time.perf_counter() - start
    start = time.perf_counter()
    for image in order:
        sample = theirs[image]
        sample[".jpg"], sample[".json"]
    spent = time.perf_counter() - start
    print(f"wids: first record after {1e3 * first:.1f} ms, {samples / spent:,.0f} random records/s, tables included")
    start = time.perf_counter()
    for image in order:
        theirs[image]
    spent = time.perf_counter() - start
    more = memory(os.getpid())[1] - before
    print(f"wids, all tables made: {samples / spent:,.0f} random records/s, {more / 1e6:.1f} MB in each process")
    print(f"ratio access {spent / ours:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("import", "index", "access"))
    parser.add_argument("--count", type=int, help="records [import: 1,000,000; index: 5,000,000; access: 20,000]")
    parser.add_argument("--workers", type=int, default=2, help="processes of the import")
    parser.add_argument("--folder", type=Path, help="where to put the files, which stay there [a temporary folder]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.what == "import":
            bench_import(folder, args.count or 1_000_000, args.workers)
        elif args.what == "index":
            bench_index(folder, args.count or 5_000_000)
        else:
            bench_access(folder, args.count or 20_000)


if __name__ == "__main__":
    main()
