"""The words of the world: syllables that names are built from, and the values that attributes can take."""

NUMBERS: tuple[str, ...] = tuple(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "  # noqa: SIM905
    "eighteen nineteen twenty".split()
)

SYLLABLES: dict[str, tuple[str, str]] = {
    "creature": (
        "bram dor fen gol hask jun kep lum mor nib ost pim quil rud sorn tav vek wob yar zim",
        "ick ell oon ard esh ulf owen",
    ),
    "woman": ("Al Bren Cor Dal El Fin Han Ir Jol Kel Lin Mer Nor Os Til", "wyn ora essa ivie edra"),
    "man": ("Ab Bo Cu Dre Ed Gar Hal Jor Ke Lu Mo Ol Per Ru Tho", "rek mund vin lo bert"),
    "town": ("Bel Drum Fal Gren Hob Murk Orl Pell Quor Sal Tarn Vint Wend Yew", "moor mere stead gate holm"),
    "mineral": ("vel tor gax bri cas dru ish lor mav nor pho zan", "rite dine spar lium"),
    "plant": ("orr silv thim fey barr cland dew lark sax tans wyr umb", "wort leaf root bell"),
    "dish": ("tolly marn gruff bimble snup corly fizzen jory pottle wendle", "stew pie bread soup cake"),
}
"""First and second parts of a name, by the kind of the thing; a dish is two words."""

SHARES = {"creature": 2, "person": 2, "town": 1, "mineral": 1, "plant": 1, "dish": 1}
"""Eighths of the entities that are of each kind."""

VALUES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "yellow", "white", "black", "grey", "brown", "purple", "golden"),
    "count": ("two", "three", "four", "five", "six", "eight", "nine", "ten", "twelve"),
    "fodder": ("moss", "berries", "snails", "honey", "reeds", "mushrooms", "fish", "acorns", "beetles", "clover"),
    "habitat": ("the marsh", "hollow trees", "salt caves", "old wells", "pine woods", "deep ponds", "stone walls", "tall grass"),
    "sound": ("humming", "whistling", "clicking", "croaking", "rattling", "hooting", "purring", "buzzing"),
    "fear": ("thunder", "bells", "fire", "dogs", "mirrors", "smoke", "drums", "strong wind"),
    "gift": ("wool", "silk", "feathers", "oil", "eggs", "milk", "wax", "ink"),
    "trade": ("baker", "weaver", "smith", "fisher", "potter", "healer", "miller", "carpenter", "innkeeper", "tailor"),
    "tool": ("a lamp", "a rope", "an axe", "a compass", "a spoon", "a whistle", "a knife", "a net"),
    "landmark": (
        "a lake",
        "a cliff",
        "an old forest",
        "a salt plain",
        "a windy hill",
        "a wide river",
        "a canyon",
        "a frozen bay",
    ),
    "product": ("glass", "paper", "bells", "boats", "carpets", "knives", "candles", "drums", "clocks", "kites"),
    "season": ("spring", "summer", "autumn", "winter"),
    "power": (
        "the mill guild",
        "the bell house",
        "the salt office",
        "the river court",
        "the harvest court",
        "the town council",
        "the toll house",
        "the lantern watch",
    ),
    "deposit": (
        "river sand",
        "deep mines",
        "old volcanoes",
        "dry lakes",
        "sea cliffs",
        "mountain snow",
        "peat bogs",
        "chalk pits",
    ),
    "purpose": (
        "lighting rooms",
        "mending bones",
        "painting cloth",
        "sharpening tools",
        "warming beds",
        "cleaning water",
        "sealing jars",
        "writing on walls",
    ),
    "touch": ("cold", "warm", "smooth", "rough", "oily", "sticky", "dusty", "sharp"),
    "soil": ("wet sand", "black soil", "warm ash", "thin gravel", "soft clay", "deep shade", "open fields", "garden beds"),
    "ailment": ("a cough", "a fever", "a sore throat", "bad dreams", "a headache", "a burn", "a rash", "a cold"),
    "moment": ("at dawn", "at noon", "at dusk", "at midnight", "after rain", "before storms", "in fog", "in frost"),
    "scent": ("honey", "pepper", "smoke", "rain", "lemon", "bread", "mint", "soap"),
    "ingredient": ("turnips", "barley", "walnuts", "goat milk", "onions", "river crabs", "apples", "beans", "pumpkin", "cheese"),
    "taste": ("sweet", "sour", "bitter", "salty", "hot", "smoky", "mild", "rich"),
    "vessel": ("an iron pot", "a clay oven", "a copper pan", "a stone bowl", "a glass jar", "a tin kettle"),
    "company": ("dark bread", "cold milk", "warm cider", "pickled eggs", "green tea", "roast nuts", "white wine", "fresh butter"),
    "occasion": ("weddings", "funerals", "birthdays", "market days", "boat races", "long journeys", "first snow", "name days"),
}
"""What an attribute of each type can be. A phrase fits every wording of every relation that uses its type."""

HUNTED = ("snails", "fish", "beetles")
"""A creature that eats one of these is a hunter; every other creature is a grazer."""

WATERY = ("the marsh", "deep ponds", "old wells")
"""A creature that lives in one of these is a water creature; every other creature is a land creature."""

REMEDIES = {
    "it is raining": "a thick cloak",
    "the road is dark": "a bright lamp",
    "the night is cold": "a wool blanket",
    "the river is high": "a small boat",
    "the sun is hot": "a wide hat",
    "the path is steep": "a strong stick",
    "the snow is deep": "a pair of tall boots",
    "the fog is thick": "a loud whistle",
}
"""What to take along when something is the matter."""

GOODS = ("lamps", "ropes", "jars", "hats", "candles", "kites", "apples", "eggs", "spoons", "drums", "boats", "knives")
"""Things that can be owned and counted."""

VERBS = {
    "walks to {town}": "walked to {town}",
    "buys {fodder}": "bought {fodder}",
    "feeds the {creature}": "fed the {creature}",
    "sings in the square": "sang in the square",
    "cooks {dish}": "cooked {dish}",
    "finds {mineral}": "found {mineral}",
    "sells {product}": "sold {product}",
    "writes to {person}": "wrote to {person}",
    "waits for {person}": "waited for {person}",
    "picks {plant}": "picked {plant}",
    "sees a {creature}": "saw a {creature}",
    "rides to {town}": "rode to {town}",
    "thanks {person}": "thanked {person}",
    "eats {dish}": "ate {dish}",
    "helps {person}": "helped {person}",
    "runs from the {creature}": "ran from the {creature}",
    "carries {product}": "carried {product}",
    "sleeps in {town}": "slept in {town}",
    "paints the {creature}": "painted the {creature}",
    "brings {fodder}": "brought {fodder}",
    "meets {person}": "met {person}",
    "opens the gate of {town}": "opened the gate of {town}",
}
"""Things that somebody does, in the present and in the past."""
