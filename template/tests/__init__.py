"""The tests of the service: `test_state_independence.py` is the proof; what is in `listeners/` is yours."""
