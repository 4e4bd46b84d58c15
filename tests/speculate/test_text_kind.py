"""Kinds of text in English and Chinese."""

import pytest

from vivace.speculate.text_kind import KINDS, classify

EXAMPLES = {
    "greeting": ("Hello!", "hi there", "Good morning, how are you?", "你好", "您好，在吗？", "谢谢你！"),
    "factual": (
        "What is the capital of France?",
        "How many legs does a spider have?",
        "法国的首都是什么？",
        "为什么天空是蓝色的？",
        "Explain photosynthesis to me.",
    ),
    "creative": (
        "Write a short story about a dragon.",
        "Compose a poem about autumn",
        "写一首关于春天的诗",
        "给我编一个童话故事",
        "Imagine you are a pirate and describe your ship.",
    ),
    "code": (
        "def add(a, b):\n    return a + b\n",
        "Write a Python function that sorts a list.",
        "```js\nconst x = (a) => a + 1;\n```",
        "用代码实现快速排序算法",
        'from typing import List\n\n\ndef f(x: List[int]) -> int:\n    """Sum."""\n',
    ),
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in EXAMPLES.items() for text in texts])
def test_examples_are_told_apart(kind: str, text: str) -> None:
    assert classify(text) == kind


def test_control_tokens_of_a_template_are_no_text() -> None:
    assert classify("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n") == "greeting"


def test_of_a_conversation_the_last_turn_tells_the_kind() -> None:
    system = (
        "<|im_start|>system\nYou are a helpful assistant who writes stories and Python code, what a joy.<|im_end|>\n"
    )
    assert classify(system + "<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n") == "greeting"
    gemma = "<bos><start_of_turn>user\nWrite a poem.<end_of_turn>\n<start_of_turn>model\nOnce<end_of_turn>\n"
    assert classify(f"{gemma}<start_of_turn>user\n你好<end_of_turn>\n<start_of_turn>model\n") == "greeting"
    assert classify("def f():\n    user\n<div>\n</div>\n    return g(user);\n") == "code"


def test_a_long_message_that_begins_with_hello_is_about_something_else() -> None:
    assert classify("Hello, " + "what is the population of each of these cities and who counted it? " * 2) == "factual"


@pytest.mark.parametrize("text", ["", " ", "\x00", "🙂" * 5000, "lorem ipsum dolor"])
def test_text_without_a_sign_counts_as_factual(text: str) -> None:
    assert classify(text) == "factual"


def test_a_text_without_a_sign_stays_what_it_was() -> None:
    assert classify("lorem ipsum dolor", "creative") == "creative"
    assert classify("def f(x):\n    return x", "creative") == "code"


def test_the_chapters_expectations_stand_beside_the_kinds() -> None:
    assert {row.kind: row.num_drafts for row in KINDS} == {
        "greeting": (6, 8),
        "factual": (4, 5),
        "creative": (2, 3),
        "code": (5, 6),
    }
