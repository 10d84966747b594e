"""Running the cells of a suite: each once, whoever asks, several at once, tried again, and measured later."""
