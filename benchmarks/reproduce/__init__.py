"""Published experiments of three pruning methods, done again with this library as a user would."""
