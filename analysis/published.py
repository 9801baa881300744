"""Published cross-domain results, from ``published_cross_domain.yaml``, to stand beside ours."""

from collections.abc import Collection, Sequence
from pathlib import Path

from utils.files import read_yaml
from utils.tables import Table

FACTS = Path(__file__).with_name("published_cross_domain.yaml")


def published_table(
    targets: Sequence[str], trained_on: Collection[str], starts: bool
) -> tuple[Table, list[str]] | None:
    """R1 / mAP of published models on data sets ``targets``, as far as cells exist, and their numbered sources.

    Args:
        targets: the columns.
        trained_on: data sets that our runs were trained on; published runs on these are shown.
        starts: whether to show published starting points, which were not fine-tuned.
    """
    facts = read_yaml(FACTS)
    numbers = {name: f"[{number}]" for number, name in enumerate(facts["sources"], 1)}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for entry in facts["entries"]:
        train, test = entry["train"], entry["test"]
        if test in targets and (train in trained_on if train else starts):
            label = f"{entry['method']} from {entry['start']}, on {train}" if train else f"{entry['start']} as it is"
            cell = f"{entry['R1']:.2f} / {entry['mAP']:.2f}" if "mAP" in entry else f"{entry['R1']:.2f}"
            rows.setdefault((label, entry["source"]), {})[test] = cell
    if not rows:
        return None
    columns = [target for target in dict.fromkeys(targets) if any(target in cells for cells in rows.values())]
    lines = [
        (label, *(cells.get(name, "") for name in columns), numbers[source]) for (label, source), cells in rows.items()
    ]
    used = {source for _, source in rows}
    sources = [f"{numbers[name]} {text}" for name, text in facts["sources"].items() if name in used]
    return Table(("published, not ours", *columns, "source"), tuple(lines)), sources
