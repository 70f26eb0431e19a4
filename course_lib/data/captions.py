"""The language of the shapes: attributes to captions and back, in English and Chinese. Built in chapter 02.

A scene is a dictionary of attributes, such as `{"size": "large", "color": "red", "shape": "circle",
"position": "top left", "background": "navy"}`. A caption is a template with every slot filled by one of the words
for its value. Two things follow: captions come in many word orders and synonyms, and they can be read back exactly.
"""

import functools
import itertools
import random
import re
import string
import unicodedata

from course_lib.errors import CourseError, nearest

SINGLE = {  # the attributes of a scene with one object: 2 * 8 * 8 * 5 * 3 = 1,920 combinations
    "size": ("large", "small"),
    "color": ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan"),
    "shape": ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent"),
    "position": ("top left", "top right", "center", "bottom left", "bottom right"),
    "background": ("navy", "gray", "cream"),
}
PAIR = {  # a scene with two objects and where the first stands relative to the second
    "color": SINGLE["color"],
    "shape": SINGLE["shape"],
    "relation": ("left of", "right of", "above", "below"),
    "color2": SINGLE["color"],
    "shape2": SINGLE["shape"],
    "background": SINGLE["background"],
}
GRAMMARS = {  # how much of `SINGLE` a data set uses: attribute -> values kept; what is not named is kept whole
    "full": {},
    "small": {"shape": ("circle", "square", "triangle", "ring"), "color": SINGLE["color"][:6], "background": ("navy",)},
}
LANGUAGES = ("en", "zh")
STYLES = ("canonical", "varied", "noisy", "unseen")

