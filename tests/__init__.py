"""The tests of the template: it is rendered, and what is rendered is checked, run, broken and updated."""
