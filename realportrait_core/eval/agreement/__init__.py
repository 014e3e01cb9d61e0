"""Agreement of the offline estimators with the truth of rendered clips."""
