//! What the engine promises, and what it does against a direct reading of its rules.
