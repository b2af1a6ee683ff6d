"""The tests of the documentation. The template's: `copier update` improves them."""
