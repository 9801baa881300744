"""Captions: what somebody who saw one photo would write, from a grammar with synonyms, other orders and omissions."""

from dataclasses import dataclass

from datasets.mannequins.dice import Dice
from datasets.mannequins.people import Level, Person

COLOUR_WORDS = {
    "black": ("black",),
    "white": ("white",),
    "grey": ("grey", "gray"),
    "navy": ("navy", "navy blue", "dark blue"),
    "blue": ("blue", "bright blue", "royal blue"),
    "light blue": ("light blue", "sky blue", "pale blue"),
    "red": ("red", "bright red"),
    "maroon": ("maroon", "dark red", "burgundy"),
    "green": ("green",),
    "olive": ("olive", "olive green", "army green"),
    "yellow": ("yellow",),
    "orange": ("orange",),
    "pink": ("pink",),
    "purple": ("purple", "violet"),
    "brown": ("brown",),
    "beige": ("beige", "tan", "khaki"),
}
LOOSE_WORDS = {
    "black": ("dark", "dark-coloured"),
    "white": ("light", "light-coloured", "pale"),
    "grey": ("greyish", "light gray"),
    "navy": ("blue", "dark"),
    "blue": ("blue",),
    "light blue": ("blue", "light-coloured"),
    "red": ("reddish", "bright"),
    "maroon": ("red", "dark"),
    "green": ("greenish", "green"),
    "olive": ("green", "dark green"),
    "yellow": ("bright", "yellowish"),
    "orange": ("bright", "reddish"),
    "pink": ("pinkish", "light red"),
    "purple": ("purplish", "dark"),
    "brown": ("dark", "brownish"),
    "beige": ("light-coloured", "light brown", "cream"),
}
HAIR_WORDS = {
    "black": ("black", "dark"),
    "brown": ("brown", "dark brown"),
    "blonde": ("blonde", "blond", "fair"),
    "grey": ("grey", "gray"),
    "red": ("red", "ginger"),
}
NOUNS = {
    "t-shirt": ("t-shirt", "tee shirt", "t shirt"),
    "polo shirt": ("polo shirt", "polo"),
    "shirt": ("shirt", "button-up shirt", "button-down shirt"),
    "blouse": ("blouse", "shirt"),
    "sweater": ("sweater", "pullover", "jumper"),
    "hoodie": ("hoodie", "hooded sweatshirt"),
    "tank top": ("tank top", "sleeveless top", "vest top"),
    "dress": ("dress", "knee-length dress"),
    "jacket": ("jacket",),
    "coat": ("coat", "long coat", "overcoat"),
    "blazer": ("blazer", "suit jacket"),
    "vest": ("vest", "sleeveless jacket"),
    "cardigan": ("cardigan",),
    "trousers": ("trousers", "pants", "slacks"),
    "jeans": ("jeans", "denim jeans", "denim pants"),
    "leggings": ("leggings", "tights", "tight pants"),
    "shorts": ("shorts", "short pants"),
    "skirt": ("skirt", "knee-length skirt"),
    "sneakers": ("sneakers", "trainers", "sports shoes", "running shoes"),
    "leather shoes": ("leather shoes", "dress shoes", "shoes"),
    "boots": ("boots", "high boots"),
    "sandals": ("sandals", "open shoes"),
    "heels": ("heels", "high heels", "high-heeled shoes"),
    "backpack": ("backpack", "rucksack", "knapsack"),
    "shoulder bag": ("shoulder bag", "cross-body bag", "messenger bag"),
    "handbag": ("handbag", "purse"),
    "shopping bag": ("shopping bag", "carrier bag"),
    "suitcase": ("suitcase", "rolling suitcase", "trolley case"),
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "knit cap", "woolly hat"),
    "hat": ("hat", "wide-brimmed hat", "sun hat"),
}
LOOSE_NOUNS = {
    **dict.fromkeys(("t-shirt", "polo shirt", "shirt", "blouse", "tank top"), ("shirt", "top")),
    **dict.fromkeys(("sweater", "hoodie"), ("sweatshirt", "top", "long-sleeved top")),
    **dict.fromkeys(("jacket", "coat", "blazer", "cardigan"), ("jacket", "outer garment")),
    **dict.fromkeys(("trousers", "jeans", "leggings"), ("pants", "long pants", "bottoms")),
    **dict.fromkeys(("sneakers", "leather shoes", "boots", "sandals", "heels"), ("shoes", "footwear")),
    **dict.fromkeys(("backpack", "shoulder bag", "handbag", "shopping bag"), ("bag",)),
    **dict.fromkeys(("cap", "beanie", "hat"), ("hat",)),
    "suitcase": ("luggage", "case"),
    "vest": ("vest",),
    "shorts": ("shorts",),
    "skirt": ("skirt",),
    "dress": ("dress",),
}
PATTERN_WORDS = {
    "striped": ("striped", "horizontally striped", "stripy"),
    "checked": ("checked", "plaid", "checkered"),
    "dotted": ("dotted", "polka dot", "spotted"),
}
_HAIR = {
    "bald": ("a bald head", "a shaved head", "no hair"),
    "short": ("short {} hair", "{} hair cut short", "short {} hair"),
    "curly": ("curly {} hair", "short curly {} hair", "thick curly {} hair"),
    "shoulder-length": ("shoulder-length {} hair", "{} hair down to the shoulders", "medium-length {} hair"),
    "long": ("long {} hair", "long straight {} hair", "long {} hair hanging down"),
    "ponytail": ("{} hair in a ponytail", "a {} ponytail", "{} hair tied back"),
    "bun": ("{} hair in a bun", "a {} bun", "{} hair put up in a bun"),
}
_PLURAL = ("jeans", "trousers", "pants", "slacks", "leggings", "tights", "shorts", "bottoms", "shoes", "sneakers")
_PLURAL += ("trainers", "boots", "sandals", "heels", "footwear", "luggage")
_WALKS = {
    "front": ("walking towards the camera", "walking forward", "coming towards the camera"),
    "back": ("walking away from the camera", "walking away", "seen walking from behind"),
    "left": ("walking to the left", "walking from right to left", "heading left"),
    "right": ("walking to the right", "walking from left to right", "heading right"),
}
_STANDS = {
    "front": ("facing the camera", "standing and facing forward", "looking at the camera"),
    "back": ("facing away from the camera", "seen from behind", "standing with the back to the camera"),
    "left": ("facing left", "standing and looking to the left", "turned to the left"),
    "right": ("facing right", "standing and looking to the right", "turned to the right"),
}


