"""Captions: what somebody who saw one photo would write, from a grammar with synonyms, other orders and omissions."""

from dataclasses import dataclass

from datasets.mannequins import vocabulary
from datasets.mannequins.dice import Dice
from datasets.mannequins.people import Level, Person
from datasets.mannequins.photo import Sight


@dataclass
class _Facts:
    """Phrases of one caption before they become sentences."""

    wears: list[str]
    shoes: str | None = None
    hair: str | None = None
    bag: tuple[str, str] | None = None
    """the thing and where it is"""
    move: str | None = None


class _Speaker:
    """One describer's choice of words."""

    def __init__(self, person: Person, level: Level, dice: Dice) -> None:
        self.person, self.level, self.dice = person, level, dice
        man = person.sex == "man"
        self.plain = dice.chance(0.3 * level.vague)
        self.he, self.his = ("he", "his") if man else ("she", "her")
        nouns = ("man", "man", "male", "young man") if man else ("woman", "woman", "lady", "young woman")
        if self.plain:
            nouns, self.he, self.his = ("person", "pedestrian"), "the person", "their"
        self.noun = dice.pick(nouns)

    def mention(self, weight: float = 1.0) -> bool:
        """Whether to mention a detail; weight above 1 for what nobody overlooks."""
        return self.dice.chance(self.level.mention ** (1 / weight))

    def colour(self, name: str) -> str:
        """A word for a colour, or '' where the describer leaves it out."""
        exact, loose = vocabulary.COLOUR_WORDS[name]
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
        person = self.person
        if person.hair == "bald":
            return self.dice.pick(vocabulary.HAIR_STYLES["bald"])
        shade = self.dice.pick(vocabulary.HAIR_WORDS[person.hair_colour]) if self.mention(2) else ""
        return " ".join(self.dice.pick(vocabulary.HAIR_STYLES[person.hair]).format(shade).split())

    def bag(self) -> tuple[str, str]:
        """The bag and where it is carried."""
        person, dice = self.person, self.dice
        thing = self.thing(person.bag, person.bag_colour)
        side = f"{person.bag_side} " if person.bag != "backpack" and self.mention() else ""
        places = {
            "backpack": (f"on {self.his} back", "", f"over {self.his} shoulders"),
            "shoulder bag": (f"at {self.his} {side}side", f"hanging at {self.his} {side}hip"),
            "handbag": (f"in {self.his} {side}hand",),
            "shopping bag": (f"in {self.his} {side}hand",),
            "suitcase": (f"behind with {self.his} {side}hand", f"with {self.his} {side}hand"),
        }
        return thing, dice.pick(places[person.bag])


def join(*words: str) -> str:
    """The words that are not empty, with blanks between."""
    return " ".join(word for word in words if word)


def _facts(speaker: _Speaker, sight: Sight) -> _Facts:
    person, seen, dice = speaker.person, sight.seen, speaker.dice
    facts = _Facts(_clothes(speaker, sight))
    if "shoes" in seen and speaker.mention():
        kind = speaker.noun_for(person.shoes)
        facts.shoes = speaker.article(join(speaker.colour(person.shoes_colour), kind))
    if person.headwear != "none" and "headwear" in seen and speaker.mention():
        facts.wears.append(speaker.thing(person.headwear, person.headwear_colour))
    if person.glasses != "none" and "face" in seen and speaker.mention(0.7):
        words = ("glasses", "eyeglasses") if person.glasses == "glasses" else ("sunglasses", "dark glasses")
        facts.wears.append(dice.pick(words))
    if "hair" in seen and speaker.mention():
        facts.hair = speaker.hair()
    if person.bag != "none" and "bag" in seen and speaker.mention(1.5):
        facts.bag = speaker.bag()
    if dice.chance(0.4):
        facts.move = dice.pick((vocabulary.WALKS if sight.walking else vocabulary.STANDS)[sight.facing])
    return facts


