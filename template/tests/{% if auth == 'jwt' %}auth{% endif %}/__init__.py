"""The tests of who may connect. The template's: `copier update` improves them."""
