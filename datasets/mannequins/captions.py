"""Captions: what somebody who saw one photo would write, from a grammar with synonyms, other orders and omissions."""

from datasets.mannequins import vocabulary
from datasets.mannequins.colours import COLOURS, HAIR_COLOURS
from datasets.mannequins.dice import Dice
from datasets.mannequins.people import Level, Person
from datasets.mannequins.photo import Sight


class _Speaker:
    """Somebody who saw one photo, and their choice of words."""

    def __init__(self, person: Person, sight: Sight, level: Level, dice: Dice) -> None:
        self.person, self.sight, self.level, self.dice = person, sight, level, dice
        man = person.sex == "man"
        self.he, self.his = ("he", "his") if man else ("she", "her")
        nouns = ("man", "man", "male", "young man") if man else ("woman", "woman", "lady", "young woman")
        if dice.chance(0.3 * level.vague):
            nouns, self.he, self.his = ("person", "pedestrian"), "the person", "their"
        self.noun = dice.pick(nouns)

    def mention(self, weight: float = 1.0) -> bool:
        """Whether to mention a detail; weight is above 1 for what nobody overlooks."""
        return self.dice.chance(self.level.mention ** (1 / weight))

    def colour(self, name: str) -> str:
        """A word for a colour, or '' where the describer leaves it out."""
        _, exact, loose = COLOURS[name]
        if self.dice.chance(self.level.vague):
            return "" if self.dice.chance(0.25) else self.dice.pick(loose)
        return self.dice.pick(exact)

    def noun_for(self, kind: str) -> str:
        """A word for a thing."""
        nouns = vocabulary.LOOSE_NOUNS if self.dice.chance(0.8 * self.level.vague) else vocabulary.NOUNS
        return self.dice.pick(nouns.get(kind, (kind,)))

    def thing(self, kind: str, colour: str, pattern: str = "") -> str:
        """A thing with its colour."""
        return self.article(join(self.colour(colour), pattern, self.noun_for(kind)))

    def top(self) -> str:
        """The upper garment with its colours, pattern and sleeves."""
        person, dice = self.person, self.dice
        noun, colour = self.noun_for(person.top), self.colour(person.top_colour)
        sleeve = ""
        if person.jacket in ("none", "vest") and person.top not in ("sweater", "hoodie", "tank top", "t-shirt"):
            sleeve = dice.pick(vocabulary.SLEEVES[person.sleeves]) if self.mention() else ""
        pattern = person.top_pattern
        if pattern == "plain" or not self.mention(1.5) or pattern == "logo":
            return join(colour, sleeve if sleeve not in noun else "", noun)
        second = self.colour(person.top_second)
        both = f"{colour} and {second}" if colour and second and colour != second else colour
        word = dice.pick(vocabulary.PATTERN_WORDS[pattern])
        return join(*dice.pick(((both, word), (word, both))), sleeve, noun)

    def article(self, phrase: str) -> str:
        """The phrase with 'a', 'an', 'a pair of' or nothing before it."""
        last = phrase.split()[-1]
        uncounted = last in ("footwear", "luggage")
        if uncounted or (last.endswith("s") and last != "dress"):
            return phrase if uncounted or not self.dice.chance(0.15) else f"a pair of {phrase}"
        return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"

    def hair(self) -> str:
        """The hair, or the lack of it."""
        person, dice = self.person, self.dice
        named = person.hair != "bald" and self.mention(2)
        shade = dice.pick(HAIR_COLOURS[person.hair_colour].words) if named else ""
        return join(*dice.pick(vocabulary.HAIR_STYLES[person.hair]).format(shade).split())

    def bag(self) -> str:
        """The bag and where it is carried."""
        person, dice = self.person, self.dice
        thing = self.thing(person.bag, person.bag_colour)
        side = f"{person.bag_side} " if person.bag != "backpack" and self.mention() else ""
        places = {
            "backpack": (f"on {self.his} back", "", f"over {self.his} shoulders"),
            "shoulder bag": (f"at {self.his} {side}side", f"hanging at {self.his} {side}hip"),
            "suitcase": (f"behind with {self.his} {side}hand", f"with {self.his} {side}hand"),
        }
        return join(thing, dice.pick(places.get(person.bag, (f"in {self.his} {side}hand",))))

    def clothes(self) -> list[str]:
        """Upper and lower garments; one of them is always named."""
        person, dice, seen = self.person, self.dice, self.sight.seen
        if person.jacket != "none":
            upper = self.thing(person.jacket, person.jacket_colour)
            if "inner" in seen and self.mention():
                if dice.chance(0.3):
                    upper = f"{dice.pick(('an open', 'an unbuttoned'))} {upper.split(' ', 1)[1]}"
                upper += f" {dice.pick(('over', 'on top of', 'with'))} {self.article(self.top())}"
        else:
            logo = person.top_pattern == "logo" and "logo" in seen and self.mention()
            upper = self.article(self.top())
            if logo:
                mark = join(self.colour(person.top_second), dice.pick(("logo", "print", "graphic")))
                upper += f" with {self.article(mark)} on the {dice.pick(('front', 'chest'))}"
        if person.lower == "none" or "lower" not in seen or not self.mention(4):
            return [upper]
        pattern = dice.pick(vocabulary.PATTERN_WORDS.get(person.lower_pattern, ("",))) if self.mention(1.5) else ""
        lower = self.thing(person.lower, person.lower_colour, pattern)
        if person.lower_pattern == "side stripe" and self.mention():
            lower += " with a white stripe down the side"
        return [upper, lower]

    def carries(self, bag: str) -> str:
        """That the person is carrying the bag."""
        verbs = {"suitcase": ("pulling", "dragging"), "backpack": ("carrying", "wearing")}
        return f"is {self.dice.pick(verbs.get(self.person.bag, ('carrying', 'holding')))} {bag}"


