"""The fact file of published cross-domain results, and what of it is shown."""

from analysis.published import FACTS, published_table
from utils.files import read_yaml

SETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")


def test_every_fact_is_complete_and_stands_once():
    facts = read_yaml(FACTS)
    keys = set()
    for entry in facts["entries"]:
        assert entry.keys() - {"mAP"} == {"method", "start", "train", "test", "R1", "source"}
        assert entry["source"] in facts["sources"] and entry["test"] in SETS and entry["train"] in ("", *SETS)
        assert 0 < entry["R1"] < 100 and entry["train"] != entry["test"]
        key = entry["start"], entry["train"], entry["test"]
        assert key not in keys
        keys.add(key)
    irra = [entry for entry in facts["entries"] if (entry["method"], entry["start"]) == ("IRRA", "CLIP")]
    assert len(irra) == 6 and all("mAP" in entry for entry in irra)


def test_cells_that_exist_for_the_columns_and_runs():
    table, sources = published_table(["RSTPReid", "Mannequins", "ICFG-PEDES"], {"CUHK-PEDES"}, starts=False)
    assert table.columns == ("published, not ours", "RSTPReid", "ICFG-PEDES", "source")
    assert table.rows == (("IRRA from CLIP, on CUHK-PEDES", "52.55 / 39.97", "43.04 / 22.45", "[1]"),)
    assert len(sources) == 1 and sources[0].startswith("[1] ")
    table, sources = published_table(["CUHK-PEDES"], set(), starts=True)
    assert table.rows[0] == ("CLIP as it is", "12.65", "[1]") and len(table.rows) == 8 and len(sources) == 3
    assert published_table(["Mannequins"], {"CUHK-PEDES"}, starts=True) is None
    assert published_table(["CUHK-PEDES"], {"CUHK-PEDES"}, starts=False) is None
