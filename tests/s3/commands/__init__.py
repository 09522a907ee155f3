"""Commands that people use, by the tool. Importing a module registers its checks."""
