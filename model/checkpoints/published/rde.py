"""RDE's token selection embedding."""

_SIDES = {"visul_emb_layer": ("image", "fc"), "texual_emb_layer": ("text", "linear")}
"""root of a key to our module, and what the linear map that is used is called there"""
_LAYERS = {"mlp.layers.0": "hidden", "mlp.layers.1": "out", "mlp.bns.0": "norm"}

ROOTS = tuple(_SIDES)


def our_key(parts: list[str]) -> str | None:
    """A key below one of :data:`ROOTS`, split at its dots; None for layers that the program has and never uses."""
    side, linear = _SIDES[parts[0]]
    *layer, name = parts[1:]
    below = {**_LAYERS, linear: "linear"}.get(".".join(layer))
    return below and f"token_selection.{side}.{below}.{name}"
