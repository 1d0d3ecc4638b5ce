"""Model selection: the dev set, its score, the policy that a candidate must satisfy, and diagnostics."""
