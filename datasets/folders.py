"""Where the files of a data set lie in its folder: the annotation, and the images that it names."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.images.verify import FileIndex
from datasets.records import DataError

CAPTION_ALL = "caption_all.json"


def annotation_in(folder: Path, preferred: str, kinds: Sequence[str] = ("*.json",)) -> str:
    """The name of the annotation file: the ``preferred`` one, or else the only file of the first kind that is there.

    Raises:
        DataError: several files could be meant, or the one that is there is no benchmark's.
    """
    refuse_caption_all(folder, preferred)
    if (folder / preferred).is_file():
        return preferred
    for kind in kinds:
        names = sorted(path.name for path in folder.glob(kind))
        if len(names) > 1:
            raise DataError(f"{folder}: which of {', '.join(names)} is the annotation file? Call it {preferred}")
        if names:
            return names[0]
    return preferred


def refuse_caption_all(folder: Path, wanted: str) -> None:
    """Refuse CUHK-PEDES' file without splits where the ``wanted`` file is not there. Raises DataError."""
    if (folder / CAPTION_ALL).is_file() and not (folder / wanted).is_file():
        raise DataError(
            f"{folder / CAPTION_ALL}: is not the file of the benchmark, because it has no splits; dividing it by the "
            "names of its folders gives another protocol, whose results are not comparable with published ones. Get "
            "reid_raw.json, which its authors hand out with the images, and put it beside"
        )


def images_in(
    folder: Path, places: Sequence[str] = ("imgs", "."), suffixes: Sequence[str] = ("",)
) -> Callable[[str], Path]:
    """From the path in an annotation to the image: looked for in ``places`` of the folder, one after the other.

    An image that is nowhere is reported where it should have been: in the first place. ``suffixes`` are added to the
    path, whichever leads to a file.
    """
    files = FileIndex()

    def locate(image: str) -> Path:
        paths = [folder / place / f"{image}{suffix}" for place in places for suffix in suffixes]
        return next((path for path in paths if path in files), paths[0])

    return locate
