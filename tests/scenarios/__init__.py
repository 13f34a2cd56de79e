"""What operators ask of the whole pipeline, told in sentences, on a real broker."""
