"""Strange texts from seeds: the same seed gives the same text on every machine and Python version.

Only code points that Unicode assigned long ago are drawn (at most Unicode 12), since newer ones are letters to one
library's tables and nothing to another's.
"""

import random
from collections.abc import Callable

_ENGLISH = (
    "the of and to in is you that it he was for on are as with his they I at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part token "
    "Paris France capital Einstein's don't I'LL we've it'd O'Neil naïve café Zürich œuvre İstanbul straße ﬁne"
)
_CODE = (
    "def f(x):\n    return x ** 2\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    'if __name__ == "__main__":\n        main()\n',
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
    '<div class="a">\n  <table><tr><td>1</td></tr></table>\n</div>\n',
    '{"key": [1, 2.5e-3, null, true], "s": "\\u00e9\\n"}',
    "```python\nprint(f'{x:>10}')\n```\n",
    "https://example.com/a_b-c?q=%20x&y=1#z",
    "C:\\Users\\x\\y.txt || true && false == !a ?? b => c -> d :: e",
    "#include <stdio.h>\r\n#define X 0xDEADBEEF\r\n",
    "$\\frac{a_{1}}{b^{2}} \\leq \\sum_{i=0}^{n} x_i$",
)
_HAN = (
    "的一是不了在人有我他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天"
    "而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些"
    "与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相"
    "次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立"
    "马命张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共"
    "风战干接它许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快"
    "条院变联言权往展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李"
    "息写呢识极令黄德收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯"
)
_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<bos>", "<eos>", "<end_of_turn>", "<start_of_turn>user\n",
    "<|im_start", "im_end|>", "<unused42>", "<0x0A>", "</s>", "[INST]", "<|eot_id|>", "<table>", "<|", "|>", "<unk>",
)  # fmt: skip
_EMOJI = (
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇨🇳", "❤️", "👩🏿‍🚀", "🤷‍♂️", "1️⃣", "☎︎", "🎉", "🧑‍🤝‍🧑", "⚕",
)  # fmt: skip
_SCRIPTS = (
    (0x4E00, 0x9FA5), (0x3400, 0x4DB5), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3), (0x0400, 0x045F),
    (0x0391, 0x03A1), (0x05D0, 0x05EA), (0x0621, 0x063A), (0x0905, 0x0939), (0x0E01, 0x0E30), (0x1E00, 0x1EFF),
    (0x00C0, 0x00FF), (0x0100, 0x017F), (0x10D0, 0x10F0), (0x0531, 0x0556), (0x20000, 0x2A6D6), (0x1D400, 0x1D454),
    (0x0B85, 0x0B8A), (0x1200, 0x1248), (0x13A0, 0x13F4), (0xFF01, 0xFF5E),
)  # fmt: skip
_MARKS = "\u0300\u0301\u0308\u0327\u0323\u20d7\u0345\u093f\u0e31\u064b\u05b4\ufe0f\u200d"
_SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»“”‘’—–…·•°€£¥©®™§¶†‡‰′″∀∂∈∑√∞≈≠≤≥⊕→⇒■□★☆、。「」《》！？，："
_BLANKS = " \t\n\r\u00a0\u2003\u3000\u2028\u0085\x0b\x0c\u200b\ufeff▁"
_DIGITS = "0123456789٠١٢३४५０１²³½Ⅷ一二三"


def _word(r: random.Random) -> str:
    word = r.choice(_WORDS)
    return r.choice((word, word, " " + word, " " + word, word.upper(), word.capitalize(), word + "s", "'" + word))


def _prose(r: random.Random) -> str:
    return " ".join(r.choice(_WORDS) for _ in range(r.randint(1, 12))) + r.choice((".", "!", "?", ",", "\n", " "))


def _script(r: random.Random) -> str:
    low, high = r.choice(_SCRIPTS)
    return "".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 10)))


def _chinese(r: random.Random) -> str:
    return "".join(r.choice(_HAN) for _ in range(r.randint(1, 16))) + r.choice("。，！？ \n")


def _marked(r: random.Random) -> str:
    return "".join(r.choice("aeioubnكاहไé") + r.choice(_MARKS) * r.randint(0, 3) for _ in range(r.randint(1, 6)))


def _blanks(r: random.Random) -> str:
    if r.random() < 0.5:
        return r.choice(" \n\t") * r.choice((1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 70))
    return "".join(r.choice(_BLANKS) for _ in range(r.randint(1, 5)))


def _controls(r: random.Random) -> str:
    return "".join(chr(r.choice((*range(0x20), 0x7F, *range(0x80, 0xA0)))) for _ in range(r.randint(1, 4)))


def _anything(r: random.Random) -> str:
    points = (r.choice((r.randint(0, 0x2FF), r.randint(0, 0xD7FF), r.randint(0xE000, 0x10FFFF))) for _ in range(3))
    return "".join(map(chr, points))


_MAKERS: tuple[tuple[int, Callable[[random.Random], str]], ...] = (
    (10, _word),
    (6, _prose),
    (4, _chinese),
    (4, _script),
    (3, lambda r: "".join(r.choice(_DIGITS[: r.choice((10, 10, len(_DIGITS)))]) for _ in range(r.randint(1, 12)))),
    (3, _blanks),
    (3, lambda r: "".join(r.choice(_SYMBOLS) for _ in range(r.randint(1, 6)))),
    (2, lambda r: r.choice(_EMOJI) * r.randint(1, 3)),
    (2, _marked),
    (2, lambda r: r.choice(_CODE)),
    (2, lambda r: r.choice(_MARKERS)),
    (1, lambda r: r.choice("aA=-_.#*~あ好\u0301😀") * r.randint(2, 80)),
    (1, _controls),
    (1, lambda r: "\u202e" + "".join(chr(r.randint(0x5D0, 0x5EA)) for _ in range(r.randint(1, 8))) + "\u202c"),
)
_WORDS = _ENGLISH.split()
_WEIGHTS = [weight for weight, _ in _MAKERS]


def fuzz_text(seed: int, *, any_code_point: bool = False) -> str:
    """A text of a few to a few hundred characters made of words, scripts, digits, blanks, code, emoji and controls.

    Args:
        seed: names the text.
        any_code_point: also draw code points that may be unassigned (for round trips, not for comparisons).
    """
    r = random.Random(seed)
    parts = [r.choices(_MAKERS, _WEIGHTS)[0][1](r) for _ in range(r.choice((1, 2, 3, 5, 8, 13)))]
    if any_code_point:
        parts.insert(r.randrange(len(parts) + 1), _anything(r))
    return r.choice(("", "", "", " ")).join(parts)
