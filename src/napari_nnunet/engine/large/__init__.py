"""Parts of images that are never in memory as a whole: facts of one pass, parts on the network grid, blocks."""
