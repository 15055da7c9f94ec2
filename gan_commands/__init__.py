"""The sub-commands and studies of gan.py, each a function in a module of its name, and what they share."""
