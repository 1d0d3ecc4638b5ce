"""What decides which weights are shipped: the dev set, its score, the proof that a policy asks for, diagnostics."""
