"""The digit classifier that the project trains for itself: the features behind `fd_digits`."""
