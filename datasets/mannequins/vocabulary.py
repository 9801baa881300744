"""The words of the captions: for things, hair, patterns and moves."""

NOUNS = {
    "t-shirt": ("t-shirt", "tee shirt", "t shirt"),
    "polo shirt": ("polo shirt", "polo"),
    "shirt": ("shirt", "button-up shirt", "button-down shirt"),
    "blouse": ("blouse", "shirt"),
    "sweater": ("sweater", "pullover", "jumper"),
    "hoodie": ("hoodie", "hooded sweatshirt"),
    "tank top": ("tank top", "sleeveless top", "vest top"),
    "dress": ("dress", "knee-length dress"),
    "coat": ("coat", "long coat", "overcoat"),
    "blazer": ("blazer", "suit jacket"),
    "vest": ("vest", "sleeveless jacket"),
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
"""for things with more than their own name"""
LOOSE_NOUNS = {
    **dict.fromkeys(("t-shirt", "polo shirt", "shirt", "blouse", "tank top"), ("shirt", "top")),
    **dict.fromkeys(("sweater", "hoodie"), ("sweatshirt", "top", "long-sleeved top")),
    **dict.fromkeys(("jacket", "coat", "blazer", "cardigan"), ("jacket", "outer garment")),
    **dict.fromkeys(("trousers", "jeans", "leggings"), ("pants", "long pants", "bottoms")),
    **dict.fromkeys(("sneakers", "leather shoes", "boots", "sandals", "heels"), ("shoes", "footwear")),
    **dict.fromkeys(("backpack", "shoulder bag", "handbag", "shopping bag"), ("bag",)),
    **dict.fromkeys(("cap", "beanie", "hat"), ("hat",)),
    "suitcase": ("luggage", "case"),
}
PATTERN_WORDS = {
    "striped": ("striped", "horizontally striped", "stripy"),
    "checked": ("checked", "plaid", "checkered"),
    "dotted": ("dotted", "polka dot", "spotted"),
}
SLEEVES = {
    "long": ("long-sleeved", "long sleeve"),
    "short": ("short-sleeved", "short sleeve"),
    "none": ("sleeveless",),
}
GLASSES = {"glasses": ("glasses", "eyeglasses"), "sunglasses": ("sunglasses", "dark glasses")}
HAIR_STYLES = {
    "bald": ("a bald head", "a shaved head", "no hair"),
    "short": ("short {} hair", "{} hair cut short", "short {} hair"),
    "curly": ("curly {} hair", "short curly {} hair", "thick curly {} hair"),
    "shoulder-length": ("shoulder-length {} hair", "{} hair down to the shoulders", "medium-length {} hair"),
    "long": ("long {} hair", "long straight {} hair", "long {} hair hanging down"),
    "ponytail": ("{} hair in a ponytail", "a {} ponytail", "{} hair tied back"),
    "bun": ("{} hair in a bun", "a {} bun", "{} hair put up in a bun"),
}
WALKS = {
    "front": ("walking towards the camera", "walking forward", "coming towards the camera"),
    "back": ("walking away from the camera", "walking away", "seen walking from behind"),
    "left": ("walking to the left", "walking from right to left", "heading left"),
    "right": ("walking to the right", "walking from left to right", "heading right"),
}
STANDS = {
    "front": ("facing the camera", "standing and facing forward", "looking at the camera"),
    "back": ("facing away from the camera", "seen from behind", "standing with the back to the camera"),
    "left": ("facing left", "standing and looking to the left", "turned to the left"),
    "right": ("facing right", "standing and looking to the right", "turned to the right"),
}
