"""The fan-out over many nodes, through an engine that may be unavailable at any time."""
