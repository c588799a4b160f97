"""Ray Serve deployments: the detector and the HTTP API, and how they are wired."""
