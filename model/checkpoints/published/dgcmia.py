"""DGCMIA's memory banks."""

RENAMED = {
    "img_memory": "heads.memory_soft.image_bank",
    "txt_memory": "heads.memory_soft.text_bank",
}
"""root of a key to ours"""
