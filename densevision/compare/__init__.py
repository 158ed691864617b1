"""Experiments side by side: run directories and W&B runs -> groups -> a table, a page, a text for a pull request."""
