"""A module that several loss heads share, such as the cross former; what the rest of the model asks of one."""

from collections.abc import Iterator
from typing import ClassVar, Self

from torch import nn

from model.backbones.spec import BackboneSpec


class SharedPart(nn.Module):
    """A part is built when a head names it among its ``parts``; a new one is a line in PARTS."""

    Options: ClassVar[type]
    roles: ClassVar[dict[str, str]] = {}
    """optimiser role of the parameters below a name; without an entry: "plain" """

    @classmethod
    def built_for(cls, options: object, spec: BackboneSpec) -> Self:
        """The part for the towers of ``spec``, with the flags of :attr:`Options`."""
        raise NotImplementedError

    def blocks(self) -> Iterator[nn.Module]:
        """The blocks that memory saving and compilation apply to; most parts have none."""
        yield from ()

    def after_step(self) -> None:
        """Mend what the optimiser has done; most parts need nothing."""