@dataclass(frozen=True)
class Sight:
    """What a describer knows about one photo."""

    facing: str
    walking: bool
    seen: frozenset[str]


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
        if self.dice.chance(self.level.vague):
            return "" if self.dice.chance(0.25) else self.dice.pick(LOOSE_WORDS[name])
        return self.dice.pick(COLOUR_WORDS[name])

    def noun_for(self, kind: str) -> str:
        """A word for a thing."""
        loose = self.dice.chance(0.8 * self.level.vague)
        return self.dice.pick(LOOSE_NOUNS[kind] if loose else NOUNS[kind])

    def top(self) -> str:
        """The upper garment with its colours, pattern and sleeves."""
        person, dice = self.person, self.dice
        noun, colour = self.noun_for(person.top), self.colour(person.top_colour)
        sleeve = ""
        if person.jacket in ("none", "vest") and person.top not in ("sweater", "hoodie", "tank top", "t-shirt"):
            sleeve = self._sleeve() if self.mention() else ""
        pattern = person.top_pattern
        if pattern == "plain" or not self.mention(1.5) or pattern == "logo":
            return join(colour, sleeve if sleeve not in noun else "", noun)
        second = self.colour(person.top_second)
        both = f"{colour} and {second}" if colour and second and colour != second else colour
        word = dice.pick(PATTERN_WORDS[pattern])
        return join(*dice.pick(((both, word), (word, both))), sleeve, noun)

    def _sleeve(self) -> str:
        words = {
            "long": ("long-sleeved", "long sleeve"),
            "short": ("short-sleeved", "short sleeve"),
            "none": ("sleeveless",),
        }
        return self.dice.pick(words[self.person.sleeves])

    def article(self, phrase: str) -> str:
        """The phrase with 'a', 'an', 'a pair of' or nothing before it."""
        last = phrase.split()[-1]
        if last in _PLURAL:
            pair = last not in ("footwear", "luggage") and self.dice.chance(0.15)
            return f"a pair of {phrase}" if pair else phrase
        return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"

    def hair(self) -> str:
        """The hair, or the lack of it."""
        person = self.person
        if person.hair == "bald":
            return self.dice.pick(_HAIR["bald"])
        shade = self.dice.pick(HAIR_WORDS[person.hair_colour]) if self.mention(2) else ""
        return " ".join(self.dice.pick(_HAIR[person.hair]).format(shade).split())

    def bag(self) -> tuple[str, str]:
        """The bag and where it is carried."""
        person, dice = self.person, self.dice
        thing = self.article(join(self.colour(person.bag_colour), self.noun_for(person.bag)))
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
        hat = join(speaker.colour(person.headwear_colour), speaker.noun_for(person.headwear))
        facts.wears.append(speaker.article(hat))
    if person.glasses != "none" and "face" in seen and speaker.mention(0.7):
        words = ("glasses", "eyeglasses") if person.glasses == "glasses" else ("sunglasses", "dark glasses")
        facts.wears.append(dice.pick(words))
    if "hair" in seen and speaker.mention():
        facts.hair = speaker.hair()
    if person.bag != "none" and "bag" in seen and speaker.mention(1.5):
        facts.bag = speaker.bag()
    if dice.chance(0.4):
        facts.move = dice.pick((_WALKS if sight.walking else _STANDS)[sight.facing])
    return facts


