"""How the command ends, for whoever called it."""

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
CLOSED = 141  # as of a process that a closed pipe ends
