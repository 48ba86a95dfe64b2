"""Each figure that the README claims, as a command that prints it."""
