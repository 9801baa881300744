"""Every loss by the name that ``--loss_names`` uses."""

from model.losses.aux import Aux
from model.losses.base import LossHead
from model.losses.citc import CITC
from model.losses.cmpm import CMPM
from model.losses.cons import Cons
from model.losses.dual_masking import DualMasking
from model.losses.identity import ID
from model.losses.instance_memory import InstanceMemory
from model.losses.itc import ITC
from model.losses.itc1 import ITC1
from model.losses.itm import ITM
from model.losses.memory import Memory
from model.losses.memory_soft import MemorySoft
from model.losses.mlm import MLM
from model.losses.nam import NAM
from model.losses.nitc import NITC
from model.losses.ritc import RITC
from model.losses.sdm import SDM
from model.losses.ss import SS
from model.losses.tal import TAL
from model.losses.trl import TRL

HEADS: dict[str, type[LossHead]] = {
    "itc": ITC,
    "sdm": SDM,
    "cmpm": CMPM,
    "id": ID,
    "mlm": MLM,
    "itc1": ITC1,
    "cons": Cons,
    "memory_soft": MemorySoft,
    "itm": ITM,
    "aux": Aux,
    "TAL": TAL,
    "TRL": TRL,
    "memory": Memory,
    "instance_memory": InstanceMemory,
    "nitc": NITC,
    "ritc": RITC,
    "citc": CITC,
    "ss": SS,
    "nam": NAM,
    "dual_masking": DualMasking,
}
