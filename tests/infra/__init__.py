"""Tests of what starts and wires it all: child processes, brokers, stores, the command line."""
