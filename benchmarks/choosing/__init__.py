"""`zoo choose`: of the values of a setting the one that is best on validation images, and what it comes to on test
images, which have not chosen it.

The cells are those of `zoo bench`, and the numbers of validation images those of `zoo evaluate RUN --split validation`.
"""
