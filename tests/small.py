"""Options of train.py that several tests share: the smallest network, and an objective that fits small images."""

SMALL_NETWORK = ["--width", "8", "--sigma", "4", "--log_frequency", "1"]
