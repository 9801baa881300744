"""What can be seen in a photo."""

import dataclasses
import io

from PIL import Image

from datasets.mannequins.body import look_of
from datasets.mannequins.dice import Dice
from datasets.mannequins.people import LEVELS, people
from datasets.mannequins.photo import photograph


def test_what_a_view_hides():
    level = LEVELS["easy"]
    (_, _, person), *_ = people(9, level, (1, 0, 0))
    person = dataclasses.replace(person, top="t-shirt", top_pattern="logo", top_second="white", jacket="none")
    person = dataclasses.replace(person, bag="handbag", bag_side="left", bag_colour="red", glasses="glasses")
    seen = {}
    for name, yaw in {"front": 0.0, "right": 1.57, "back": 3.14}.items():
        photos = [photograph(person, look_of(person, Dice(1)), yaw, 96, level, Dice(1, n)) for n in range(8)]
        assert {sight.facing for _, sight in photos} == {name}
        seen[name] = set().union(*(sight.seen for _, sight in photos))
        assert Image.open(io.BytesIO(photos[0][0])).size[1] > 50
    assert {"logo", "face", "bag", "shoes"} <= seen["front"]
    assert not {"logo", "face"} & seen["back"]
    assert "bag" not in seen["right"]
