"""Ray actors: placement, lifecycle and messages around the plain classes of `storeguard`."""