# The first word of each value is the one canonical captions use; the others are its synonyms.
WORDS = {
    "en": {
        "large": ("large", "big", "huge"),
        "small": ("small", "little", "tiny"),
        "red": ("red", "crimson"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "yellow": ("yellow", "golden"),
        "orange": ("orange", "tangerine"),
        "purple": ("purple", "violet"),
        "pink": ("pink", "rosy"),
        "cyan": ("cyan", "turquoise"),
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "ring": ("ring", "hoop"),
        "cross": ("cross", "plus sign"),
        "heart": ("heart",),
        "crescent": ("crescent", "moon"),
        "top left": ("top left", "upper left"),
        "top right": ("top right", "upper right"),
        "center": ("center", "middle"),
        "bottom left": ("bottom left", "lower left"),
        "bottom right": ("bottom right", "lower right"),
        "navy": ("navy", "midnight"),
        "gray": ("gray", "grey"),
        "cream": ("cream", "ivory"),
        "left of": ("left of", "to the left of"),
        "right of": ("right of", "to the right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
    },
    "zh": {
        "large": ("大", "巨大"),
        "small": ("小", "很小"),
        "red": ("红色", "鲜红色"),
        "green": ("绿色", "翠绿色"),
        "blue": ("蓝色", "天蓝色"),
        "yellow": ("黄色", "金黄色"),
        "orange": ("橙色", "橘色"),
        "purple": ("紫色", "紫罗兰色"),
        "pink": ("粉色", "粉红色"),
        "cyan": ("青色", "青绿色"),
        "circle": ("圆形", "圆盘"),
        "square": ("正方形", "方块"),
        "triangle": ("三角形",),
        "star": ("星形", "星星"),
        "ring": ("圆环", "环形"),
        "cross": ("十字", "十字形"),
        "heart": ("心形", "爱心"),
        "crescent": ("月牙", "新月"),
        "top left": ("左上角", "左上方"),
        "top right": ("右上角", "右上方"),
        "center": ("中间", "中央"),
        "bottom left": ("左下角", "左下方"),
        "bottom right": ("右下角", "右下方"),
        "navy": ("藏青色", "深蓝色"),
        "gray": ("灰色", "浅灰色"),
        "cream": ("米色", "米白色"),
        "left of": ("左边", "左侧"),
        "right of": ("右边", "右侧"),
        "above": ("上面", "上边"),
        "below": ("下面", "下边"),
    },
}

# A part in brackets falls away when its attribute is not mentioned. The first template is the canonical one.
# "unseen" templates are used in no training whatever: they measure how well a model reads new word orders.
TEMPLATES = {
    ("en", "single", "seen"): (
        "a [{size} ][{color} ]{shape}[ at the {position}][ on {background}]",
        "a [{size} ][{color} ]{shape}[ on a {background} background][ in the {position}]",
        "[on {background}, ]a [{size} ][{color} ]{shape}[ at the {position}]",
        "[at the {position}, ]a [{size} ][{color} ]{shape}[ on {background}]",
        "[{size} ][{color} ]{shape}[, {position}][, {background} background]",
        "[{background} background, ][{color} ]{shape}[, {size}][, {position}]",
        "a [{color} ]{shape}[ that is {size}][ against {background}][ in the {position}]",
        "a picture of one [{size} ]{shape}[ in {color}][ on {background}][, placed at the {position}]",
        "please draw a [{size} ][{color} ]{shape}[ in the {position}][ of a {background} canvas]",
        "[{position}: ][{size} ][{color} ]{shape}[ on {background}]",
        "{shape}[, {color}][, {size}][, on {background}][, {position}]",
        "one [{color} ][{size} ]{shape}[, {background} background][, in the {position}]",
        "draw a [{color} ]{shape}[ at the {position}][, {size}][, against {background}]",
    ),
    ("en", "single", "unseen"): (
        "[on {background} ][at the {position}, ]one [{color} ]{shape}[ that is {size}]",
        "a [{size} ]{shape}[ in {color}][, {position}][, against {background}]",
        "draw me a [{color}, ][{size} ]{shape}[, on a {background} background][, in the {position}]",
    ),
    ("zh", "single", "seen"): (
        "[{background}背景上，][{position}有]一个[{size}的][{color}]{shape}",
        "一个[{size}的][{color}]{shape}[，在{position}][，{background}背景]",
        "[{color}]{shape}[，{size}][，{position}][，{background}底]",
        "[在{position}画]一个[{color}的][{size}]{shape}[，背景是{background}]",
        "[{background}底，][{size}的][{color}]{shape}[，{position}]",
        "请画一个[{size}的][{color}]{shape}[，位于{position}][，背景{background}]",
        "[{position}的]{shape}[，{color}][，{size}][，{background}背景]",
        "画一个[{color}]{shape}[，要{size}][，放在{position}][，{background}底]",
        "[{background}的背景，][{color}的]{shape}[在{position}][，{size}]",
        "[{size}的][{color}]{shape}[，背景是{background}][，{position}]",
    ),
    ("zh", "single", "unseen"): (
        "[{background}背景，]一个[{color}的][{size}]{shape}[，位于{position}]",
        "[{position}，]一个[{color}]{shape}[，{size}][，背景是{background}]",
    ),
    ("en", "pair", "seen"): (
        "a [{color} ]{shape} {relation} a [{color2} ]{shape2}[ on {background}]",
        "[on {background}, ]a [{color} ]{shape} {relation} a [{color2} ]{shape2}",
        "[{color} ]{shape} {relation} [{color2} ]{shape2}[, {background} background]",
        "[{background} background, ]a [{color} ]{shape} {relation} a [{color2} ]{shape2}",
        "a picture of a [{color} ]{shape} {relation} a [{color2} ]{shape2}[ on a {background} background]",
        "please draw a [{color} ]{shape} {relation} a [{color2} ]{shape2}[ on a {background} canvas]",
        "there is a [{color} ]{shape} {relation} a [{color2} ]{shape2}[ against {background}]",
        "the [{color} ]{shape} is {relation} the [{color2} ]{shape2}[, on {background}]",
        "two objects[ on {background}]: a [{color} ]{shape} {relation} a [{color2} ]{shape2}",
        "[on a {background} background, ]{relation} a [{color2} ]{shape2} there is a [{color} ]{shape}",
        "{relation} a [{color2} ]{shape2} is a [{color} ]{shape}[, {background} background]",
        "a [{color2} ]{shape2} with a [{color} ]{shape} {relation} it[, on {background}]",
    ),
    ("en", "pair", "unseen"): ("draw one [{color} ]{shape} {relation} one [{color2} ]{shape2}[ against {background}]",),
    ("zh", "pair", "seen"): (
        "[{background}背景上，]一个[{color}]{shape}在一个[{color2}]{shape2}的{relation}",
        "[{color}]{shape}在[{color2}]{shape2}{relation}[，{background}背景]",
        "[{background}底，]一个[{color}的]{shape}，位于一个[{color2}的]{shape2}的{relation}",
        "图中[{color}]{shape}位于[{color2}]{shape2}的{relation}[，背景{background}]",
        "请画一个[{color}]{shape}，放在[{color2}]{shape2}的{relation}[，{background}底]",
        "两个图形[，{background}的背景]：[{color}]{shape}在[{color2}]{shape2}的{relation}",
        "[{background}背景上，][{color2}]{shape2}的{relation}有一个[{color}]{shape}",
        "[{color2}]{shape2}{relation}是[{color}]{shape}[，{background}底]",
        "在[{color2}的]{shape2}{relation}画一个[{color}的]{shape}[，背景是{background}]",
    ),
    ("zh", "pair", "unseen"): ("请画[{color}的]{shape}，在[{color2}的]{shape2}的{relation}[，背景是{background}]",),
}
OPTIONAL = ("size", "position", "background")  # what a varied caption may leave unsaid
OMIT = 0.1  # how often it does so, for each of them
LOOSE = 0.25  # how often it is no sentence but loose words in any order, so that no model hangs on the order
SEPARATORS = {"en": (" ", ", "), "zh": ("，", "的", "、")}


def scene_of(attributes: dict[str, str]) -> str:
    """ "pair" when the attributes describe two objects, else "single"."""
    return "pair" if "shape2" in attributes else "single"


def fill(template: str, words: dict[str, str]) -> str:
    """The template with its slots filled; a bracketed part whose attribute has no word falls away."""

    def part(match: re.Match) -> str:
        slot = re.search(r"{(\w+)}", match[1])[1]
        return match[1] if slot in words else ""

    text = re.sub(r"\[([^]]*)]", part, template).format(**words)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def describe(attributes: dict[str, str], language: str = "en", style: str = "canonical", seed: int | str = 0) -> str:
    """A caption for a scene.

    Args:
        attributes: attribute -> value, all or some of `SINGLE` (or `PAIR`); shape (and relation, shape2) must be there.
        language: "en" or "zh".
        style: "canonical" is the first template with the first words. "varied" draws a template and synonyms, leaves
            each of size, position and background unsaid one time in ten, and every fourth time gives loose words in
            any order. "noisy" is "varied" with a word that means nothing in every second caption. "unseen" draws from
            the templates that no model is trained on, with everything said.
        seed: makes the choices of all but "canonical" repeatable.
    Raises:
        CourseError: unknown language or style.

    >>> describe({"size": "large", "color": "orange", "shape": "ring", "position": "center", "background": "gray"})
    'a large orange ring at the center on gray'
    """
    if language not in LANGUAGES:
        raise CourseError(f'language="{language}" is unknown; {nearest(language, LANGUAGES)}')
    if style not in STYLES:
        raise CourseError(f'style="{style}" is unknown; {nearest(style, STYLES)}')
    rng = random.Random(f"{seed}")
    templates = TEMPLATES[language, scene_of(attributes), "unseen" if style == "unseen" else "seen"]
    if style == "canonical":
        return fill(templates[0], {slot: WORDS[language][value][0] for slot, value in attributes.items()})
    said = {k: v for k, v in attributes.items() if style == "unseen" or k not in OPTIONAL or rng.random() >= OMIT}
    words = {slot: rng.choice(WORDS[language][value]) for slot, value in said.items()}
    if style != "unseen" and scene_of(attributes) == "single" and rng.random() < LOOSE:
        text = shuffle(list(words.values()), SEPARATORS[language], rng)
    else:
        text = fill(rng.choice(templates), words)
    return with_made_up_word(text, rng) if style == "noisy" and rng.random() < 0.5 else text


def shuffle(words: list[str], separators: tuple[str, ...], rng: random.Random) -> str:
    """The words in a random order, with a random separator in each gap."""
    rng.shuffle(words)
    return words[0] + "".join(rng.choice(separators) + word for word in words[1:])


def with_made_up_word(text: str, rng: random.Random) -> str:
    """The caption with a word of random letters somewhere: who trains on it learns that strange words mean nothing.

    Without such captions "draw me a ring" became a moon: the encoder took the "m" of the new word "me" for half a moon.
    """
    if text.isascii():
        gaps = [match.start() for match in re.finditer(r"\b[a-z]", text)]
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7))) + " "
    else:
        gaps = list(range(len(text) + 1))
        word = "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(1, 3)))
    gap = rng.choice(gaps)
    changed = text[:gap] + word + text[gap:]
    return changed if parse(changed) == parse(text) else text  # not in the middle of "plus sign"


