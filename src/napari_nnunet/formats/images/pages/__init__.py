"""Pages of TIFFs: how a file is opened, what its pages are together, and how they are unpacked."""
