"""The formulas of the method as pure functions: numbers and tensors in, numbers and tensors out.

`advantages` (equation 3), `ratios` (the importance weight of equations 5 and 6, appendix E), `losses`
(equation 6), `pass_at_k`. Nothing here reads a configuration, does I/O or imports other parts of the package.
Shape suffixes: G rollouts of a group, N rollouts flattened, T tokens, V vocabulary. Import the module that
you need: only `pass_at_k` works without torch, so this file imports none of them.
"""
