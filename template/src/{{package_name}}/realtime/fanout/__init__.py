"""The fan-out: what one connection publishes, the others receive."""
