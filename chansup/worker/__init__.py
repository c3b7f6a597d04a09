"""Channel workers: processes that run the app's consumers for named channels."""
