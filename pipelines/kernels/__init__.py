"""What Spark's workers run, a bucket at a time. Each imports it anew, so nothing here knows a catalog or MLflow."""
