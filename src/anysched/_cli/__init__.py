"""The command line of anysched: a program that uses the library's public names only. Nothing in the library imports it."""
