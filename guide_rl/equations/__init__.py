"""The formulas of the method as pure functions: numbers and tensors in, numbers and tensors out.

`advantages` (equation 3), `ratios` (the importance weight of equations 5 and 6, appendix E), `losses`
(equation 6), `pass_at_k`, `gains` (equations 1 and 2, appendix C), `intervals`. Nothing here reads a configuration, does I/O or
imports other parts of the package.
Shape suffixes: P problems, G rollouts of a group, N rollouts flattened (in `pass_at_k` and `gains`: of a problem), T tokens,
V vocabulary. Import the module that you need: `pass_at_k`, `gains` and `intervals` need no torch, so this file imports none.
"""
