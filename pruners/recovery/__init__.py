"""Recovery: giving a pruned network back what the cut took from it."""
