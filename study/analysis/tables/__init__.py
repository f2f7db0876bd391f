"""Tables of results that other tools made: read, understood and analysed (docs/tables.md)."""
