"""Images inside an Arrow file: rows without their images, and the bytes of one image.

pyarrow is imported when such a file is met, because everything else does without.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.annotations import DataError

_STREAM = b"\xff\xff\xff\xff"


def is_arrow(path: Path) -> bool:
    """Whether a file begins as an Arrow file or stream does. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return start == b"ARROW1" or start.startswith(_STREAM)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """``{image, caption, split}`` of every row; the image is a name that :func:`image_bytes` understands.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    table = _table(path)
    columns = [name for name in ("caption", "split") if name in table.column_names]
    row = 0
    for batch in table.select(columns).to_batches(max_chunksize=1024):
        for values in batch.to_pylist():
            yield {"image": f"{path.name}/{row}", "split": None, **values}
            row += 1


def image_bytes(path: Path, row: int) -> bytes | None:
    """The encoded image of a row; None where it has none."""
    return _table(path)["image"][row].as_py()


@functools.lru_cache(4)
def _table(path: Path) -> Any:
    """The file as a table, mapped into memory rather than read."""
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(f"{path}: is an Arrow file; install pyarrow to read it") from None
    try:
        source = pa.memory_map(str(path))
        alone = pa.ipc.IpcReadOptions(use_threads=False)  # threads would not be there in forked processes
        try:
            table = pa.ipc.open_file(source, options=alone).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_stream(source, options=alone).read_all()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a whole Arrow file ({reason}); fetch it again") from None
    if missing := [name for name in ("image", "caption") if name not in table.column_names]:
        raise DataError(f"{path}: has no column {missing[0]}, only {', '.join(table.column_names)}")
    if not (pa.types.is_binary(table["image"].type) or pa.types.is_large_binary(table["image"].type)):
        raise DataError(f"{path}: column image holds {table['image'].type}, expected the bytes of image files")
    return table
