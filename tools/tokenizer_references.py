"""The tokenizers that vivace's are compared with: SentencePiece, Hugging Face transformers and llama.cpp.

Each is built from the same GGUF file. Needs sentencepiece, transformers or xllamacpp.
Used by make_tokenizer_goldens.py.
"""

import http.client
import json
import struct
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from vivace.types.vocabulary import GgufVocabulary

_UNKNOWN_TYPE = 2
_BPE_MODEL = 2


class SentencePieceReference:
    """Google's SentencePiece on a model written from the vocabulary of a GGUF file.

    Field numbers are those of sentencepiece_model.proto.
    """

    def __init__(self, vocabulary: GgufVocabulary) -> None:
        import sentencepiece

        named = [vocabulary.special_ids[name] for name in ("unknown", "bos", "eos", "padding")]
        model = bytearray()
        rows = zip(vocabulary.tokens, vocabulary.scores, vocabulary.token_types, strict=True)
        for token_id, (text, score, kind) in enumerate(rows):
            used = _UNKNOWN_TYPE if token_id == named[0] else kind
            piece = _message(1, text.replace(" ", "▁").encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score)
            model += _message(1, piece + _number(3, used))
        trainer = _number(3, _BPE_MODEL) + _number(4, len(vocabulary.tokens)) + _number(35, 1)
        trainer += b"".join(_number(field, token_id) for field, token_id in zip(range(40, 44), named, strict=True))
        texts = [vocabulary.tokens[token_id].encode() for token_id in named]
        trainer += b"".join(_message(field, text) for field, text in zip(range(45, 49), texts, strict=True))
        normalizer = _message(1, b"identity") + _number(3, int(vocabulary.add_space_prefix)) + _number(4, 0)
        model += _message(2, trainer) + _message(3, normalizer + _number(5, 1))
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=bytes(model))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return list(self._processor.encode(text))


class TransformersReference:
    """The fast tokenizer that transformers makes of a GGUF file, control tokens read as plain text.

    Its GGUF loader gives every byte-level vocabulary the word cut of GPT-2 and so misses the one that SmolLM2 was
    trained with, where every digit stands alone. The published tokenizer.json has `Digits` before `ByteLevel`; that is
    put right here, and llama.cpp, which has its own code for it, is asked as well.
    """

    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        pipeline = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)._tokenizer
        pipeline.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        pipeline.encode_special_tokens = True
        self._pipeline = pipeline

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = self._pipeline.encode(text, add_special_tokens=False).ids
        return ids


class LlamaCppReference:
    """llama.cpp's tokenizer, asked through the server that xllamacpp starts."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 256, 1, 1
        params.warmup, params.verbosity = False, 0
        self._server = xllamacpp.Server(params)
        self._connection = http.client.HTTPConnection(self._server.listening_address.partition("//")[2])

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Ids of text without the begin and end tokens."""
        body = json.dumps({"content": text, "add_special": False, "parse_special": parse_special})
        self._connection.request("POST", "/tokenize", body.encode(), {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.load(self._connection.getresponse())
        return [int(token) for token in answer["tokens"]]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
