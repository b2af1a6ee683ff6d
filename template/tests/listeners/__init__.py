"""Yours: the tests of the listeners, one file for each. `copier update` never touches them."""
