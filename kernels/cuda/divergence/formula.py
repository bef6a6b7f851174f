"""Scalar formulas of divergences as functions of the device."""

from __future__ import annotations

from kernels import divergence_formula, sparse_formula
from kernels.cuda.kinds import target

device = target.device
term_of, slope_of = device(divergence_formula.term_of), device(divergence_formula.slope_of)
not_negative = device(divergence_formula.not_negative)
weighed = device(divergence_formula.weighed)
read_teacher, compared = device(sparse_formula.read_teacher), device(sparse_formula.compared)
sum_of_exp, log_of_sum = device(sparse_formula.sum_of_exp), device(sparse_formula.log_of_sum)
slope_of_rest = device(sparse_formula.slope_of_rest)
