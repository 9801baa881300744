"""ICLF's matching head, and the BERT that its model carries and never uses."""

import logging
from collections.abc import Collection, Mapping

from torch import Tensor

log = logging.getLogger("descry")

_BERT = ("text_encoder", "text_feats_2_bert")


def renamed(keys: Collection[str]) -> dict[str, str]:
    """Root of a key to ours. ``temp`` alone could be anybody's temperature: it is itm's beside a matching head."""
    if not any("itm_head" in key.split(".") for key in keys):
        return {}
    return {"itm_head": "heads.itm.head", "temp": "heads.itm.temp"}


def without_bert(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out the BERT; in a checkpoint without ``base_model`` the text tower itself is called text_encoder."""
    roots = {key: set(key.split(".")[:3]) for key in state}
    bert = {key for key in state if roots[key].intersection(_BERT)}
    if not bert or not any("base_model" in root for root in roots.values()):
        return state
    log.info("ignored: the unused BERT of a published ICLF run (%s)", ", ".join(f"{name}.*" for name in _BERT))
    return {key: value for key, value in state.items() if key not in bert}
