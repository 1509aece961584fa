"""Graphs of operators and networks: what latency tables time is what export writes."""
