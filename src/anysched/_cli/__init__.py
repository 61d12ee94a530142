"""The command line of anysched: a program that uses the library as any other would. Nothing in the library imports it."""
