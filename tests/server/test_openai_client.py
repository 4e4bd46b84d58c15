"""The official Python client works unchanged."""

from collections.abc import Iterator

import pytest

from factories.live_server import LiveServer
from factories.scripted_service import SCRIPT

openai = pytest.importorskip("openai", reason="the openai client is a development dependency")

TEXT = "".join(SCRIPT)
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def official(scripted_server: LiveServer) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(base_url=f"{scripted_server.url}v1", api_key="unused", max_retries=0) as client:
        yield client


def test_chat(official: "openai.OpenAI") -> None:
    answer = official.chat.completions.create(model="scripted", messages=HELLO, logprobs=True, top_logprobs=1)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "Hello0"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(SCRIPT)
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_an_answer_goes_back_in_as_it_came(official: "openai.OpenAI") -> None:
    first = official.chat.completions.create(model="scripted", messages=HELLO).choices[0].message
    again = official.chat.completions.create(model="scripted", messages=[*HELLO, first, *HELLO])
    assert again.choices[0].message.content == TEXT


def test_streamed_chat(official: "openai.OpenAI") -> None:
    stream = official.chat.completions.create(
        model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(SCRIPT)


def test_the_streaming_helper(official: "openai.OpenAI") -> None:
    with official.chat.completions.stream(model="scripted", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_completions(official: "openai.OpenAI") -> None:
    answer = official.completions.create(model="scripted", prompt=["a", "b"], logprobs=1)
    assert [choice.text for choice in answer.choices] == [TEXT, TEXT]
    assert answer.choices[0].logprobs.tokens == list(SCRIPT)
    chunks = list(official.completions.create(model="scripted", prompt="a", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT


def test_models(official: "openai.OpenAI") -> None:
    assert [model.id for model in official.models.list()] == ["scripted"]
    assert official.models.retrieve("scripted").owned_by == "vivace"


def test_errors_become_the_clients_own(official: "openai.OpenAI") -> None:
    with pytest.raises(openai.NotFoundError, match="not served here"):
        official.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="Tool calling") as caught:
        official.chat.completions.create(
            model="scripted", messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert (caught.value.param, caught.value.code) == ("tools", "invalid_request")
    with pytest.raises(openai.InternalServerError, match="Embeddings are off"):
        official.embeddings.create(model="scripted", input="x")
