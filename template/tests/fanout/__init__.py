"""The tests of the fan-out. The template's: `copier update` improves them."""
