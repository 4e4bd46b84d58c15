"""Guess and verify: who guesses the next tokens, how many guesses a step tries, and which of them stand."""
