"""Jobs: what is to be pruned, how far it is, and what came out."""
