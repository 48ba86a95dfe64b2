"""From a program file to a network whose channels can be removed: read ▸ modules ▸ trace ▸ shrink."""
