"""The paper's theorem and lemmas as numbers, by enumeration (docs/theory.md)."""
