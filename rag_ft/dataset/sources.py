"""Sources of questions that need no LLM. The source of an LLM's question is the style that its prompt asked for."""

SENTENCE = "sentence"
HEADING = "heading"
KEY_PHRASES = "key-phrases"
HUMAN = "human"

WITHOUT_LLM = {SENTENCE, HEADING, KEY_PHRASES, HUMAN}
"""Sources of questions that no LLM wrote."""
