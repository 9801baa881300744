"""Data sets, read and checked, and the batches made of them. A new data set is a file here and a line in DATASETS."""

from collections.abc import Callable
from pathlib import Path

from datasets import (
    cuhk_pedes,
    custom,
    icfg_pedes,
    iiitd_20k,
    mannequins,
    prw_tps_cn,
    rstpreid,
    ufine3c,
    ufine6926,
)
from datasets.records import Dataset
from utils.options import GetOptions

DATASETS: dict[str, Callable[[Path, GetOptions], Dataset]] = {
    "CUHK-PEDES": cuhk_pedes.load,
    "ICFG-PEDES": icfg_pedes.load,
    "RSTPReid": rstpreid.load,
    "UFine6926": ufine6926.load,
    "UFine3C": ufine3c.load,
    "IIITD-20K": iiitd_20k.load,
    "PRW-TPS-CN": prw_tps_cn.load,
    "Mannequins": mannequins.load,
    "Custom": custom.load,
}
"""value of ``--dataset_name`` to what reads ``--root_dir``, with the flags where a data set has some of its own"""