def _clothes(speaker: _Speaker, sight: Sight) -> list[str]:
    """Upper and lower garments; one of them is always named."""
    person, dice = speaker.person, speaker.dice
    result = []
    logo = person.top_pattern == "logo" and "logo" in sight.seen and person.jacket == "none" and speaker.mention()
    if person.jacket != "none":
        jacket = speaker.article(join(speaker.colour(person.jacket_colour), speaker.noun_for(person.jacket)))
        if "inner" in sight.seen and speaker.mention():
            opened = (
                f"{dice.pick(('an open', 'an unbuttoned'))} {jacket.split(' ', 1)[1]}" if dice.chance(0.3) else jacket
            )
            jacket = f"{opened} {dice.pick(('over', 'on top of', 'with'))} {speaker.article(speaker.top())}"
        result.append(jacket)
    else:
        top = speaker.article(speaker.top())
        if logo:
            mark = join(speaker.colour(person.top_second), dice.pick(("logo", "print", "graphic")))
            top += f" with {speaker.article(mark)} on the {dice.pick(('front', 'chest'))}"
        result.append(top)
    if person.lower != "none" and "lower" in sight.seen and speaker.mention(4):
        pattern = dice.pick(PATTERN_WORDS.get(person.lower_pattern, ("",))) if speaker.mention(1.5) else ""
        lower = speaker.article(join(speaker.colour(person.lower_colour), pattern, speaker.noun_for(person.lower)))
        if person.lower_pattern == "side stripe" and speaker.mention():
            lower += " with a white stripe down the side"
        result.append(lower)
    return result


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
    kind = speaker.person.bag
    verbs = {"suitcase": ("pulling", "dragging"), "backpack": ("carrying", "wearing")}.get(
        kind, ("carrying", "holding")
    )
    return join(speaker.dice.pick(verbs), thing, place)


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
