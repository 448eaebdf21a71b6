"""Scores, cuts, schedules and rounds: a recipe turns a dense checkpoint into tickets."""
