"""Feature dashboards, the computing side: from a SAE and rows of tokens to the files of docs/dashboard_format.md."""
