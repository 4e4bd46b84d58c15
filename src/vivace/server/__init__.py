"""HTTP: the OpenAI-style API and the chat page."""
