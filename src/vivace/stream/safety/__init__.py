"""Safety filters over text that still grows: what they forbid never leaves, whatever the tokens are."""