@functools.cache
def _lexicon() -> tuple[re.Pattern, dict[str, str]]:
    """One pattern that finds every known phrase, longest first, and what each phrase means."""
    meaning = {word: value for words in WORDS.values() for value, row in words.items() for word in row}
    ordered = sorted(meaning, key=len, reverse=True)
    phrases = (rf"\b{re.escape(p)}\b" if p.isascii() else re.escape(p) for p in ordered)
    return re.compile("|".join(phrases)), meaning


def _second_comes_first(phrases: list[str], found: list[str]) -> bool:
    """Whether a text names the object that another one stands by before that other one.

    English puts "left of" before the object it refers to, Chinese puts "左边" behind it. So where the relation stands
    between the two, English names them in order ("a star left of a ring"), and Chinese does not ("圆环左边是星形").
    Elsewhere it is the other way round ("left of a ring is a star", "星形在圆环左边").
    """
    place = next(i for i, value in enumerate(found) if value in PAIR["relation"])
    between = sum(value in PAIR["shape"] for value in found[:place]) == 1
    return between != phrases[place].isascii()


def parse(text: str) -> dict[str, str]:
    """The attributes that a caption names; what it doesn't name is missing from the result.

    With two shapes and a relation in the text the keys are those of `PAIR`, else those of `SINGLE`. Of two words for
    one attribute the first counts. Understands both languages, any word order and every synonym.

    >>> parse("an azure hoop, tiny, on ivory")
    {'size': 'small', 'color': 'blue', 'shape': 'ring', 'background': 'cream'}
    >>> parse("above a green heart is a red star")
    {'color': 'red', 'shape': 'star', 'relation': 'above', 'color2': 'green', 'shape2': 'heart'}
    """
    pattern, meaning = _lexicon()
    phrases = pattern.findall(unicodedata.normalize("NFKC", text).casefold())
    found = [meaning[phrase] for phrase in phrases]
    by_kind = {name: [v for v in found if v in values] for name, values in {**SINGLE, **PAIR}.items()}
    if len(by_kind["shape"]) > 1 and by_kind["relation"]:
        step = -1 if _second_comes_first(phrases, found) else 1
        for name in ("color", "shape"):
            by_kind[name], by_kind[f"{name}2"] = (by_kind[name][:1], by_kind[name][1:2])[::step]
        return {name: by_kind[name][0] for name in PAIR if by_kind[name]}
    return {name: by_kind[name][0] for name in SINGLE if by_kind[name]}


def words_of(text: str) -> list[str]:
    """The words of a text: Latin words whole, every other letter by itself."""
    return re.findall(r"[a-z]+|[^\W\d_a-z]", unicodedata.normalize("NFKC", text).casefold())


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word that a caption of the grammar can hold, in both languages."""
    texts = [re.sub(r"{\w+}", " ", t) for templates in TEMPLATES.values() for t in templates]
    texts += [word for words in WORDS.values() for row in words.values() for word in row]
    return frozenset(itertools.chain(*map(words_of, texts), ["an"]))
