"""Datasets in and out: BEIR folders, LlamaIndex JSON, tables of pairs, and questions that people asked."""
