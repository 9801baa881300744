"""Words of captions of pedestrians, by what they are about: for data sets whose truth is not known."""

import re

WORDS = {
    "colour": "black white grey gray navy blue red maroon burgundy green olive yellow orange pink purple violet brown "
    "beige tan khaki cream dark light colored coloured",
    "upper garment": "shirt shirts t-shirt tshirt tee polo blouse sweater sweatshirt hoodie pullover jumper top jacket "
    "coat overcoat blazer suit vest cardigan dress uniform",
    "lower garment": "trousers pants jeans slacks leggings tights shorts skirt capris",
    "shoes": "shoes shoe sneakers trainers boots sandals heels slippers flip-flops loafers footwear",
    "bag": "bag bags backpack rucksack handbag purse suitcase luggage satchel briefcase tote",
    "headwear": "hat cap beanie hood helmet headscarf scarf",
    "hair": "hair bald ponytail bun haired braid braids",
    "glasses": "glasses eyeglasses sunglasses spectacles",
    "pattern or print": "striped stripes stripe plaid checked checkered dotted dots spotted floral print printed "
    "pattern patterned logo letters graphic",
    "sleeves": "sleeve sleeves sleeved sleeveless long-sleeved short-sleeved long-sleeve short-sleeve",
    "something carried": "phone cellphone umbrella bottle book books bicycle bike cup papers folder camera stroller",
    "pose or direction": "walking standing facing riding running sitting looking turned back front side left right",
    "age": "young old elderly middle-aged child kid boy girl teenager",
}
"""by topic; words are compared in lower case and as a whole, sleeveless is not sleeve"""

_SETS = {topic: frozenset(words.split()) for topic, words in WORDS.items()}


def topics_of(caption: str) -> set[str]:
    """The topics of which a caption holds a word."""
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", caption.lower()))
    words |= {part for word in words for part in word.split("-")}
    return {topic for topic, known in _SETS.items() if words & known}
