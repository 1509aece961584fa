"""Closed loops: search, measure what was found, correct what the search goes by, and search again.

Three jobs share the loop of `loop.py`:

    deploy        exports and times the files of several budgets; a file that is too slow gets a margin
    verification  times candidates beside the table; the table gets a factor
    refinement    measures the accuracy of a front; the predictor is fitted anew
"""
