"""The Apache Beam jobs, each a command: from raw files to records."""
