"""IRRA's names beside the towers, which most later programs keep."""

RENAMED = {
    "cross_attn": "parts.cross_former.attn",
    "cross_modal_transformer": "parts.cross_former.transformer",
    "ln_pre_t": "parts.cross_former.ln_query",
    "ln_pre_i": "parts.cross_former.ln_other",
    "ln_post": "parts.cross_former.ln_out",
    "classifier": "heads.id.classifier",
    "mlm_head": "heads.mlm",
}
"""root of a key to ours"""
