"""The checks, by what they are about. Importing a module registers its checks."""
