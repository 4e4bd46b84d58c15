"""A conversation in the terminal: its turns, what the model is told of them, and how they are saved."""

import json
from pathlib import Path

from vivace.types.errors import StorageError
from vivace.types.request import ChatMessage


class Conversation:
    """Turns so far, and the system prompt in front of them."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[ChatMessage] = []

    @property
    def num_turns(self) -> int:
        """Questions and answers, without the system prompt."""
        return len(self._turns)

    def asking(self, question: str) -> list[ChatMessage]:
        """What the model is told when it is asked the next question."""
        return [*self.messages(), ChatMessage("user", question)]

    def add(self, question: str, answer: str) -> None:
        """Keep a question with its answer, whole or stopped. One that got no word of answer is not kept."""
        if answer:
            self._turns += [ChatMessage("user", question), ChatMessage("assistant", answer)]

    def reset(self) -> None:
        """Forget the turns; the system prompt stays."""
        self._turns.clear()

    def messages(self) -> list[ChatMessage]:
        """The system prompt, if there is one, and the turns."""
        before = [ChatMessage("system", self.system)] if self.system else []
        return [*before, *self._turns]

    def save(self, path: Path) -> None:
        """Write the conversation: the API's messages for a name that ends in .json, else Markdown.

        Raises:
            StorageError: the file cannot be written.
        """
        text = self._json() if path.suffix == ".json" else self._markdown()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"Cannot write {str(path)!r}: {error.strerror}.", "Choose another file.") from None

    def _json(self) -> str:
        messages = [{"role": message.role, "content": message.content} for message in self.messages()]
        return json.dumps({"messages": messages}, ensure_ascii=False, indent=2) + "\n"

    def _markdown(self) -> str:
        return "\n".join(f"## {message.role}\n\n{message.content}\n" for message in self.messages())
