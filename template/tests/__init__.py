"""The template's: the tests of the service. `test_state_independence.py` is the proof; `listeners/` is yours."""
