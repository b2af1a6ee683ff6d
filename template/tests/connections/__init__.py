"""The tests of the wiring. The template's: `copier update` improves them."""
