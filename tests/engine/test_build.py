"""From a name to a service: sizes follow model and machine, and what can never work is said at once."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.engine.build import EngineConfig, build_service, choose_precision
from vivace.engine.core import Engine
from vivace.engine.kv_memory import available_memory_bytes, bytes_per_block, choose_num_blocks
from vivace.engine.tiering import TierConfig
from vivace.files.open import open_model
from vivace.types.errors import CatalogueError, ConfigError, TokenizerError

SPEC = small_spec()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path, SPEC)
    return path


def test_bytes_of_a_block_count_keys_and_values_of_every_layer() -> None:
    assert bytes_per_block(SPEC) == 3 * 2 * 16 * 16 * 2 * 2


@pytest.mark.parametrize(
    ("context", "kv_bytes", "available", "expected"),
    [
        (8192, None, 1 << 40, 4 * 512),
        (256, None, 1 << 40, 1024),  # a short context does not shut people out
        (256, None, 4 * 10 * bytes_per_block(SPEC), 10),
        (256, 7 * bytes_per_block(SPEC) + 1, 0, 7),
    ],
)
def test_blocks_follow_context_and_memory(context: int, kv_bytes: int | None, available: int, expected: int) -> None:
    assert choose_num_blocks(SPEC, context, kv_bytes, available) == expected


def test_memory_for_no_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold no KV block"):
        choose_num_blocks(SPEC, 256, 10, 1 << 40)


@pytest.mark.parametrize(
    ("config", "isa", "expected"),
    [
        (EngineConfig(), "avx512bf16", (12, "f16")),
        (EngineConfig(activation_bits=12), "avx512bf16", (12, "f16")),
        (EngineConfig(activation_bits=8), "avx512bf16", (8, "bf16")),
        (EngineConfig(weights="int8"), "avx512bf16", (12, "bf16")),
        (EngineConfig(weights="int8"), "avx2", (12, "f16")),
        (EngineConfig(weights="int8", kv_format="f16"), "avx512bf16", (12, "f16")),
        (EngineConfig(activation_bits=8, executor="reference"), "avx512bf16", (8, "f16")),
    ],
)
def test_choices_for_speed_keep_bfloat16_where_the_kernels_multiply_it(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, config: EngineConfig, isa: str, expected: tuple[int, str]
) -> None:
    monkeypatch.setenv("VIVACE_ISA", isa)
    loaded = open_model(model_path)
    assert choose_precision(loaded, config) == expected
    loaded.close()


def mounted(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4 << 30),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   5 kB\n"}, 5 * 1024),
        ({"proc/meminfo": "MemAvailable: 5 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 5 * 1024),
        (
            {
                "proc/meminfo": "MemAvailable: 5 kB\n",
                "sys/fs/cgroup/memory.max": "4000\n",
                "sys/fs/cgroup/memory.current": "3000\n",
                "sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 500\n",
            },
            1500,
        ),
    ],
)
def test_available_memory_is_the_least_of_system_and_control_group(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert available_memory_bytes(mounted(tmp_path, files)) == expected


def test_available_memory_of_this_machine_is_known() -> None:
    assert available_memory_bytes() > 1 << 20


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_service_answers_with_either_executor(executor: str, model_path: Path) -> None:
    service = build_service(str(model_path), EngineConfig(executor=executor, num_blocks=32, num_threads=1))
    answer = service.complete(service.admit(service.encode("a"), {"temperature": 0, "max_tokens": 5}))
    assert len(answer.choices[0].token_ids) == 5
    assert (service.name, service.context_length) == ("tiny", 256)
    service.close()


def test_the_context_shrinks_to_the_memory_unless_it_was_asked_for(model_path: Path) -> None:
    service = build_service(str(model_path), EngineConfig(num_blocks=4))
    assert service.context_length == 64
    service.close()
    with pytest.raises(ConfigError, match=r"holds 64 tokens.*context of 100"):
        build_service(str(model_path), EngineConfig(num_blocks=4, context_length=100))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_length": 257}, "trained for 256"),
        ({"context_length": 0}, "context_length is 0"),
        ({"num_threads": True}, "num_threads is True"),
        ({"executor": "abacus"}, "Known are: native, reference"),
        ({"max_batch_tokens": 8, "max_sequences": 8}, "max_batch_tokens larger"),
        ({"kv_memory_bytes": 5}, "no KV block"),
    ],
)
def test_settings_that_can_never_work_are_refused(settings: dict[str, object], message: str, model_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build_service(str(model_path), EngineConfig(**settings))  # type: ignore[arg-type]


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "mute.gguf", replace(SPEC, num_layers=3), vocabulary=None)
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        build_service(str(tmp_path / "mute.gguf"))


def test_a_model_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError):
        build_service(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speculate": "oracle"}, "Known are: off, ngram"),
        ({"speculate": "draft"}, "has no model"),
        ({"speculate": "ngram", "draft_model": "x"}, "has no use for it"),
        ({"exit_layer": 2}, "has no use for it"),
        ({"speculate": "self", "exit_layer": 0}, "at least 1"),
        ({"speculate": "self", "exit_layer": True}, "at least 1"),
        ({"speculate": "ngram", "max_drafts": 17}, "1 to 16"),
        ({"speculate": "ngram", "max_drafts": 0}, "1 to 16"),
        ({"speculate": "ngram", "max_drafts": 2.5}, "whole number"),
    ],
)
def test_speculation_that_can_never_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**settings)  # type: ignore[arg-type]


def test_a_draft_model_must_exist_and_have_the_same_tokens(model_path: Path, tmp_path: Path) -> None:
    def serve(**fields: object) -> None:
        build_service(str(model_path), EngineConfig(num_blocks=40, num_threads=1, **fields)).close()  # type: ignore[arg-type]

    with pytest.raises(CatalogueError):
        serve(speculate="draft", draft_model=str(tmp_path / "none.gguf"))
    write_gguf(tmp_path / "mute.gguf", SPEC, vocabulary=None)
    with pytest.raises(ConfigError, match="tokens and the model"):
        serve(speculate="auto", draft_model=str(tmp_path / "mute.gguf"))
    write_gguf(tmp_path / "other.gguf", SPEC, vocabulary="llama")
    with pytest.raises(ConfigError, match="another vocabulary"):
        serve(speculate="draft", draft_model=str(tmp_path / "other.gguf"))
    with pytest.raises(ConfigError, match="has 3 layers"):
        serve(speculate="self", exit_layer=3)


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_service_guesses_with_any_proposer(executor: str, model_path: Path) -> None:
    texts = []
    for fields in ({}, {"speculate": "draft", "draft_model": str(model_path)}, {"speculate": "self"}):
        config = EngineConfig(executor=executor, num_blocks=40, num_threads=1, **fields)  # type: ignore[arg-type]
        service = build_service(str(model_path), config)
        answer = service.complete(service.admit(service.encode("a"), {"temperature": 0, "max_tokens": 40}))
        texts.append(answer.choices[0].token_ids)
        service.close()
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("kv_format", ["f16", "int8:1,f16:*"])
def test_a_model_with_local_layers_has_blocks_of_their_own_beside_tiers_and_sessions(
    tmp_path: Path, kv_format: str
) -> None:
    write_gguf(tmp_path / "gemma.gguf", small_spec("gemma3", num_layers=7))
    tiers = TierConfig(1 << 20, tmp_path / "kv")
    config = EngineConfig(num_threads=1, num_blocks=16, tiers=tiers, kv_format=kv_format, max_sequences=2)
    told = []
    for _ in range(2):
        service = build_service(str(tmp_path / "gemma.gguf"), config)
        assert service.stats().num_local_blocks > 0
        request = service.admit(list(range(5, 105)), {"temperature": 0, "max_tokens": 8, "ignore_eos": True})
        told.append(service.complete(request))
        kept, num_blocks = service._loop.ask(partial(Engine.keep_on_disk, request=request)).result()
        assert num_blocks == 6 < len(kept) < 12
        service.close()
    assert told[0].choices[0].token_ids == told[1].choices[0].token_ids
    assert (told[0].usage.cached_tokens, told[1].usage.cached_tokens) == (0, 96)
