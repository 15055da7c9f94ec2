"""What detect.py does: image sets, the protocol, the detectors, their training and the report, one module each."""
