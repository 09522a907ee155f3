"""Bad input, by what is bad about it. Importing a module registers its checks."""
