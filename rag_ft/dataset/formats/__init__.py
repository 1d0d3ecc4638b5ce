"""Read and write datasets: BEIR folders, LlamaIndex JSON, tables of pairs, and questions that people asked."""
