"""Text analysis: language, sentences and words, near-duplicates, and locating a text."""
