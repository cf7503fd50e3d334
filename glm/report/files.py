"""File names of runs and reports."""

METRICS_NAME = "metrics.jsonl"
REPORT_PAGE = "report.html"
TRAINING_PAGE = "training.html"
CARD_NAME = "README.md"
PLOTS_FOLDER = "plots"
