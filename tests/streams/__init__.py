"""Of the stream processor: its pure core, and the stages around it."""
