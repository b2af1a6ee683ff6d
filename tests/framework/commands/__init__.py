"""The tests of the framework: they run in a project that is rendered from the template."""
