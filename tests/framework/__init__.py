"""The tests of the framework: a test of the template copies them into a rendered project and runs them there."""
