"""How a question was made: the styles that need no LLM, and that of people. An LLM's own are told by its prompt."""

SENTENCE = "sentence"
HEADING = "heading"
KEY_PHRASES = "key-phrases"
HUMAN = "human"

WITHOUT_LLM = {SENTENCE, HEADING, KEY_PHRASES, HUMAN}
"""Styles of questions that no LLM wrote."""
