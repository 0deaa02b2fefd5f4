"""From a program to a module: space, architecture, graph, passes, cost, torch."""