def _clothes(speaker: _Speaker, sight: Sight) -> list[str]:
    """Upper and lower garments; one of them is always named."""
    person, dice = speaker.person, speaker.dice
    if person.jacket != "none":
        upper = speaker.thing(person.jacket, person.jacket_colour)
        if "inner" in sight.seen and speaker.mention():
            if dice.chance(0.3):
                upper = f"{dice.pick(('an open', 'an unbuttoned'))} {upper.split(' ', 1)[1]}"
            upper += f" {dice.pick(('over', 'on top of', 'with'))} {speaker.article(speaker.top())}"
    else:
        logo = person.top_pattern == "logo" and "logo" in sight.seen and speaker.mention()
        upper = speaker.article(speaker.top())
        if logo:
            mark = join(speaker.colour(person.top_second), dice.pick(("logo", "print", "graphic")))
            upper += f" with {speaker.article(mark)} on the {dice.pick(('front', 'chest'))}"
    if person.lower == "none" or "lower" not in sight.seen or not speaker.mention(4):
        return [upper]
    pattern = dice.pick(vocabulary.PATTERN_WORDS.get(person.lower_pattern, ("",))) if speaker.mention(1.5) else ""
    lower = speaker.thing(person.lower, person.lower_colour, pattern)
    if person.lower_pattern == "side stripe" and speaker.mention():
        lower += " with a white stripe down the side"
    return [upper, lower]


def listing(items: list[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(person: Person, sight: Sight, level: Level, dice: Dice) -> str:
    """One sentence or more about a photo. Says nothing that cannot be seen in it."""
    speaker = _Speaker(person, level, dice)
    facts = _facts(speaker, sight)
    wears = dice.shuffled(facts.wears) if dice.chance(0.35) else facts.wears
    if facts.shoes and dice.chance(0.65):
        wears, facts.shoes = [*wears, facts.shoes], None
    sentences = [_opening(speaker, facts, wears), *_rest(speaker, facts)]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def _opening(speaker: _Speaker, facts: _Facts, wears: list[str]) -> str:
    dice, clothes = speaker.dice, listing(wears)
    subject = f"{dice.pick(('the', 'a', 'a', 'this'))} {speaker.noun}"
    verb = dice.pick(("is wearing", "wears", "is dressed in", "has on"))
    form = dice.whole(0, 4)
    if form == 0 and facts.hair:
        hair, facts.hair = facts.hair, None
        return f"{subject} with {hair} {verb} {clothes}"
    if form == 1 and facts.move:
        move, facts.move = facts.move, None
        return dice.pick((f"{subject} {move} {verb} {clothes}", f"wearing {clothes}, {subject} is {move}"))
    if form == 2 and facts.bag:
        return f"{subject} in {clothes} is {_carry(speaker, facts)}"
    if form == 3 and facts.bag:
        return f"{subject} {verb} {clothes} and is {_carry(speaker, facts)}"
    return f"{subject} {verb} {clothes}"


def _carry(speaker: _Speaker, facts: _Facts) -> str:
    (thing, place), facts.bag = facts.bag, None
    verbs = {"suitcase": ("pulling", "dragging"), "backpack": ("carrying", "wearing")}
    return join(speaker.dice.pick(verbs.get(speaker.person.bag, ("carrying", "holding"))), thing, place)


def _rest(speaker: _Speaker, facts: _Facts) -> list[str]:
    """Sentences about what the opening left out."""
    dice, he, his = speaker.dice, speaker.he, speaker.his
    sentences = []
    if facts.hair:
        sentences.append(f"{he} has {facts.hair}")
    if facts.shoes:
        be = "is" if facts.shoes.startswith("a ") else "are"
        forms = (f"{he} is wearing {facts.shoes}", f"{he} has {facts.shoes} on", f"on {his} feet {be} {facts.shoes}")
        sentences.append(dice.pick(forms))
    if facts.bag:
        sentences.append(f"{he} is {_carry(speaker, facts)}")
    if facts.move:
        sentences.append(f"{he} is {facts.move}")
    sentences = dice.shuffled(sentences)
    if len(sentences) > 1 and dice.chance(0.5):
        first, second = sentences[:2]
        if first.startswith(f"{he} ") and second.startswith(f"{he} "):
            sentences[:2] = [f"{first} and {second.removeprefix(f'{he} ')}"]
    return sentences
