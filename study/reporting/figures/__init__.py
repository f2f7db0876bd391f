"""The figures of reports, drawn with Plotly from records."""
