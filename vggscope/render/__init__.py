"""From a result to text or to a picture. A renderer returns str or bytes; it never prints and never writes a file."""
