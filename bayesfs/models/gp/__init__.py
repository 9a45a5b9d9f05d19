"""Deep-kernel Gaussian processes over frames of videos: start with `deep_kernel_gp`."""
