"""What scores and columns are called in a report."""

SCORE_NAMES = {
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "mce": "MCE",
    "aurc": "AURC",
    "debiased_ece": "debiased ECE",
    "classwise_ece": "classwise ECE",
    "squared_ce": "squared CE",
    "squared_ace": "squared ACE",
    "skce": "kernel CE",
    "e_aurc": "E-AURC",
    "accuracy_at_80": "accuracy at 80\u00a0%",
    "set_coverage_90": "90 % sets hold",
    "set_size_90": "their size",
}

COLUMN_NAMES = {"r_hat": "R-hat", "eti89_lb": "89 % from", "eti89_ub": "to"}
