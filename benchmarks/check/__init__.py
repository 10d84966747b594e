"""The contract of a variant as properties that can be tested: each says in words what is wrong and how to mend it."""
