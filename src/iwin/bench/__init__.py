"""Measuring: speed and memory of models side by side, in one run.

What is compared runs in processes of its own that stay alive, each doing one round when it is told to: A B A B, so
that whatever else the machine does meets all of them alike.
"""
