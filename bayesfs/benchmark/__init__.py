"""One table of models, engines and baselines on one data set."""