def join(*words: str) -> str:
    """The words that are not empty, with blanks between."""
    return " ".join(word for word in words if word)


def caption(person: Person, sight: Sight, level: Level, dice: Dice) -> str:
    """One sentence or more about a photo. Says nothing that cannot be seen in it."""
    speaker, seen, facts = _Speaker(person, sight, level, dice), sight.seen, {}
    wears = speaker.clothes()
    if "shoes" in seen and speaker.mention():
        noun = speaker.noun_for(person.shoes)
        facts["shoes"] = speaker.article(join(speaker.colour(person.shoes_colour), noun))
    if person.headwear != "none" and "headwear" in seen and speaker.mention():
        wears.append(speaker.thing(person.headwear, person.headwear_colour))
    if person.glasses != "none" and "face" in seen and speaker.mention(0.7):
        wears.append(dice.pick(vocabulary.GLASSES[person.glasses]))
    if "hair" in seen and speaker.mention():
        facts["hair"] = speaker.hair()
    if person.bag != "none" and "bag" in seen and speaker.mention(1.5):
        facts["bag"] = speaker.bag()
    if dice.chance(0.4):
        facts["move"] = dice.pick((vocabulary.WALKS if sight.walking else vocabulary.STANDS)[sight.facing])
    if dice.chance(0.35):
        wears = dice.shuffled(wears)
    if "shoes" in facts and dice.chance(0.65):
        wears.append(facts.pop("shoes"))
    *others, last = wears
    clothes = f"{', '.join(others)} and {last}" if others else last
    sentences = [_opening(speaker, clothes, facts), *_rest(speaker, facts)]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def _opening(speaker: _Speaker, clothes: str, facts: dict[str, str]) -> str:
    """The first sentence; takes what it mentions out of the facts."""
    dice = speaker.dice
    subject = f"{dice.pick(('the', 'a', 'a', 'this'))} {speaker.noun}"
    verb = dice.pick(("is wearing", "wears", "is dressed in", "has on"))
    form = dice.whole(0, 4)
    if form == 0 and "hair" in facts:
        return f"{subject} with {facts.pop('hair')} {verb} {clothes}"
    if form == 1 and "move" in facts:
        move = facts.pop("move")
        return dice.pick((f"{subject} {move} {verb} {clothes}", f"wearing {clothes}, {subject} is {move}"))
    if form in (2, 3) and "bag" in facts:
        carries = speaker.carries(facts.pop("bag"))
        return f"{subject} in {clothes} {carries}" if form == 2 else f"{subject} {verb} {clothes} and {carries}"
    return f"{subject} {verb} {clothes}"


def _rest(speaker: _Speaker, facts: dict[str, str]) -> list[str]:
    """Sentences about what the opening left out."""
    dice, he, sentences = speaker.dice, speaker.he, []
    if hair := facts.get("hair"):
        sentences.append(f"{he} has {hair}")
    if shoes := facts.get("shoes"):
        be = "is" if shoes.startswith("a ") else "are"
        forms = (f"{he} is wearing {shoes}", f"{he} has {shoes} on", f"on {speaker.his} feet {be} {shoes}")
        sentences.append(dice.pick(forms))
    if bag := facts.get("bag"):
        sentences.append(f"{he} {speaker.carries(bag)}")
    if move := facts.get("move"):
        sentences.append(f"{he} is {move}")
    sentences = dice.shuffled(sentences)
    if len(sentences) > 1 and dice.chance(0.5):
        first, second = sentences[:2]
        if first.startswith(f"{he} ") and second.startswith(f"{he} "):
            sentences[:2] = [f"{first} and {second.removeprefix(f'{he} ')}"]
    return sentences
