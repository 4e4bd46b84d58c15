"""The nouns of vivace: frozen, typed values that cross the walls between rooms.

Nothing here computes. Every other room may import from this one; this one imports from no room.
"""
