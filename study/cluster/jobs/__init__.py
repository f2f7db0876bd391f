"""Studies as Ray jobs on a cluster that is reached over HTTP."""
