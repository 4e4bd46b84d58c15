"""`from vivace import LLM`: plain strings and keywords in, answers out, whole or in pieces, waiting or awaited."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import vivace
from factories.gguf_files import small_spec, write_gguf
from vivace import LLM
from vivace.types.answer import AnswerChunk
from vivace.types.errors import ConfigError, ContextLengthError, RequestError
from vivace.types.request import ChatMessage

SAMPLING = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path, small_spec())
    with LLM(str(path), num_blocks=64, num_threads=1) as opened:
        yield opened


def test_a_chat_takes_a_string_messages_or_mappings(llm: LLM) -> None:
    ways = ["hi", [ChatMessage("user", "hi")], [{"role": "user", "content": "hi"}]]
    answers = {llm.chat(way, **SAMPLING).text for way in ways}  # type: ignore[arg-type]
    assert len(answers) == 1


def test_several_texts_are_continued_together_and_say_what_they_say_alone(llm: LLM) -> None:
    texts = ["a", "b c", "the"]
    together = llm.generate(texts, **SAMPLING)
    assert [answer.choices[0].token_ids for answer in together] == [
        llm.generate(text, **SAMPLING).choices[0].token_ids for text in texts
    ]
    assert llm.generate([]) == []


def test_all_ways_to_ask_say_the_same(llm: LLM) -> None:
    def joined(chunks: Iterator[AnswerChunk]) -> str:
        return "".join(chunk.text for chunk in chunks)

    async def gathered(chunks: AsyncIterator[AnswerChunk]) -> str:
        return "".join([chunk.text async for chunk in chunks])

    async def awaited() -> list[str]:
        answers = [await llm.achat("hi", **SAMPLING), await llm.agenerate("hi", **SAMPLING)]
        streams = [llm.astream_chat("hi", **SAMPLING), llm.astream("hi", **SAMPLING)]
        return [answer.text for answer in answers] + [await gathered(stream) for stream in streams]

    chat, raw = llm.chat("hi", **SAMPLING).text, llm.generate("hi", **SAMPLING).text
    assert joined(llm.stream_chat("hi", **SAMPLING)) == chat
    assert joined(llm.stream("hi", **SAMPLING)) == raw
    assert asyncio.run(awaited()) == [chat, raw, chat, raw]


def test_leaving_an_asynchronous_stream_early_ends_the_answer(llm: LLM) -> None:
    async def first() -> AnswerChunk:
        stream = llm.astream("hi", temperature=0)
        chunk = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return chunk

    assert asyncio.run(first()).choice == 0
    llm.generate("x", **SAMPLING)
    assert llm.service.stats().held_blocks == 0


def test_unknown_keywords_are_refused_with_the_nearest_known_one(llm: LLM) -> None:
    with pytest.raises(RequestError, match="Did you mean 'temperature'"):
        llm.chat("hi", temprature=1)
    with pytest.raises(ConfigError, match="Did you mean 'num_threads'"):
        LLM("whatever", num_thread=1)
    with pytest.raises(ConfigError, match="Known are: "):
        LLM("whatever", zzz=1)


@pytest.mark.parametrize("messages", [5, [], [1], [{"role": "user"}], [{"role": 1, "content": "x"}], [None]])
def test_malformed_conversations_are_refused(messages: object, llm: LLM) -> None:
    with pytest.raises(RequestError):
        llm.chat(messages)  # type: ignore[arg-type]


def test_a_prompt_that_is_no_text_is_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match="The prompt is a int"):
        llm.generate(5)  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="The prompt is a int"):
        llm.generate(["a", 5])  # type: ignore[list-item]


def test_a_prompt_longer_than_the_context_is_refused(llm: LLM) -> None:
    with pytest.raises(ContextLengthError, match="256"):
        llm.generate("word " * 2000)


def test_importing_vivace_loads_nothing_heavy() -> None:
    code = "import sys, vivace; sys.exit(any(name in sys.modules for name in ('numpy', 'vivace.engine')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'LLL'"):
        _ = vivace.LLL


def test_an_interpreter_ends_cleanly_with_an_answer_under_way(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", small_spec())
    code = (
        "from vivace import LLM\n"
        f"llm = LLM({str(tmp_path / 'tiny.gguf')!r}, num_blocks=64)\n"
        "chunks = llm.stream('hi', ignore_eos=True)\n"
        "print(next(chunks).choice)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
