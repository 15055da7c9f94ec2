"""The sub-commands of gan.py, one module each, and what they share."""
