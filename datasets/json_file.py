"""JSON as others write it by hand or machine: every fault is one clear error."""

import json
import reprlib
from pathlib import Path
from typing import Any

from datasets.records import DataError


def load_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, is no JSON, or has a key twice; names the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataError(f"{path}: not JSON ({where}); fetch or write the file again") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply; expected flat records") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise DataError(f"{path}: not usable JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A json object, none of whose keys may be there twice: the last one would win without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"key {key!r} is there twice in {reprlib.repr(pairs)}; keep one of them")
    return content
