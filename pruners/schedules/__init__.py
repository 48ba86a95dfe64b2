"""Schedules: one-shot pruners applied while a network trains, again and again or with training that prepares for them."""
