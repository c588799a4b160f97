"""Attributes of people: crops in, labels out, a majority vote for each person."""
