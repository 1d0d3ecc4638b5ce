"""What is computed from texts alone: language, sentences and words, near-duplicates, and where a text stands."""
