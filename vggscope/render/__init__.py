"""Turn a result into text or a picture. A renderer returns str or bytes; it does not print or write files."""
