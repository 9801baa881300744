"""The same images and captions in every form in which person images are published."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.images import photo


def write_images(folder: Path, count: int) -> list[str]:
    """Photos ``part0/0.jpg``, ``part1/1.jpg`` ... that differ; returns their names."""
    names = [f"part{number % 2}/{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo(seed=number).save(folder / name)
    return names


def write_form(form: str, folder: Path, captions: Mapping[str, Sequence[str]], images: Path) -> list[Path]:
    """Annotation files of a form; where it holds one caption of an image, the first one only.

    ``luperson-mllm`` has a file for every caption, and base names only; ``luperson-t`` holds the images.
    """
    path = folder / f"{form}.json"
    rows = list(captions.items())
    content = {
        "ham": lambda: {name: [*texts] for name, texts in rows},
        "webperson": lambda: [
            {name: {f"caption{n}": f"{text}/n" for n, text in enumerate(texts, 1)}} for name, texts in rows
        ],
        "mals": lambda: [
            {"image": name, "caption": texts[0], "image_id": str(n), "label": [1, 0, -1]}
            for n, (name, texts) in enumerate(rows)
        ],
        "synth-pedes": lambda: [
            {"id": n // 2, "file_path": name, "attributes": ["a"], "captions": [*texts], "prompt_caption": ["A man."]}
            for n, (name, texts) in enumerate(rows)
        ],
        "sda": lambda: [
            {"image": name, "boxes": [], "logits": [], "phrases": [], "caption": texts[0], "image_id": str(n)}
            for n, (name, texts) in enumerate(rows)
        ],
        "largefine": lambda: [{"file_path": name, "captions": [*texts]} for name, texts in rows],
        "reid-raw": lambda: [
            {
                "split": "train",
                "id": n // 2,
                "img_path" if n % 2 else "file_path": name,
                "captions": [*texts],
                "captions_bt": [f"{text} again" for text in texts],
                "mllm_captions": "\n".join(texts),
            }
            for n, (name, texts) in enumerate(rows)
        ],
    }
    if form in content:
        path.write_text(json.dumps(content[form]()))
        return [path]
    if form == "luperson-mllm":
        paths = []
        for number in range(max(map(len, captions.values()))):
            paths.append(folder / f"T{number}.json")
            part = {name.replace("part", "x/"): texts[number] for name, texts in rows if len(texts) > number}
            paths[-1].write_text(json.dumps(part))
        return paths
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(["path", "caption", "id", "split"])
        writer.writerows([name, text, n // 2, "train"] for n, (name, texts) in enumerate(rows) for text in texts)
        path = path.with_suffix(".csv")
        path.write_text(buffer.getvalue())
        return [path]
    assert form == "luperson-t"
    import pyarrow as pa

    path = path.with_suffix(".arrow")
    table = pa.table(
        {
            "image": [(images / name).read_bytes() for name, _ in rows],
            "caption": [[*texts] for _, texts in rows],
            "image_id": [str(n) for n in range(len(rows))],
            "split": ["train"] * len(rows),
        }
    )
    with pa.OSFile(str(path), "wb") as file, pa.RecordBatchFileWriter(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return [path]
