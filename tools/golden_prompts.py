"""The twenty fixed prompts of the golden tokens: English, Chinese, code, and chats in the model's own format."""

PLAIN = (
    "The capital of France is",
    "Once upon a time, in a village at the edge of a dark forest, there lived",
    "The three laws of thermodynamics can be summarised as follows:",
    "In 1969, the first human beings walked on the Moon. The mission was called",
    "A good recipe for pancakes needs flour, milk, eggs and",
    "Dear Sir or Madam,\n\nI am writing to complain about",
    "中国的首都是",
    "从前有一座山，山里有一座庙，",
    "人工智能正在改变我们的生活。例如，",
    "问：水在多少度沸腾？\n答：",
    "def fibonacci(n):\n    ",
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n",
    "SELECT name, COUNT(*) FROM orders WHERE",
    '{"name": "Ada Lovelace", "born": 1815, "occupation": "',
)

QUESTIONS = (
    "What is the difference between a list and a tuple in Python?",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a ten-year-old child.",
    "用中文介绍一下北京。",
    "Write a function that reverses a string, in JavaScript.",
    "Why is the sky blue? 🌤️ Answer in two sentences.",
)

CHAT_FORMATS = {
    "smollm2-135m": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "gemma3-270m": "<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n",
}


def prompts(model: str) -> list[str]:
    """The twenty prompts of a model, as text; special tokens are written out."""
    return [*PLAIN, *(CHAT_FORMATS[model].format(question=question) for question in QUESTIONS)]
