"""How a Mannequin is made: who it is, how it is drawn, photographed and described."""
