"""Ray Data: reads sources, parses, chunks, embeds and stores them."""
