"""The clip classifier: two seconds of one person in, the probability of concealing goods out."""
